// Functions of DecoderBuilder that build state-space layers.
#include "mixers/mamba2_mixer.h"
#include "mixers/mamba_mixer.h"
#include "models/decoder_builder.h"

namespace fathom {

ShortConv DecoderBuilder::short_conv(int layer, int64_t channels) {
  ShortConv conv;
  conv.channels = channels;
  conv.width = c_.state_space.conv_width;
  conv.weight = weights_.matrix_floats(name(layer, "ssm_conv1d.weight"), channels, conv.width);
  conv.bias = bias(name(layer, "ssm_conv1d.bias"), channels, Bias::kIfPresent);
  return conv;
}

std::unique_ptr<Mixer> DecoderBuilder::mamba(int layer) {
  const StateSpaceConfig& s = c_.state_space;
  MambaWeights w;
  w.layer = layer;
  w.inner = s.inner;
  w.state = s.state;
  w.rank = s.time_step;
  w.in = matrix(name(layer, "ssm_in.weight"), 2 * s.inner, c_.width);
  w.conv = short_conv(layer, s.inner);
  w.select = matrix(name(layer, "ssm_x.weight"), s.time_step + 2 * s.state, s.inner);
  w.time = matrix(name(layer, "ssm_dt.weight"), s.inner, s.time_step);
  w.time_bias = vector(name(layer, "ssm_dt.bias"), s.inner);
  w.a = weights_.matrix_floats(name(layer, "ssm_a"), s.inner, s.state);
  w.d = vector(name(layer, "ssm_d"), s.inner);
  w.norm_eps = c_.norm_eps;
  if (s.normed) {
    w.time_norm.assign(s.time_step, 1.0f);
    w.b_norm.assign(s.state, 1.0f);
    w.c_norm = w.b_norm;
  }
  w.out = matrix(name(layer, "ssm_out.weight"), c_.width, s.inner);
  return std::make_unique<MambaMixer>(std::move(w));
}

std::unique_ptr<Mixer> DecoderBuilder::mamba2(int layer) {
  const StateSpaceConfig& s = c_.state_space;
  const int64_t channels = s.inner + 2 * s.groups * s.state;
  Mamba2Weights w;
  w.layer = layer;
  w.inner = s.inner;
  w.heads = s.time_step;
  w.groups = s.groups;
  w.state = s.state;
  w.in = matrix(name(layer, "ssm_in.weight"), s.inner + channels + w.heads, c_.width);
  w.conv = short_conv(layer, channels);
  w.time_bias = vector(name(layer, "ssm_dt.bias"), w.heads);
  w.a = weights_.matrix_floats(name(layer, "ssm_a"), w.heads, 1);
  w.d = weights_.matrix_floats(name(layer, "ssm_d"), w.heads, 1);
  w.norm_eps = c_.norm_eps;
  if (const std::string norm = name(layer, "ssm_norm.weight"); weights_.has(norm))
    w.norm = weights_.matrix_floats(norm, s.groups, s.inner / s.groups);
  w.out = matrix(name(layer, "ssm_out.weight"), c_.width, s.inner);
  return std::make_unique<Mamba2Mixer>(std::move(w));
}

}  // namespace fathom
