// Writes keys and values of new tokens into their pages, once per instruction set, with the same bits as
// write_page().
#include "kernels/vector.h"

#include <algorithm>
#include <cstring>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_pages.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/lanes-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// Rounds n floats to bfloat16, to nearest, ties to even; n is a multiple of the lanes.
HWY_INLINE void RoundToBf16(const float* HWY_RESTRICT x, int n, uint32_t* HWY_RESTRICT out) {
  const FloatTag d;
  const WordTag dw;
  for (int i = 0; i < n; i += static_cast<int>(hn::Lanes(d))) {
    const auto value = hn::Load(d, x + i);
    const auto bits = hn::BitCast(dw, value);
    const auto upper = hn::ShiftRight<16>(bits);
    const auto odd = hn::And(upper, hn::Set(dw, 1));
    const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(dw, 0x7fff)), odd));
    const auto nan = hn::RebindMask(dw, hn::IsNaN(value));
    hn::Store(hn::IfThenElse(nan, hn::Or(upper, hn::Set(dw, 0x40)), rounded), dw, out + i);
  }
}

/// Quantises n floats under a common scale and returns that scale; n is a multiple of the lanes.
HWY_INLINE uint16_t RoundToQuants(const float* HWY_RESTRICT x, int n, int bits, uint32_t* HWY_RESTRICT out) {
  const FloatTag d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto max_magnitude = hn::Zero(d);
  for (int i = 0; i < n; i += lanes) max_magnitude = hn::Max(max_magnitude, hn::Abs(hn::Load(d, x + i)));
  const uint16_t scale = quant_scale(hn::GetLane(hn::MaxOfLanes(d, max_magnitude)), bits);
  const uint32_t scale_bits = static_cast<uint32_t>(scale) << 16;
  float scale_value;
  std::memcpy(&scale_value, &scale_bits, 4);
  const auto inverse = hn::Set(d, scale ? 1.0f / scale_value : 0.0f);
  const auto max_quant = static_cast<float>((1 << bits) - 1);
  for (int i = 0; i < n; i += lanes) {
    const auto scaled = hn::Add(hn::Mul(hn::Load(d, x + i), inverse), hn::Set(d, max_quant / 2));
    const auto quant = hn::Min(hn::Max(hn::Round(scaled), hn::Zero(d)), hn::Set(d, max_quant));
    hn::Store(hn::BitCast(WordTag(), hn::ConvertTo(hn::Rebind<int32_t, FloatTag>(), quant)), WordTag(), out + i);
  }
  return scale;
}

/// Rotates up to 32 dimensions of a key from `begin` on. Stores the even ones first (16, padded with zeros), then
/// the odd ones.
HWY_INLINE void RotateGroup(const PageWrite& w, const float* HWY_RESTRICT key, int begin, int token,
                            float* HWY_RESTRICT rotated) {
  const int pairs = std::min(kScaleGroup, w.key_dim - begin) / 2;
  const float* HWY_RESTRICT cos = w.rotations + static_cast<int64_t>(token) * w.rotary_dim + begin / 2;
  const float* HWY_RESTRICT sin = cos + w.rotary_dim / 2;
  const int rotating = std::clamp((w.rotary_dim - begin) / 2, 0, pairs);
  float* HWY_RESTRICT evens = rotated;
  float* HWY_RESTRICT odds = rotated + kScaleGroup / 2;
  for (int i = 0; i < rotating; ++i) {
    const float even = key[begin + 2 * i], odd = key[begin + 2 * i + 1];
    evens[i] = even * cos[i] - odd * sin[i];
    odds[i] = even * sin[i] + odd * cos[i];
  }
  for (int i = rotating; i < pairs; ++i) {
    evens[i] = key[begin + 2 * i];
    odds[i] = key[begin + 2 * i + 1];
  }
  std::fill(evens + pairs, evens + kScaleGroup / 2, 0.0f);
  std::fill(odds + pairs, odds + kScaleGroup / 2, 0.0f);
}

void WriteKey(const PageWrite& w, const float* HWY_RESTRICT key, int token) {
  constexpr int kPairs = kScaleGroup / 2;
  const int bits = quant_bits(w.format);
  const int pairs_per_word = bits ? 16 / bits : 1;
  auto* scales = reinterpret_cast<uint16_t*>(w.page_keys + key_scale_offset(w.format, w.key_dim));
  alignas(64) float rotated[kScaleGroup];
  alignas(64) uint32_t quants[kScaleGroup];
  for (int begin = 0; begin < w.key_dim; begin += kScaleGroup) {
    RotateGroup(w, key, begin, token, rotated);
    const int pairs = std::min(kScaleGroup, w.key_dim - begin) / 2;
    if (w.format == PageFormat::kF32) {
      float* to = reinterpret_cast<float*>(w.page_keys) + key_pair_index(w.key_dim, begin / 2, token) * 2;
      for (int i = 0; i < pairs; ++i) {
        to[i * kKeyTile * 2] = rotated[i];
        to[i * kKeyTile * 2 + 1] = rotated[kPairs + i];
      }
      continue;
    }
    if (bits == 0) {
      RoundToBf16(rotated, kScaleGroup, quants);
    } else {
      scales[begin / kScaleGroup * kPageTokens + token] = RoundToQuants(rotated, kScaleGroup, bits, quants);
    }
    const int64_t at = bits ? static_cast<int64_t>(begin / 2 / pairs_per_word) * kPageTokens + token
                            : key_pair_index(w.key_dim, begin / 2, token);
    const int step = bits ? kPageTokens : kKeyTile;
    uint32_t* to = reinterpret_cast<uint32_t*>(w.page_keys) + at;
    for (int i = 0; i < pairs; i += pairs_per_word, to += step) {
      uint32_t word = 0;
      for (int j = 0; j < pairs_per_word && i + j < pairs; ++j)
        word |= (quants[i + j] | quants[kPairs + i + j] << 16) << (j * bits);
      *to = word;
    }
  }
}

void WriteValue(const PageWrite& w, const float* HWY_RESTRICT value, int token) {
  const int bits = quant_bits(w.format);
  auto* scales = reinterpret_cast<uint16_t*>(w.page_values + value_scale_offset(w.format, w.value_dim));
  alignas(64) float group[kScaleGroup] = {};
  alignas(64) uint32_t quants[kScaleGroup];
  const int pairs_per_word = bits ? 16 / bits : 1;
  const int shift = token / 2 % pairs_per_word * bits + token % 2 * 16;
  const uint32_t keep = ~(((bits ? 1u << bits : 1u << 16) - 1) << shift);
  const int64_t row = static_cast<int64_t>(token / 2 / pairs_per_word) * w.value_dim;
  for (int begin = 0; begin < w.value_dim; begin += kScaleGroup) {
    const int n = std::min(kScaleGroup, w.value_dim - begin);
    if (w.format == PageFormat::kF32) {
      float* to = reinterpret_cast<float*>(w.page_values) + (row + begin) * 2 + token % 2;
      for (int i = 0; i < n; ++i) to[2 * i] = value[begin + i];
      continue;
    }
    std::copy_n(value + begin, n, group);
    std::fill(group + n, group + kScaleGroup, 0.0f);
    if (bits == 0) {
      RoundToBf16(group, kScaleGroup, quants);
    } else {
      scales[begin / kScaleGroup * kPageTokens + token] = RoundToQuants(group, kScaleGroup, bits, quants);
    }
    uint32_t* HWY_RESTRICT to = reinterpret_cast<uint32_t*>(w.page_values) + row + begin;
    for (int i = 0; i < n; ++i) to[i] = (to[i] & keep) | quants[i] << shift;
  }
}

void WritePage(const PageWrite& w) {
  for (int i = 0; i < w.count; ++i) {
    WriteKey(w, w.keys + i * w.key_stride, w.first + i);
    WriteValue(w, w.values + i * w.value_stride, w.first + i);
  }
}

void FillPages(Kernels& table) { table.write_page = WritePage; }

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillPages(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {

HWY_EXPORT(FillPages);
void fill_vector_pages(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillPages)(table); }

}  // namespace fathom
#endif
