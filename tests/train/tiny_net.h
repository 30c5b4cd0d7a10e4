#pragma once

#include <cstdint>

#include "train/net.h"

namespace fathom::test {

/// Returns the shape of a net that trains in seconds.
inline train::NetConfig tiny_config() {
  train::NetConfig config;
  ModelConfig& c = config.model;
  c.architecture = "llama";
  c.name = "tiny";
  c.layers = 2;
  c.width = 32;
  c.heads = 4;
  c.kv_heads = 2;
  c.key_dim = c.value_dim = c.rotary.dims = 8;
  c.ffn_width = 48;
  c.vocabulary = 40;
  c.trained_context = 256;
  return config;
}

}  // namespace fathom::test
