// Models with random weights and the shapes of real models, for measurements of speed, which does not depend on the
// values of weights.
#include <algorithm>

#include "base/error.h"
#include "base/spec.h"
#include "models/model.h"
#include "models/model_metadata.h"

namespace fathom {
namespace {

struct NamedShape {
  const char* name;
  const char* architecture;
  int layers;
  int64_t width;
  int heads, kv_heads, head_dim;
  int64_t ffn_width, vocabulary;
  bool tied;
  double rotary_base;
};
constexpr NamedShape kShapes[] = {
    {"llama-1b", "llama", 16, 2048, 32, 8, 64, 8192, 32000, true, 500000},
    {"llama-8b", "llama", 32, 4096, 32, 8, 128, 14336, 128256, false, 500000},
    {"qwen3-0.6b", "qwen3", 28, 1024, 16, 8, 128, 3072, 151936, true, 1000000},
};

ModelConfig config_of(const NamedShape& s) {
  ModelConfig c;
  c.architecture = s.architecture;
  c.name = s.name;
  c.layers = s.layers;
  c.width = s.width;
  c.heads = s.heads;
  c.kv_heads = s.kv_heads;
  c.key_dim = c.value_dim = s.head_dim;
  c.ffn_width = s.ffn_width;
  c.vocabulary = s.vocabulary;
  c.trained_context = int64_t{1} << 20;
  c.rotary.dims = s.head_dim;
  c.rotary.base = s.rotary_base;
  c.rotary.pairing = std::string_view(s.architecture) == "llama" ? RotaryConfig::Pairing::kInterleaved
                                                                 : RotaryConfig::Pairing::kHalfSplit;
  return c;
}

struct RandomModelSpec {
  const NamedShape& shape;
  const WeightTypeInfo& type;
  ModelConfig config;
};

/// Parses "llama-1b:q4_k", or "llama-1b" for q4_k. Throws Error (usage) listing the known shapes or types.
RandomModelSpec parse_shape(const std::string& shape) {
  const size_t colon = shape.find(':');
  const std::string name = shape.substr(0, colon),
                    type_name = colon == std::string::npos ? "q4_k" : shape.substr(colon + 1);
  const auto* found =
      std::find_if(std::begin(kShapes), std::end(kShapes), [&](const NamedShape& s) { return name == s.name; });
  if (found == std::end(kShapes)) fail_usage("shape '", name, "' is not known; known: ", shape_names());
  const WeightTypeInfo* type = find_weight_type(type_name);
  if (!type) fail_usage("weight type '", type_name, "' is not known; known: ", weight_type_names());
  RandomModelSpec spec{*found, *type, config_of(*found)};
  spec.config.name = name + ":" + type->name;
  return spec;
}

/// Random weights that are also added to a file, with the names that the architecture uses.
class WrittenWeights final : public WeightSource {
 public:
  WrittenWeights(RandomWeights& weights, GgufWriter& writer) : weights_(weights), writer_(writer) {}
  bool has(const std::string& name) const override { return weights_.has(name); }
  Matrix matrix(const std::string& name, int64_t rows, int64_t cols) override {
    const Matrix matrix = weights_.matrix(name, rows, cols);
    writer_.add_tensor(name, matrix.type, {cols, rows}, {matrix.data, matrix.bytes()});
    return matrix;
  }
  Matrix stack(const std::string& name, int64_t count, int64_t rows, int64_t cols) override {
    const Matrix matrix = weights_.stack(name, count, rows, cols);
    writer_.add_tensor(name, matrix.type, {cols, rows, count}, {matrix.data, matrix.bytes()});
    return matrix;
  }
  std::vector<float> vector(const std::string& name, int64_t n) override {
    std::vector<float> values = weights_.vector(name, n);
    writer_.add_tensor(name, WeightType::kF32, {n}, std::as_bytes(std::span(values)));
    return values;
  }

 private:
  RandomWeights& weights_;
  GgufWriter& writer_;
};

void set_metadata(GgufWriter& writer, const ModelConfig& c) {
  set_shape_metadata(writer, c);
  writer.set(c.architecture + ".rope.dimension_count", GgufType::kU32, int64_t{c.rotary.dims});
  writer.set(c.architecture + ".rope.freq_base", GgufType::kF32, c.rotary.base);
}

/// Adds a vocabulary of control tokens, all bytes and placeholders. Engines require one even if they read no text.
void set_vocabulary(GgufWriter& writer, int64_t size) {
  enum GgufTokenType { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types{kUnknown, kControl, kControl};
  const char* digits = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">");
    types.push_back(kByte);
  }
  std::vector<float> scores(tokens.size(), 0.0f);
  for (int64_t i = static_cast<int64_t>(tokens.size()); i < size; ++i) {
    tokens.push_back("token" + std::to_string(i));
    types.push_back(kNormal);
    scores.push_back(-static_cast<float>(i));
  }
  writer.set_string("tokenizer.ggml.model", "llama");
  writer.set_strings("tokenizer.ggml.tokens", tokens);
  writer.set_floats("tokenizer.ggml.scores", scores);
  writer.set_integers("tokenizer.ggml.token_type", types);
  const char* special[] = {"unknown", "bos", "eos"};
  for (int i = 0; i < 3; ++i) {
    writer.set(std::string("tokenizer.ggml.") + special[i] + "_token_id", GgufType::kU32, int64_t{i});
  }
}

}  // namespace

std::string shape_names() {
  std::string names;
  for (const NamedShape& s : kShapes) names += (names.empty() ? "" : ", ") + std::string(s.name);
  return names;
}

std::shared_ptr<const Model> Model::random(const std::string& shape) {
  const RandomModelSpec spec = parse_shape(shape);
  std::shared_ptr<Model> model(new Model());
  model->config_ = spec.config;
  RandomWeights weights(spec.type.type, spec.shape.tied);
  model->network_ = find_architecture(spec.config.architecture).build(model->config_, weights);
  model->owned_ = weights.take();
  model->random_shape_ = shape;
  return model;
}

void write_random_model(const std::string& shape, const std::string& path) {
  const RandomModelSpec spec = parse_shape(shape);
  GgufWriter writer;
  set_metadata(writer, spec.config);
  set_vocabulary(writer, spec.config.vocabulary);
  RandomWeights weights(spec.type.type, spec.shape.tied);
  WrittenWeights written(weights, writer);
  find_architecture(spec.config.architecture).build(spec.config, written);
  writer.write(path);
}

}  // namespace fathom
