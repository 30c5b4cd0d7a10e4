// gpt-oss: attention sinks, a window in every other layer, biases of all projections, and experts weighted by a
// softmax over the selected ones.
#include "attend/forms/sink_form.h"
#include "models/architecture.h"

namespace fathom {
namespace {

ModelConfig read_config(const Gguf& file) {
  const ConfigReader reader(file);
  ModelConfig config = reader.common(RotaryConfig::Pairing::kHalfSplit);
  config.experts = reader.experts();
  config.each_layer.assign(config.layers, config.layer(0));
  for (int i = 1; i < config.layers; i += 2) config.each_layer[i].window = 0;
  return config;
}

std::unique_ptr<Network> build(const ModelConfig& c, WeightSource& weights) {
  DecoderBuilder b(c, weights);
  for (int i = 0; i < c.layers; ++i) {
    AttentionParts attention{.bias = Bias::kRequired, .output_bias = Bias::kRequired};
    attention.form = std::make_unique<SinkForm>(b.vector(b.name(i, "attn_sinks.weight"), c.layer(i).heads));
    b.add(i, b.rms_norm(i, "attn_norm"), b.attention(i, std::move(attention)));
    b.add(i, b.rms_norm(i, "post_attention_norm"),
          b.experts(i, {.routing = {.gate = Routing::Gate::kSoftmaxOfChosen},
                        .activation = Activation::kSwiGluOai,
                        .bias = Bias::kRequired}));
  }
  return b.finish(b.rms_norm("output_norm"));
}

}  // namespace

Architecture gpt_oss_architecture() { return {"gpt-oss", read_config, build}; }

}  // namespace fathom
