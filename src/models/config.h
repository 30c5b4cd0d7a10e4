#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attend/landmarks.h"
#include "position/rotary.h"

namespace fathom {

/// The shape of the attention and the feed-forward of one layer.
struct LayerConfig {
  int heads = 0, kv_heads = 0;  // query heads (0: no attention), key/value heads
  int key_dim = 0, value_dim = 0;
  int64_t window = 0;     // newest tokens that a token attends to, itself included; 0: all
  int rotary = 0;         // index into ModelConfig::rotaries(); kNoRotary: keys are not rotated
  int64_t ffn_width = 0;  // width of the dense feed-forward; 0: none
};
inline constexpr int kNoRotary = -1;

/// The shape of a mixture of experts.
struct ExpertConfig {
  int count = 0, used = 0;  // experts of a layer, and experts used per token
  int64_t width = 0;        // feed-forward width of an expert
};

/// The shape of a state-space layer (Mamba).
struct StateSpaceConfig {
  int conv_width = 0;     // inputs of the convolution, the newest one included
  int64_t inner = 0;      // channels
  int64_t state = 0;      // state size per channel
  int64_t time_step = 0;  // rank of the time steps (Mamba-1), or heads (Mamba-2)
  int64_t groups = 0;     // groups of heads that share B and C (Mamba-2)
  bool normed = false;    // whether time steps, B and C have RMS norms, without weights (Mamba-1)
};

/// The shape of a model, which an architecture reads from the metadata of a file.
struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // general.name of the file
  int layers = 0;
  int64_t width = 0;
  // The values of all layers, unless `each_layer` is set.
  int heads = 0, kv_heads = 0;
  int key_dim = 0, value_dim = 0;
  int64_t ffn_width = 0;
  int64_t sliding_window = 0;
  std::vector<LayerConfig> each_layer;  // [layers]; empty: all layers are equal
  int64_t vocabulary = 0;
  int64_t trained_context = 0;
  float norm_eps = 1e-5f;
  RotaryConfig rotary;                         // of all layers, or of layers with rotary 0
  std::vector<RotaryConfig> further_rotaries;  // of layers with rotary 1, 2, …
  ExpertConfig experts;
  StateSpaceConfig state_space;
  bool softplus = false;       // trained with softplus instead of softmax attention
  float softplus_power = 0;    // exponent of its re-weighting; 0: none
  Landmarks landmarks;         // landmarks that the model was trained with
  int32_t landmark_token = 0;  // token id of the landmarks

  LayerConfig layer(int i) const {
    if (!each_layer.empty()) return each_layer[i];
    return {heads, kv_heads, key_dim, value_dim, sliding_window, rotary.dims > 0 ? 0 : kNoRotary, ffn_width};
  }
  std::vector<RotaryConfig> rotaries() const {
    std::vector<RotaryConfig> all{rotary};
    all.insert(all.end(), further_rotaries.begin(), further_rotaries.end());
    return all;
  }
};

}  // namespace fathom
