#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

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

/// Returns random tokens of a vocabulary.
inline std::vector<int32_t> random_tokens(std::mt19937& random, int64_t count, int64_t vocabulary) {
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random() % vocabulary);
  return tokens;
}

/// Returns the largest absolute difference; infinity for different sizes.
inline double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) most = std::fmax(most, std::abs(a[i] - b[i]));
  return most;
}

}  // namespace fathom::test
