#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace fathom::test {

/// Logits of a model computed by an independent engine: the tokens, read as one prompt, and the rows of four
/// positions.
struct ReferenceLogits {
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<std::vector<float>> rows;

  /// Keeps the first `count` tokens and their positions.
  void cut(size_t count) {
    while (!positions.empty() && positions.back() >= static_cast<int32_t>(count)) {
      positions.pop_back();
      rows.pop_back();
    }
    tokens.resize(std::min(tokens.size(), count));
  }
};

/// Reads a file of reference logits: counts of tokens and vocabulary, tokens, then a position and its row four
/// times. Throws std::runtime_error.
inline ReferenceLogits read_reference(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const auto integer = [&] {
    int32_t value = 0;
    in.read(reinterpret_cast<char*>(&value), 4);
    return value;
  };
  ReferenceLogits reference;
  reference.tokens.resize(integer());
  const int32_t vocabulary = integer();
  for (int32_t& token : reference.tokens) token = integer();
  for (int i = 0; i < 4; ++i) {
    reference.positions.push_back(integer());
    std::vector<float>& row = reference.rows.emplace_back(vocabulary);
    in.read(reinterpret_cast<char*>(row.data()), vocabulary * 4);
  }
  if (!in) throw std::runtime_error("cannot read " + path);
  return reference;
}

/// Returns the cosine similarity of two vectors.
inline double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += static_cast<double>(a[i]) * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

}  // namespace fathom::test
