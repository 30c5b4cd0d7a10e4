#include "models/model.h"

#include <algorithm>

#include "base/content_hash.h"
#include "base/error.h"

namespace fathom {
namespace {

uint64_t hash_of_file(const Gguf& file) {
  constexpr size_t kSample = 4096;  // bytes at the start of each tensor; whole files would take seconds
  ContentHash hash;
  hash.add(static_cast<uint64_t>(file.file_bytes()));
  for (const std::string_view key : file.keys()) hash.add(key);
  for (const GgufTensor& tensor : file.tensors()) {
    hash.add(tensor.name);
    hash.add(static_cast<uint64_t>(tensor.type));
    for (const int64_t dim : tensor.shape) hash.add(static_cast<uint64_t>(dim));
    hash.add({reinterpret_cast<const char*>(tensor.data), std::min(tensor.bytes, kSample)});
  }
  return hash.value();
}

}  // namespace

std::shared_ptr<const Model> Model::open(const std::string& path) { return from(Gguf::open(path)); }

std::shared_ptr<const Model> Model::from(Gguf opened) {
  std::shared_ptr<Model> model(new Model());
  model->file_ = std::make_unique<Gguf>(std::move(opened));
  const Gguf& file = *model->file_;
  const auto architecture = file.string("general.architecture");
  if (!architecture) fail(file.name(), ": general.architecture is missing");
  try {
    const Architecture& known = find_architecture(*architecture);
    model->config_ = known.read_config(file);
    GgufWeights weights(file);
    model->network_ = known.build(model->config_, weights);
  } catch (const Error& error) {
    const std::string text = error.what();
    throw Error(text.find(file.name()) == std::string::npos ? file.name() + ": " + text : text, error.kind());
  }
  return model;
}

uint64_t Model::fingerprint() const {
  std::call_once(fingerprint_once_,
                 [this] { fingerprint_ = file_ ? hash_of_file(*file_) : hash_content(random_shape_); });
  return fingerprint_;
}

}  // namespace fathom
