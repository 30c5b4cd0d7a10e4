#include "session/segment_compressor.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "attend/methods.h"
#include "base/error.h"
#include "formats/gguf_layout.h"
#include "models/weights.h"

namespace fathom {
namespace {

constexpr int64_t kMaxSegment = 1 << 16;
constexpr const char* kConceptTensor = "concept.weight";

void expect_compression_text(const Gguf& file, std::string_view key, std::string_view expected) {
  const auto found = file.string(key);
  if (!found || *found != expected)
    fail(file.name(), ": metadata key ", gguf::quoted(key), ": expected ", gguf::quoted(expected), ", found ",
         found ? gguf::quoted(*found) : "none");
}

void expect_of_model(const Gguf& file, std::string_view key, int64_t expected) {
  const int64_t found = file.required_integer(key);
  if (found != expected)
    fail(file.name(), ": metadata key ", gguf::quoted(key), ": expected ", expected, " as in the model, found ",
         found);
}

int64_t compression_size(const Gguf& file, std::string_view key, int64_t min, int64_t max) {
  const int64_t size = file.required_integer(key);
  if (size < min || size > max)
    fail(file.name(), ": metadata key ", gguf::quoted(key), ": expected an integer from ", min, " to ", max,
         ", found ", size);
  return size;
}

/// Returns the adapter whose factors are tensors of the file.
std::shared_ptr<const Adapter> adapter_of(const Gguf& file, std::shared_ptr<const Model> model) {
  GgufWriter writer;
  writer.set_string("general.type", "adapter");
  writer.set_string("adapter.type", "lora");
  writer.set_string("general.architecture", model->config().architecture);
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name == kConceptTensor) continue;
    writer.add_tensor(std::string(tensor.name), tensor.type, tensor.shape, {tensor.data, tensor.bytes});
  }
  const std::vector<std::byte> bytes = writer.bytes();
  return Adapter::from(Gguf::parse(bytes, file.name()), std::move(model));
}

}  // namespace

SegmentCompressor::SegmentCompressor(const Gguf& file, std::shared_ptr<const Model> model) {
  const ModelConfig& config = model->config();
  expect_compression_text(file, "general.type", "compression");
  expect_compression_text(file, "compression.kind", "compllm");
  expect_of_model(file, "compression.width", config.width);
  expect_of_model(file, "compression.vocabulary", config.vocabulary);
  expect_of_model(file, "compression.layers", config.layers);
  segment_ = compression_size(file, "compression.segment", 1, kMaxSegment);
  factor_ = compression_size(file, "compression.factor", 1, segment_);
  end_ = static_cast<int32_t>(compression_size(file, "compression.end_token", 0, config.vocabulary - 1));
  concept_ = GgufWeights(file).matrix_floats(kConceptTensor, config.width, config.width);
  for (const float x : concept_)
    if (!std::isfinite(x)) fail(file.name(), ": tensor ", kConceptTensor, ": expected finite numbers, found ", x);
  adapter_ = adapter_of(file, std::move(model));
}

int64_t SegmentCompressor::embeddings_of(int64_t tokens) const {
  const auto of = [&](int64_t count) { return (count + factor_ - 1) / factor_; };
  return tokens / segment_ * of(segment_) + of(tokens % segment_);
}

std::vector<float> SegmentCompressor::compress_segment(Engine& engine, std::span<const int32_t> tokens) const {
  if (tokens.empty() || std::ssize(tokens) > segment_)
    fail("a segment of ", tokens.size(), " tokens: expected 1 to ", segment_);
  const int64_t width = engine.model().config().width, count = embeddings_of(std::ssize(tokens));
  std::vector<int32_t> read(tokens.begin(), tokens.end());
  read.resize(read.size() + count, end_);
  std::vector<int64_t> wanted(count);
  std::iota(wanted.begin(), wanted.end(), std::ssize(tokens));
  const int last_layer = engine.model().config().layers;
  const std::unique_ptr<Selector> dense = attend_methods().make("dense");
  Sequence sequence = engine.new_sequence({.cache = "f32", .adapters = {{adapter_, 1}}});
  Rows rows;
  rows.sequence = &sequence;
  rows.policy.selector = dense.get();
  rows.tokens = read;
  rows.output_rows = wanted;
  rows.top_k = 1;  // logits are not needed
  rows.hidden_layers = {&last_layer, 1};
  engine.forward({&rows, 1});
  rows.result.throw_if_failed();
  std::vector<float> embeddings(count * width);
  for (int64_t i = 0; i < count; ++i) {
    const float* state = rows.result.hidden.data() + i * width;
    for (int64_t r = 0; r < width; ++r)
      embeddings[i * width + r] = std::inner_product(state, state + width, concept_.begin() + r * width, 0.0f);
  }
  return embeddings;
}

std::vector<float> SegmentCompressor::compress(Engine& engine, std::span<const int32_t> tokens) const {
  std::vector<float> all;
  for (size_t begin = 0; begin < tokens.size(); begin += segment_) {
    const std::span part = tokens.subspan(begin, std::min<size_t>(segment_, tokens.size() - begin));
    const std::vector<float> embeddings = compress_segment(engine, part);
    all.insert(all.end(), embeddings.begin(), embeddings.end());
  }
  return all;
}

}  // namespace fathom
