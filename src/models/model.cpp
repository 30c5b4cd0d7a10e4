#include "models/model.h"

#include "base/error.h"

namespace fathom {

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

}  // namespace fathom
