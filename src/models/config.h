#pragma once

#include <cstdint>
#include <string>

#include "attend/landmarks.h"
#include "position/rotary.h"

namespace fathom {

/// The shape of a model: what an architecture reads from a file's metadata.
struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // what the file calls itself
  int layers = 0;
  int64_t width = 0;
  int heads = 0, kv_heads = 0;
  int key_dim = 0, value_dim = 0;
  int64_t ffn_width = 0;
  int64_t vocabulary = 0;
  int64_t trained_context = 0;
  float norm_eps = 1e-5f;
  RotaryConfig rotary;
  int64_t sliding_window = 0;  // the model's own, on every layer; 0 = none
  bool softplus = false;       // trained with softplus attention, not with softmax
  float softplus_power = 0;    // of its re-weighting; 0 = none
  Landmarks landmarks;         // that it was trained with
  int32_t landmark_token = 0;  // what they are
};

}  // namespace fathom
