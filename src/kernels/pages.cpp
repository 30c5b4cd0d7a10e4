// The layout of pages, and the reference functions that read and write them.
#include "kernels/pages.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/quantize.h"

namespace fathom {
namespace {

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
int words_for(int pairs, int bits) { return (pairs * bits + 15) / 16; }

/// Location of a pair of quantised values: the index of its word, and the bit of its even value.
struct QuantPairLocation {
  size_t word;
  int shift;
};
QuantPairLocation quant_pair_location(int pair, int column, int width, int bits) {
  const int pairs_per_word = 16 / bits;
  return {static_cast<size_t>(pair / pairs_per_word) * width + column, pair % pairs_per_word * bits};
}

/// Location of an element: its pair in a float format; its row and column of words in a quantised format.
struct ElementLocation {
  int64_t float_pair;
  int pair, column, width;  // in a quantised format
  int parity;
};
ElementLocation key_element(int key_dim, int token, int d) {
  return {key_pair_index(key_dim, d / 2, token), d / 2, token, kPageTokens, d % 2};
}
ElementLocation value_element(int value_dim, int token, int d) {
  return {static_cast<int64_t>(token / 2) * value_dim + d, token / 2, d, value_dim, token % 2};
}

float element(PageFormat format, const std::byte* data, size_t scale_offset, const ElementLocation& e,
              size_t scale_index) {
  const int64_t index = e.float_pair * 2 + e.parity;
  if (format == PageFormat::kBF16) return bf16_to_f32(reinterpret_cast<const uint16_t*>(data)[index]);
  if (format == PageFormat::kF32) return reinterpret_cast<const float*>(data)[index];
  const int bits = quant_bits(format), quants = 1 << bits;
  const QuantPairLocation at = quant_pair_location(e.pair, e.column, e.width, bits);
  const uint32_t word = reinterpret_cast<const uint32_t*>(data)[at.word];
  const auto quant = static_cast<float>(word >> (at.shift + 16 * e.parity) & (quants - 1));
  const float scale = bf16_to_f32(reinterpret_cast<const uint16_t*>(data + scale_offset)[scale_index]);
  return (quant - static_cast<float>(quants - 1) / 2) * scale;
}

void put(PageFormat format, std::byte* data, const ElementLocation& e, float value, float inverse_scale) {
  const int64_t index = e.float_pair * 2 + e.parity;
  if (format == PageFormat::kBF16) {
    reinterpret_cast<uint16_t*>(data)[index] = f32_to_bf16(value);
  } else if (format == PageFormat::kF32) {
    reinterpret_cast<float*>(data)[index] = value;
  } else {
    const int bits = quant_bits(format);
    const auto largest = static_cast<float>((1 << bits) - 1);
    const float scaled = std::nearbyint(value * inverse_scale + largest / 2);
    const uint32_t quant = scaled > 0 ? static_cast<uint32_t>(std::min(scaled, largest)) : 0;  // NaN: 0
    const QuantPairLocation at = quant_pair_location(e.pair, e.column, e.width, bits);
    const int shift = at.shift + 16 * e.parity;
    uint32_t& word = reinterpret_cast<uint32_t*>(data)[at.word];
    word = (word & ~(((1u << bits) - 1) << shift)) | quant << shift;
  }
}

/// Writes the scale of one group of a token's dimensions and returns its inverse; 0 for the float formats.
float put_scale(PageFormat format, std::byte* scales, int group, int token, const float* x, int n) {
  const int bits = quant_bits(format);
  if (bits == 0) return 0;
  float largest = 0;
  for (int d = 0; d < n; ++d) largest = std::max(largest, std::fabs(x[d]));
  const uint16_t scale = quant_scale(largest, bits);
  reinterpret_cast<uint16_t*>(scales)[group * kPageTokens + token] = scale;
  return scale ? 1.0f / bf16_to_f32(scale) : 0;
}

void write_key(const PageWrite& w, const float* key, int token) {
  const float* cos = w.rotations + static_cast<int64_t>(token) * w.rotary_dim;
  const float* sin = cos + w.rotary_dim / 2;
  std::byte* scales = w.page_keys + key_scale_offset(w.format, w.key_dim);
  for (int begin = 0; begin < w.key_dim; begin += kScaleGroup) {
    float rotated[kScaleGroup];
    const int n = std::min(kScaleGroup, w.key_dim - begin);
    for (int d = 0; d < n; d += 2) {
      const float even = key[begin + d], odd = key[begin + d + 1];
      const bool rotates = begin + d < w.rotary_dim;
      const float c = rotates ? cos[(begin + d) / 2] : 1, s = rotates ? sin[(begin + d) / 2] : 0;
      rotated[d] = even * c - odd * s;
      rotated[d + 1] = even * s + odd * c;
    }
    const float inverse = put_scale(w.format, scales, begin / kScaleGroup, token, rotated, n);
    for (int d = 0; d < n; ++d)
      put(w.format, w.page_keys, key_element(w.key_dim, token, begin + d), rotated[d], inverse);
  }
}

void write_value(const PageWrite& w, const float* value, int token) {
  std::byte* scales = w.page_values + value_scale_offset(w.format, w.value_dim);
  for (int begin = 0; begin < w.value_dim; begin += kScaleGroup) {
    const int n = std::min(kScaleGroup, w.value_dim - begin);
    const float inverse = put_scale(w.format, scales, begin / kScaleGroup, token, value + begin, n);
    for (int d = begin; d < begin + n; ++d)
      put(w.format, w.page_values, value_element(w.value_dim, token, d), value[d], inverse);
  }
}

}  // namespace

size_t key_scale_offset(PageFormat format, int key_dim) {
  const int bits = quant_bits(format);
  if (bits == 0) return static_cast<size_t>(key_dim) * kPageTokens * (format == PageFormat::kBF16 ? 2 : 4);
  return static_cast<size_t>(words_for(key_dim / 2, bits)) * kPageTokens * 4;
}
size_t value_scale_offset(PageFormat format, int value_dim) {
  const int bits = quant_bits(format);
  if (bits == 0) return static_cast<size_t>(value_dim) * kPageTokens * (format == PageFormat::kBF16 ? 2 : 4);
  return static_cast<size_t>(words_for(kPageTokens / 2, bits)) * value_dim * 4;
}
size_t page_key_bytes(PageFormat format, int key_dim) {
  const size_t scales = quant_bits(format) ? static_cast<size_t>(scale_groups(key_dim)) * kPageTokens * 2 : 0;
  return round_up(key_scale_offset(format, key_dim) + scales, 64);
}
size_t page_value_bytes(PageFormat format, int value_dim) {
  const size_t scales = quant_bits(format) ? static_cast<size_t>(scale_groups(value_dim)) * kPageTokens * 2 : 0;
  return round_up(value_scale_offset(format, value_dim) + scales, 64);
}

float page_key(PageFormat format, int key_dim, const std::byte* keys, int token, int d) {
  return element(format, keys, key_scale_offset(format, key_dim), key_element(key_dim, token, d),
                 static_cast<size_t>(d / kScaleGroup) * kPageTokens + token);
}
float page_value(PageFormat format, int value_dim, const std::byte* values, int token, int d) {
  return element(format, values, value_scale_offset(format, value_dim), value_element(value_dim, token, d),
                 static_cast<size_t>(d / kScaleGroup) * kPageTokens + token);
}

void read_key(PageFormat format, int key_dim, const std::byte* keys, int token, float* out) {
  if (format == PageFormat::kBF16 || format == PageFormat::kF32) {
    for (int d = 0; d < key_dim; ++d) {
      const int64_t at = key_pair_index(key_dim, d / 2, token) * 2 + d % 2;
      out[d] = format == PageFormat::kF32 ? reinterpret_cast<const float*>(keys)[at]
                                          : bf16_to_f32(reinterpret_cast<const uint16_t*>(keys)[at]);
    }
    return;
  }
  for (int d = 0; d < key_dim; ++d) out[d] = page_key(format, key_dim, keys, token, d);
}

void read_keys(PageFormat format, int key_dim, const std::byte* keys, int tokens, float* out) {
  const auto transpose = [&](const auto& get) {
    for (int t = 0; t < tokens; ++t) {
      for (int pair = 0; pair < key_dim / 2; ++pair) {
        const int64_t at = key_pair_index(key_dim, pair, t) * 2;
        out[static_cast<int64_t>(t) * key_dim + 2 * pair] = get(at);
        out[static_cast<int64_t>(t) * key_dim + 2 * pair + 1] = get(at + 1);
      }
    }
  };
  if (format == PageFormat::kBF16) {
    const auto* numbers = reinterpret_cast<const uint16_t*>(keys);
    return transpose([&](size_t at) { return bf16_to_f32(numbers[at]); });
  }
  if (format == PageFormat::kF32) {
    const auto* numbers = reinterpret_cast<const float*>(keys);
    return transpose([&](size_t at) { return numbers[at]; });
  }
  for (int t = 0; t < tokens; ++t) {
    for (int d = 0; d < key_dim; ++d) {
      out[static_cast<int64_t>(t) * key_dim + d] = page_key(format, key_dim, keys, t, d);
    }
  }
}

uint16_t quant_scale(float largest, int bits) {
  constexpr float kTiny = 1e-30f;  // smaller numbers count as 0, so that the inverse of a scale stays finite
  if (!(largest > kTiny)) return 0;
  const uint32_t scale = std::bit_cast<uint32_t>(largest / (static_cast<float>((1 << bits) - 1) / 2));
  return static_cast<uint16_t>((scale + 0xffff) >> 16);
}

void write_page(const PageWrite& write) {
  for (int i = 0; i < write.count; ++i) {
    write_key(write, write.keys + i * write.key_stride, write.first + i);
    write_value(write, write.values + i * write.value_stride, write.first + i);
  }
}

}  // namespace fathom
