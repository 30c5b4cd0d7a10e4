#include "kernels/quantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/block_quants.h"
#include "kernels/blocks.h"

namespace fathom {
namespace {

/// Returns the integer of [low, high] that is nearest to x; low for NaN.
int round_to(float x, int low, int high) {
  if (!(x > static_cast<float>(low))) return low;
  if (x >= static_cast<float>(high)) return high;
  return static_cast<int>(std::lrint(x));
}

float inverse(float x) { return x != 0 ? 1 / x : 0; }

/// The levels of quantised values: consecutive integers.
struct IntegerLevels {
  int low, high;
  int nearest(float x) const { return round_to(x, low, high); }
};

/// Returns the index of the level of the IQ4 types that is nearest to x.
int nearest_iq4(float x) {
  int quant = 0;
  for (int i = 1; i < 16; ++i) quant += 2 * x > static_cast<float>(kIq4Values[i - 1] + kIq4Values[i]);
  return quant;
}

struct Iq4Levels {
  int low = kIq4Values[0], high = kIq4Values[15];
  int nearest(float x) const { return kIq4Values[nearest_iq4(x)]; }
};

/// The search for a scale tries scales that put the extreme weight at 0.76 to 1.36 times the outermost level,
/// including exactly 1. Tuned on normal weights: 0.5 to 1.6 in steps of 0.02 takes three times as long and reduces
/// the error by at most 3 % (q5_1), by under 0.5 % for most types.
constexpr int kTrials = 16;
float trial_reach(int trial) { return 0.04f * static_cast<float>(19 + trial); }

/// Returns the scale, of either sign, for which scale · level is nearest to the n weights x in the least-squares
/// sense. Tries scales that put the extreme weight near an outermost level, and computes the best scale for the
/// levels that each gives.
template <class Levels>
float fit_scale(const float* x, int n, const Levels& levels) {
  const float extreme = *std::max_element(x, x + n, [](float a, float b) { return std::abs(a) < std::abs(b); });
  float best_scale = 0, best_gain = 0;  // gain: by how much the scale reduces the squared error Σ x²
  if (extreme == 0) return best_scale;
  for (int outermost : {levels.low, levels.high}) {
    for (int trial = 0; trial < kTrials; ++trial) {
      const float inverse_scale = static_cast<float>(outermost) * trial_reach(trial) / extreme;
      float product = 0, square = 0;
      for (int i = 0; i < n; ++i) {
        const auto level = static_cast<float>(levels.nearest(x[i] * inverse_scale));
        product += x[i] * level;
        square += level * level;
      }
      if (square > 0 && product * product > best_gain * square) {
        best_gain = product * product / square;
        best_scale = product / square;
      }
    }
  }
  return best_scale;
}

/// Weights are approximated by minimum + scale · quant.
struct AffineScale {
  float scale = 0;
  float minimum = 0;
};

/// Returns the scale and minimum for which minimum + scale · quant is nearest to x in the least-squares sense, for
/// given quantised values.
AffineScale fit_affine(const float* x, const float* quants, int n, bool minimum_below_zero) {
  float sum_x = 0, sum_c = 0, sum_cc = 0, sum_xc = 0;
  for (int i = 0; i < n; ++i) {
    sum_x += x[i];
    sum_c += quants[i];
    sum_cc += quants[i] * quants[i];
    sum_xc += x[i] * quants[i];
  }
  const float determinant = n * sum_cc - sum_c * sum_c;
  AffineScale fit{0, sum_x / n};
  if (determinant > 0) {
    fit.scale = (n * sum_xc - sum_x * sum_c) / determinant;
    fit.minimum = (sum_x - fit.scale * sum_c) / n;
  }
  if (minimum_below_zero && fit.minimum > 0) fit = {sum_xc * inverse(sum_cc), 0};
  return fit;
}

/// Returns the scale and minimum whose `high` + 1 levels are nearest to the n ≤ 32 weights x.
AffineScale fit_affine_levels(const float* x, int n, int high, bool minimum_below_zero) {
  const auto [least, most] = std::minmax_element(x, x + n);
  const float start = minimum_below_zero ? std::min(*least, 0.0f) : *least;
  AffineScale best{0, start};
  float best_error = INFINITY;
  std::array<float, kBlock> quants;
  for (int trial = 0; trial < kTrials; ++trial) {
    AffineScale fit{(*most - start) / (high * trial_reach(trial)), start};
    for (int pass = 0; pass < 2; ++pass) {  // the second pass starts from the better fit of the first
      float error = 0;
      const float inverse_scale = inverse(fit.scale);
      for (int i = 0; i < n; ++i) {
        quants[i] = static_cast<float>(round_to((x[i] - fit.minimum) * inverse_scale, 0, high));
        const float difference = x[i] - (fit.minimum + fit.scale * quants[i]);
        error += difference * difference;
      }
      if (error < best_error) {
        best_error = error;
        best = fit;
      }
      fit = fit_affine(x, quants.data(), n, minimum_below_zero);
    }
  }
  return best;
}

void put_five_bits(uint8_t* quants, uint8_t* high_bits, int i, int quant) {
  put_quant(quants, nibble_location(i), quant & 15);
  put_quant(high_bits, bit_location(i), quant >> 4);
}

/// Sets the block's scale for signed levels and returns the factor from weights to levels.
template <class Block>
float set_scale(Block& block, float scale) {
  block.scale = f32_to_f16(scale);
  return inverse(f16_to_f32(block.scale));
}

void compress(const float* x, BlockQ8_0& block) {
  const float to_level = set_scale(block, fit_scale(x, kBlock, IntegerLevels{-128, 127}));
  for (int i = 0; i < kBlock; ++i) block.quants[i] = static_cast<int8_t>(round_to(x[i] * to_level, -128, 127));
}

void compress(const float* x, BlockQ4_0& block) {
  const float to_level = set_scale(block, fit_scale(x, kBlock, IntegerLevels{-8, 7}));
  for (int i = 0; i < kBlock; ++i)
    put_quant(block.quants, nibble_location(i), round_to(x[i] * to_level, -8, 7) + 8);
}

void compress(const float* x, BlockQ5_0& block) {
  const float to_level = set_scale(block, fit_scale(x, kBlock, IntegerLevels{-16, 15}));
  for (int i = 0; i < kBlock; ++i) {
    put_five_bits(block.quants, block.high_bits, i, round_to(x[i] * to_level, -16, 15) + 16);
  }
}

void compress(const float* x, BlockIQ4_NL& block) {
  const float to_level = set_scale(block, fit_scale(x, kBlock, Iq4Levels{}));
  for (int i = 0; i < kBlock; ++i) put_quant(block.quants, nibble_location(i), nearest_iq4(x[i] * to_level));
}

/// Returns the index of the FP4 level that is nearest to x, in units of kFp4Values.
int nearest_fp4(float x) {
  int quant = 0;
  const float magnitude = std::abs(2 * x);
  for (int i = 1; i < 8; ++i) quant += magnitude > static_cast<float>(kFp4Values[i - 1] + kFp4Values[i]);
  return x < 0 && quant > 0 ? quant + 8 : quant;
}

void compress(const float* x, BlockMXFP4& block) {
  float largest = 0;
  for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::abs(x[i]));
  if (!(largest > 0 && std::isfinite(largest))) return;
  // With exponent `first` the largest weight is on the outermost level or beyond it; with the next exponent it is
  // within the levels.
  const int first = std::ilogb(largest / static_cast<float>(kFp4Values[7])) + 128;
  float best_error = INFINITY;
  for (int exponent = std::max(first, 0); exponent <= first + 1; ++exponent) {
    const float scale = mxfp4_scale(static_cast<uint8_t>(exponent));
    float error = 0;
    for (int i = 0; i < kBlock; ++i) {
      const float level = x[i] / scale;
      const float difference = level - static_cast<float>(kFp4Values[nearest_fp4(level)]);
      error += difference * scale * (difference * scale);
    }
    if (error < best_error) {
      best_error = error;
      block.exponent = static_cast<uint8_t>(exponent);
    }
  }
  const float scale = mxfp4_scale(block.exponent);
  for (int i = 0; i < kBlock; ++i) put_quant(block.quants, nibble_location(i), nearest_fp4(x[i] / scale));
}

void compress(const float* x, BlockQ4_1& block) {
  const AffineScale fit = fit_affine_levels(x, kBlock, 15, false);
  const float to_quant = set_scale(block, fit.scale);
  block.minimum = f32_to_f16(fit.minimum);
  const float minimum = f16_to_f32(block.minimum);
  for (int i = 0; i < kBlock; ++i) {
    put_quant(block.quants, nibble_location(i), round_to((x[i] - minimum) * to_quant, 0, 15));
  }
}

void compress(const float* x, BlockQ5_1& block) {
  const AffineScale fit = fit_affine_levels(x, kBlock, 31, false);
  const float to_quant = set_scale(block, fit.scale);
  block.minimum = f32_to_f16(fit.minimum);
  const float minimum = f16_to_f32(block.minimum);
  for (int i = 0; i < kBlock; ++i) {
    put_five_bits(block.quants, block.high_bits, i, round_to((x[i] - minimum) * to_quant, 0, 31));
  }
}

/// Quantises to signed levels, in sub-blocks whose scales are integers: sets block.scale, calls put_scale(s,
/// integer) for every sub-block, and put_level(i, x / scale of its sub-block) for every weight.
template <class Block, class Levels, class PutScale, class PutLevel>
void compress_signed(const float* x, Block& block, int sub_block, Levels levels, IntegerLevels scales,
                     PutScale put_scale, PutLevel put_level) {
  std::array<float, 16> fitted;
  const int count = kSuperBlock / sub_block;
  for (int s = 0; s < count; ++s) fitted[s] = fit_scale(x + s * sub_block, sub_block, levels);
  const float to_integer = set_scale(block, fit_scale(fitted.data(), count, scales));
  for (int s = 0; s < count; ++s) {
    const int integer = scales.nearest(fitted[s] * to_integer);
    put_scale(s, integer);
    const float to_level = inverse(f16_to_f32(block.scale) * static_cast<float>(integer));
    for (int i = s * sub_block; i < (s + 1) * sub_block; ++i) put_level(i, x[i] * to_level);
  }
}

void compress(const float* x, BlockQ3_K& block) {
  compress_signed(
      x, block, 16, IntegerLevels{-4, 3}, IntegerLevels{-32, 31},
      [&](int s, int scale) { put_q3_scale(block.scales, s, scale + 32); },
      [&](int i, float level) {
        const int quant = round_to(level, -4, 3) + 4;
        put_quant(block.quants, two_bit_location(i), quant & 3);
        put_quant(block.high_bits, strided_bit_location(i), quant >> 2);
      });
}

void compress(const float* x, BlockQ6_K& block) {
  compress_signed(
      x, block, 16, IntegerLevels{-32, 31}, IntegerLevels{-128, 127},
      [&](int s, int scale) { block.scales[s] = static_cast<int8_t>(scale); },
      [&](int i, float level) {
        const int quant = round_to(level, -32, 31) + 32;
        put_quant(block.low_bits, nibble_location_128(i), quant & 15);
        put_quant(block.high_bits, two_bit_location(i), quant >> 4);
      });
}

void compress(const float* x, BlockIQ4_XS& block) {
  compress_signed(
      x, block, 32, Iq4Levels{}, IntegerLevels{-32, 31},
      [&](int s, int scale) { put_iq4_scale(block, s, scale + 32); },
      [&](int i, float level) { put_quant(block.quants, nibble_location(i), nearest_iq4(level)); });
}

/// Returns the squared error of n weights approximated by −depth + scale · quant, with quantised values up to
/// `high`.
float affine_error(const float* x, int n, float scale, float depth, int high) {
  const float to_quant = inverse(scale);
  float error = 0;
  for (int i = 0; i < n; ++i) {
    const float difference =
        x[i] + depth - scale * static_cast<float>(round_to((x[i] + depth) * to_quant, 0, high));
    error += difference * difference;
  }
  return error;
}

/// Returns integers up to `limit` for the scale and minimum of a fit, in units of `unit`: among the integers next
/// to the fit, those with the least error for the n weights x.
SubScale round_affine(const float* x, int n, const AffineScale& fit, const AffineScale& unit, int high, int limit) {
  const int scale = round_to(fit.scale * inverse(unit.scale), 0, limit);
  const int depth = round_to(-fit.minimum * inverse(unit.minimum), 0, limit);
  SubScale best{scale, depth};
  float best_error = INFINITY;
  for (int s = std::max(scale - 1, 0); s <= std::min(scale + 1, limit); ++s) {
    for (int d = std::max(depth - 1, 0); d <= std::min(depth + 1, limit); ++d) {
      const float error = affine_error(x, n, unit.scale * s, unit.minimum * d, high);
      if (error < best_error) {
        best_error = error;
        best = {s, d};
      }
    }
  }
  return best;
}

/// Quantises to unsigned values up to `high`, in sub-blocks whose scales and minimums are integers up to `limit`:
/// sets block.scale and block.minimum, calls put_scale(s, SubScale) for every sub-block and put(i, quant) for every
/// weight.
template <class Block, class PutScale, class Put>
void compress_affine(const float* x, Block& block, int sub_block, int high, int limit, PutScale put_scale,
                     Put put) {
  std::array<AffineScale, 16> fits;
  AffineScale largest;
  const int count = kSuperBlock / sub_block;
  for (int s = 0; s < count; ++s) {
    fits[s] = fit_affine_levels(x + s * sub_block, sub_block, high, true);
    largest.scale = std::max(largest.scale, fits[s].scale);
    largest.minimum = std::max(largest.minimum, -fits[s].minimum);
  }
  block.scale = f32_to_f16(largest.scale / limit);
  block.minimum = f32_to_f16(largest.minimum / limit);
  const AffineScale unit{f16_to_f32(block.scale), f16_to_f32(block.minimum)};
  for (int s = 0; s < count; ++s) {
    const SubScale sub = round_affine(x + s * sub_block, sub_block, fits[s], unit, high, limit);
    put_scale(s, sub);
    const float to_quant = inverse(unit.scale * sub.scale), depth = unit.minimum * sub.minimum;
    for (int i = s * sub_block; i < (s + 1) * sub_block; ++i) put(i, round_to((x[i] + depth) * to_quant, 0, high));
  }
}

void compress(const float* x, BlockQ2_K& block) {
  compress_affine(
      x, block, 16, 3, 15,
      [&](int s, SubScale sub) { block.scales[s] = static_cast<uint8_t>(sub.scale | sub.minimum << 4); },
      [&](int i, int quant) { put_quant(block.quants, two_bit_location(i), quant); });
}

void compress(const float* x, BlockQ4_K& block) {
  compress_affine(
      x, block, 32, 15, 63, [&](int s, SubScale sub) { put_sub_scale(block.scales, s, sub); },
      [&](int i, int quant) { put_quant(block.quants, nibble_location_64(i), quant); });
}

void compress(const float* x, BlockQ5_K& block) {
  compress_affine(
      x, block, 32, 31, 63, [&](int s, SubScale sub) { put_sub_scale(block.scales, s, sub); },
      [&](int i, int quant) {
        put_quant(block.quants, nibble_location_64(i), quant & 15);
        put_quant(block.high_bits, strided_bit_location(i), quant >> 4);
      });
}

template <class Block>
void compress_row(const float* src, std::byte* dst, int64_t n, int weights_in_block) {
  for (int64_t i = 0; i < n; i += weights_in_block, dst += sizeof(Block)) {
    Block block{};
    compress(src + i, block);
    std::memcpy(dst, &block, sizeof(Block));
  }
}

template <uint16_t (*kConvert)(float)>
void convert_row(const float* src, std::byte* dst, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t value = kConvert(src[i]);
    std::memcpy(dst + i * sizeof(value), &value, sizeof(value));
  }
}

}  // namespace

void quantize_row(WeightType type, const float* src, std::byte* dst, int64_t n) {
  switch (type) {
    case WeightType::kF32:
      std::memcpy(dst, src, n * sizeof(float));
      return;
    case WeightType::kF16:
      return convert_row<f32_to_f16>(src, dst, n);
    case WeightType::kBF16:
      return convert_row<f32_to_bf16>(src, dst, n);
    case WeightType::kQ8_0:
      return compress_row<BlockQ8_0>(src, dst, n, kBlock);
    case WeightType::kQ4_0:
      return compress_row<BlockQ4_0>(src, dst, n, kBlock);
    case WeightType::kQ4_1:
      return compress_row<BlockQ4_1>(src, dst, n, kBlock);
    case WeightType::kQ5_0:
      return compress_row<BlockQ5_0>(src, dst, n, kBlock);
    case WeightType::kQ5_1:
      return compress_row<BlockQ5_1>(src, dst, n, kBlock);
    case WeightType::kQ2_K:
      return compress_row<BlockQ2_K>(src, dst, n, kSuperBlock);
    case WeightType::kQ3_K:
      return compress_row<BlockQ3_K>(src, dst, n, kSuperBlock);
    case WeightType::kQ4_K:
      return compress_row<BlockQ4_K>(src, dst, n, kSuperBlock);
    case WeightType::kQ5_K:
      return compress_row<BlockQ5_K>(src, dst, n, kSuperBlock);
    case WeightType::kQ6_K:
      return compress_row<BlockQ6_K>(src, dst, n, kSuperBlock);
    case WeightType::kIQ4_NL:
      return compress_row<BlockIQ4_NL>(src, dst, n, kBlock);
    case WeightType::kIQ4_XS:
      return compress_row<BlockIQ4_XS>(src, dst, n, kSuperBlock);
    case WeightType::kMXFP4:
      return compress_row<BlockMXFP4>(src, dst, n, kBlock);
  }
}

}  // namespace fathom
