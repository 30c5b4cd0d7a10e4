#pragma once

#include <cstdint>
#include <span>

namespace fathom::test {

/// Returns a pseudo-random number in [−1, 1), the same in any programming language: the result of integer
/// operations that is exact as a float.
inline double pseudo_random(uint32_t i) {
  i *= 2654435761u;
  i ^= i >> 15;
  i *= 2246822519u;
  i ^= i >> 13;
  i *= 3266489917u;
  i ^= i >> 16;
  return static_cast<double>(i >> 8) / 8388608.0 - 1.0;
}

/// Sets x[token, head, d] to factor · (a number of its own + a number shared by 16 consecutive tokens). x: [tokens,
/// heads, dim].
inline void fill_by_formula(std::span<float> x, uint32_t salt, int heads, int dim, float factor = 1) {
  const uint32_t row = static_cast<uint32_t>(heads * dim), topics = (salt + 7) * 1000003;
  for (uint32_t i = 0; i < x.size(); ++i)
    x[i] = factor * static_cast<float>(pseudo_random(i + salt * 1000003) +
                                       pseudo_random(i / row / 16 * row + i % row + topics));
}

}  // namespace fathom::test
