#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom {

/// A page holds the keys and values of this many consecutive tokens, so that a uint64_t represents any subset of
/// them.
inline constexpr int kPageTokens = 64;

/// The storage formats of a page's elements. Two adjacent elements form a pair: dimensions (2i, 2i + 1) of a key,
/// or tokens (2t, 2t + 1) of a value.
///
///   keys    kBF16, kF32: tiles of 16 tokens, pairs [4, key_dim/2, 16]
///           kQ8, kQ4:    words [⌈key_dim/2 / n⌉, 64], then scales, bfloat16 [⌈key_dim/32⌉, 64]
///   values  kBF16, kF32: pairs [32, value_dim]
///           kQ8, kQ4:    words [32/n, value_dim], then scales, bfloat16 [⌈value_dim/32⌉, 64]
///
/// A 32-bit word holds n = 16/bits pairs of quantised values of 8 or 4 bits. The even value of pair j is at bit
/// j·bits, the odd value 16 bits above it, so that a shift and a mask give a pair of 16-bit numbers. An element is
/// (value − (2^bits − 1)/2) · scale; 32 dimensions of one token share a scale.
enum class PageFormat { kBF16, kF32, kQ8, kQ4 };

/// Tokens of a tile of keys. The words of a row of a tile fill one 64-byte vector. A tile is the smallest part of a
/// page's keys that can be read alone.
inline constexpr int kKeyTile = 16;
/// Returns the index of a token's pair of dimensions among the pairs of a page's keys, for the float formats.
constexpr int64_t key_pair_index(int key_dim, int pair, int token) {
  return (static_cast<int64_t>(token / kKeyTile) * (key_dim / 2) + pair) * kKeyTile + token % kKeyTile;
}

/// Dimensions of a token that share a scale.
inline constexpr int kScaleGroup = 32;

/// Returns the bits of a quantised value; 0 for the float formats.
constexpr int quant_bits(PageFormat format) {
  return format == PageFormat::kQ8 ? 8 : format == PageFormat::kQ4 ? 4 : 0;
}
/// Returns the number of scales of one token's key or value.
constexpr int scale_groups(int dim) { return (dim + kScaleGroup - 1) / kScaleGroup; }

/// Returns the bytes from the start of a page's keys (or values) to their scales.
size_t key_scale_offset(PageFormat format, int key_dim);
size_t value_scale_offset(PageFormat format, int value_dim);
/// Returns the bytes of a page's keys and of its values, including scales; multiples of 64.
size_t page_key_bytes(PageFormat format, int key_dim);
size_t page_value_bytes(PageFormat format, int value_dim);

/// Tokens to write into one page, from offset `first` on.
struct PageWrite {
  PageFormat format = PageFormat::kBF16;
  int key_dim = 0;     // even
  int value_dim = 0;   // 0: only keys are written
  int rotary_dim = 0;  // leading dimensions of a key that are rotated
  std::byte* page_keys = nullptr;
  std::byte* page_values = nullptr;
  int first = 0;
  int count = 0;
  const float* keys = nullptr;  // token i at keys + i·key_stride: [key_dim], not rotated; the elements of a rotary
                                // pair are adjacent
  int64_t key_stride = 0;
  const float* values = nullptr;  // token i at values + i·value_stride: [value_dim]
  int64_t value_stride = 0;
  const float* rotations = nullptr;  // [64, 2, rotary_dim/2]: cos, then sin of the rotation by each offset
};

/// Returns dimension d of a token's key or value in a page. Slow; for tests and references.
float page_key(PageFormat format, int key_dim, const std::byte* keys, int token, int d);
float page_value(PageFormat format, int value_dim, const std::byte* values, int token, int d);

/// Reads the key of one token as floats, rotated by its offset as stored. out: [key_dim].
void read_key(PageFormat format, int key_dim, const std::byte* keys, int token, float* out);
/// Reads the keys of a page as floats, rotated by their offsets as stored. out: [tokens ≤ 64, key_dim].
void read_keys(PageFormat format, int key_dim, const std::byte* keys, int tokens, float* out);

/// Returns the scale, a bfloat16, for numbers of magnitude up to `largest`. It is rounded up, so that largest /
/// scale fits `bits`.
uint16_t quant_scale(float largest, int bits);

/// Writes tokens into a page: the reference for Kernels::write_page, which is faster.
void write_page(const PageWrite& write);

}  // namespace fathom
