#include "kernels/page_copy.h"

namespace fathom {
namespace {

/// Copies the scales of one token, for all groups of its dimensions.
void copy_scales(int dim, const std::byte* from, int from_token, std::byte* to, int to_token) {
  const auto* old = reinterpret_cast<const uint16_t*>(from);
  auto* scales = reinterpret_cast<uint16_t*>(to);
  for (int g = 0; g < scale_groups(dim); ++g)
    scales[g * kPageTokens + to_token] = old[g * kPageTokens + from_token];
}

/// Copies the pairs of a token's key in a float format.
template <class Pair>
void copy_pairs(int key_dim, const std::byte* from, int from_token, std::byte* to, int to_token) {
  const auto* old = reinterpret_cast<const Pair*>(from);
  auto* pairs = reinterpret_cast<Pair*>(to);
  for (int pair = 0; pair < key_dim / 2; ++pair)
    pairs[key_pair_index(key_dim, pair, to_token)] = old[key_pair_index(key_dim, pair, from_token)];
}

/// Copies the words of a token's key in a quantised format, where each token has a column of words.
void copy_words(size_t bytes, const std::byte* from, int from_token, std::byte* to, int to_token) {
  const auto* old = reinterpret_cast<const uint32_t*>(from);
  auto* words = reinterpret_cast<uint32_t*>(to);
  for (size_t row = 0; row < bytes / sizeof(uint32_t); row += kPageTokens)
    words[row + to_token] = old[row + from_token];
}

/// Location of a token's quantised values: its row of words, and the shift within each word.
struct QuantRow {
  int64_t word;
  int shift;
};
QuantRow quant_row(int token, int dim, int bits) {
  const int pairs_per_word = 16 / bits;
  return {static_cast<int64_t>(token / 2 / pairs_per_word) * dim,
          token / 2 % pairs_per_word * bits + token % 2 * 16};
}

}  // namespace

void copy_key(PageFormat format, int key_dim, const std::byte* from, int from_token, std::byte* to, int to_token) {
  if (format == PageFormat::kF32) return copy_pairs<uint64_t>(key_dim, from, from_token, to, to_token);
  if (format == PageFormat::kBF16) return copy_pairs<uint32_t>(key_dim, from, from_token, to, to_token);
  const size_t bytes = key_scale_offset(format, key_dim);
  copy_words(bytes, from, from_token, to, to_token);
  copy_scales(key_dim, from + bytes, from_token, to + bytes, to_token);
}

void copy_value(PageFormat format, int value_dim, const std::byte* from, int from_token, std::byte* to,
                int to_token) {
  if (format == PageFormat::kF32) {
    const auto* old = reinterpret_cast<const float*>(from) + from_token / 2 * value_dim * 2 + from_token % 2;
    auto* numbers = reinterpret_cast<float*>(to) + to_token / 2 * value_dim * 2 + to_token % 2;
    for (int d = 0; d < value_dim; ++d) numbers[2 * d] = old[2 * d];
    return;
  }
  // A bfloat16 is treated as a quantised value of 16 bits.
  const int bits = quant_bits(format) ? quant_bits(format) : 16;
  const QuantRow source = quant_row(from_token, value_dim, bits), target = quant_row(to_token, value_dim, bits);
  const auto* old = reinterpret_cast<const uint32_t*>(from) + source.word;
  auto* words = reinterpret_cast<uint32_t*>(to) + target.word;
  const uint32_t mask = (uint32_t{1} << bits) - 1;
  for (int d = 0; d < value_dim; ++d) {
    const uint32_t quant = old[d] >> source.shift & mask;
    words[d] = (words[d] & ~(mask << target.shift)) | quant << target.shift;
  }
  const size_t scales = value_scale_offset(format, value_dim);
  if (quant_bits(format)) copy_scales(value_dim, from + scales, from_token, to + scales, to_token);
}

}  // namespace fathom
