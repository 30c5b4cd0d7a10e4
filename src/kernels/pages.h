#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom {

/// A page holds the keys and values of this many consecutive tokens, so that any subset of a page is one uint64_t.
inline constexpr int kPageTokens = 64;

/// How the elements of a page are stored. Two elements that lie side by side make a pair: dimensions (2i, 2i + 1)
/// of a key, tokens (2t, 2t + 1) of a value.
///
///   keys    kBF16, kF32: tiles of 16 tokens, pairs [4, key_dim/2, 16]
///           kQ8, kQ4:    words [⌈key_dim/2 / n⌉, 64], then scales, bfloat16 [⌈key_dim/32⌉, 64]
///   values  kBF16, kF32: pairs [32, value_dim]
///           kQ8, kQ4:    words [32/n, value_dim], then scales, bfloat16 [⌈value_dim/32⌉, 64]
///
/// A word of 32 bits holds n = 16/bits pairs of quants (of 8 or 4 bits): of pair j the even one at bit j·bits, the
/// odd one 16 bits above, so that a shift and a mask make a pair of 16-bit numbers of it. An element is (quant −
/// (2^bits − 1)/2) · scale; 32 dimensions of one token share a scale.
enum class PageFormat { kBF16, kF32, kQ8, kQ4 };

/// Tokens of a tile of keys: a vector of words, and what can be read of a page without reading more.
inline constexpr int kKeyTile = 16;
/// Where a pair of a token's dimensions lies among the pairs of a page's keys; of floats, not of quants.
constexpr int64_t key_pair_index(int key_dim, int pair, int token) {
  return (static_cast<int64_t>(token / kKeyTile) * (key_dim / 2) + pair) * kKeyTile + token % kKeyTile;
}

/// Dimensions of a token that share a scale.
inline constexpr int kScaleGroup = 32;

/// Bits of a quant; 0 where elements are floats.
constexpr int quant_bits(PageFormat format) {
  return format == PageFormat::kQ8 ? 8 : format == PageFormat::kQ4 ? 4 : 0;
}
constexpr int scale_groups(int dim) { return (dim + kScaleGroup - 1) / kScaleGroup; }

/// Bytes from the start of a page's keys (or values) to their scales.
size_t key_scale_offset(PageFormat format, int key_dim);
size_t value_scale_offset(PageFormat format, int value_dim);
/// Bytes of a page's keys and of its values, scales included; multiples of 64.
size_t page_key_bytes(PageFormat format, int key_dim);
size_t page_value_bytes(PageFormat format, int value_dim);

/// Tokens to be written into one page, from offset `first` on.
struct PageWrite {
  PageFormat format = PageFormat::kBF16;
  int key_dim = 0;     // even
  int value_dim = 0;   // 0: keys alone are written
  int rotary_dim = 0;  // first dimensions of a key that rotate
  std::byte* page_keys = nullptr;
  std::byte* page_values = nullptr;
  int first = 0;
  int count = 0;
  const float* keys = nullptr;  // token i at keys + i·key_stride: [key_dim], unrotated, rotary pairs side by side
  int64_t key_stride = 0;
  const float* values = nullptr;  // token i at values + i·value_stride: [value_dim]
  int64_t value_stride = 0;
  const float* rotations = nullptr;  // [64, 2, rotary_dim/2]: cos, then sin of the rotation by each offset
};

/// The element of a page's keys: dimension d of a token; and of its values. Plain and slow.
float page_key(PageFormat format, int key_dim, const std::byte* keys, int token, int d);
float page_value(PageFormat format, int value_dim, const std::byte* values, int token, int d);

/// The key of one token as floats, rotated by its offset as it lies. out: [key_dim].
void read_key(PageFormat format, int key_dim, const std::byte* keys, int token, float* out);
/// The keys of a page as floats, rotated by their offsets as they lie. out: [tokens ≤ 64, key_dim].
void read_keys(PageFormat format, int key_dim, const std::byte* keys, int tokens, float* out);

/// The scale of numbers that are at most `largest`, such that (largest / scale) fits `bits`: a bfloat16, rounded
/// up.
uint16_t quant_scale(float largest, int bits);

/// Writes tokens in the plain way; Kernels::write_page is the fast one.
void write_page(const PageWrite& write);

}  // namespace fathom
