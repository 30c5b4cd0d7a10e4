#include "models/model.h"

#include <algorithm>

#include "base/error.h"
#include "base/spec.h"

namespace fathom {
namespace {

struct Shape {
  const char* name;
  const char* architecture;
  int layers;
  int64_t width;
  int heads, kv_heads, head_dim;
  int64_t ffn_width, vocabulary;
  bool tied;
  double rotary_base;
};
constexpr Shape kShapes[] = {
    {"llama-1b", "llama", 16, 2048, 32, 8, 64, 8192, 32000, true, 500000},
    {"llama-8b", "llama", 32, 4096, 32, 8, 128, 14336, 128256, false, 500000},
    {"qwen3-0.6b", "qwen3", 28, 1024, 16, 8, 128, 3072, 151936, true, 1000000},
};

ModelConfig config_of(const Shape& s) {
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

}  // namespace

std::string shape_names() {
  std::string names;
  for (const Shape& s : kShapes) names += (names.empty() ? "" : ", ") + std::string(s.name);
  return names;
}

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

std::shared_ptr<const Model> Model::random(const std::string& shape) {
  const size_t colon = shape.find(':');
  const std::string name = shape.substr(0, colon),
                    type_name = colon == std::string::npos ? "q4_k" : shape.substr(colon + 1);
  const auto* found =
      std::find_if(std::begin(kShapes), std::end(kShapes), [&](const Shape& s) { return name == s.name; });
  if (found == std::end(kShapes)) fail_usage("shape '", name, "' is not known; known: ", shape_names());
  const WeightTypeInfo* type = find_weight_type(type_name);
  if (!type) fail_usage("weight type '", type_name, "' is not known; known: ", weight_type_names());
  std::shared_ptr<Model> model(new Model());
  model->config_ = config_of(*found);
  model->config_.name = name + ":" + type->name;
  RandomWeights weights(type->type, found->tied);
  model->network_ = find_architecture(found->architecture).build(model->config_, weights);
  model->owned_ = weights.take();
  return model;
}

}  // namespace fathom
