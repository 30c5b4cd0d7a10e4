#include "kernels/quantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/blocks.h"
#include "seed.h"
#include "shared_data.h"

namespace fathom {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr WeightType kTypes[] = {
    WeightType::kF32,  WeightType::kF16,    WeightType::kBF16,   WeightType::kQ8_0,
    WeightType::kQ4_0, WeightType::kQ4_1,   WeightType::kQ5_0,   WeightType::kQ5_1,
    WeightType::kQ2_K, WeightType::kQ3_K,   WeightType::kQ4_K,   WeightType::kQ5_K,
    WeightType::kQ6_K, WeightType::kIQ4_NL, WeightType::kIQ4_XS, WeightType::kMXFP4,
};

std::vector<std::byte> quantized(WeightType type, const std::vector<float>& row) {
  std::vector<std::byte> bytes(row_bytes(type, row.size()));
  quantize_row(type, row.data(), bytes.data(), static_cast<int64_t>(row.size()));
  return bytes;
}

std::vector<float> round_trip(WeightType type, const std::vector<float>& row) {
  std::vector<float> back(row.size());
  dequantize_row(type, quantized(type, row).data(), back.data(), static_cast<int64_t>(row.size()));
  return back;
}

/// Returns |a − b| / |a| over whole rows.
double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0, square = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    square += double{a[i]} * a[i];
  }
  return std::sqrt(error / square);
}

std::vector<float> normal_row(size_t n, float deviation, uint32_t seed) {
  std::mt19937 random(test::seed(seed));
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> row(n);
  for (float& x : row) x = normal(random);
  return row;
}

double normal_error(WeightType type) {
  constexpr uint32_t kSeed = 7;
  const std::vector<float> row = normal_row(256 * 256, 0.02f, kSeed);
  return relative_error(row, round_trip(type, row));
}

template <class Block>
std::vector<float> expanded(WeightType type, const Block& block) {
  static_assert(std::is_trivially_copyable_v<Block>);
  std::vector<float> w(info(type).block);
  dequantize_row(type, reinterpret_cast<const std::byte*>(&block), w.data(), static_cast<int64_t>(w.size()));
  return w;
}

constexpr uint16_t kHalf = 0x3800;      // 0.5
constexpr uint16_t kOne = 0x3c00;       // 1
constexpr uint16_t kMinusTwo = 0xc000;  // −2

TEST(Half, EveryHalfHasItsIeeeValue) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = static_cast<int>(bits >> 10 & 31), mantissa = static_cast<int>(bits & 1023);
    const double sign = bits & 0x8000 ? -1 : 1;
    const float value = f16_to_f32(static_cast<uint16_t>(bits));
    if (exponent == 31 && mantissa) {
      EXPECT_TRUE(std::isnan(value)) << bits;
    } else if (exponent == 31) {
      EXPECT_EQ(value, sign * kInfinity) << bits;
    } else if (exponent == 0) {
      EXPECT_EQ(value, sign * std::ldexp(mantissa, -24)) << bits;
    } else {
      EXPECT_EQ(value, sign * std::ldexp(1024 + mantissa, exponent - 25)) << bits;
    }
    EXPECT_EQ(std::signbit(value), sign < 0) << bits;
  }
}

TEST(Half, EveryHalfSurvivesTheRoundTripThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = f16_to_f32(static_cast<uint16_t>(bits));
    const uint16_t back = f32_to_f16(value);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(back))) << bits;
    } else {
      EXPECT_EQ(back, bits);
    }
  }
}

TEST(Half, RoundsToNearestAndTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {  // every finite half and its upper neighbour
    const float low = f16_to_f32(static_cast<uint16_t>(bits)), high = f16_to_f32(static_cast<uint16_t>(bits + 1));
    const float middle = (low + high) / 2;
    EXPECT_EQ(f32_to_f16(middle), bits + bits % 2) << bits;
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), bits) << bits;
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, kInfinity)), bits + 1) << bits;
    EXPECT_EQ(f32_to_f16(-middle), (bits + bits % 2) | 0x8000) << bits;
  }
}

TEST(Half, OverflowsToInfinityFromHalfwayBeyondTheLargest) {
  EXPECT_EQ(f32_to_f16(65504.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-3e38f), 0xfc00);
  EXPECT_EQ(f32_to_f16(kInfinity), 0x7c00);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Bfloat, RoundsToNearestAndTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7f80; ++bits) {
    const uint32_t word = bits << 16;
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(word)), bits);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(word + 0x7fff)), bits);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(word + 0x8000)), bits + bits % 2);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(word + 0x8001)), bits + 1);
    EXPECT_EQ(f32_to_bf16(-std::bit_cast<float>(word + 0x8001)), (bits + 1) | 0x8000);
  }
}

TEST(Bfloat, NanStaysNanForEveryPayload) {
  for (uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0xffffffffu, 0x7fc00000u}) {
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(bits))))) << bits;
  }
}

TEST(HandMadeBlock, Q8_0) {
  BlockQ8_0 block{kHalf, {}};
  block.quants[0] = -128;
  block.quants[31] = 127;
  const std::vector<float> w = expanded(WeightType::kQ8_0, block);
  EXPECT_EQ(w[0], -64);
  EXPECT_EQ(w[1], 0);
  EXPECT_EQ(w[31], 63.5);
}

TEST(HandMadeBlock, Q4_0) {
  BlockQ4_0 block{kHalf, {}};
  block.quants[3] = 0x2f;
  const std::vector<float> w = expanded(WeightType::kQ4_0, block);
  EXPECT_EQ(w[0], -4);   // 0.5 · (0 − 8)
  EXPECT_EQ(w[3], 3.5);  // 0.5 · (15 − 8)
  EXPECT_EQ(w[19], -3);  // 0.5 · (2 − 8)
}

TEST(HandMadeBlock, Q4_1) {
  BlockQ4_1 block{kHalf, kMinusTwo, {}};
  block.quants[3] = 0x2f;
  const std::vector<float> w = expanded(WeightType::kQ4_1, block);
  EXPECT_EQ(w[0], -2);
  EXPECT_EQ(w[3], 5.5);  // 0.5 · 15 − 2
  EXPECT_EQ(w[19], -1);  // 0.5 · 2 − 2
}

TEST(HandMadeBlock, Q5_0) {
  BlockQ5_0 block{kHalf, {0x08, 0, 0x08, 0x80}, {}};  // the fifth bits of w[3], w[19], w[31]
  block.quants[3] = 0x2f;
  const std::vector<float> w = expanded(WeightType::kQ5_0, block);
  EXPECT_EQ(w[0], -8);   // 0.5 · (0 − 16)
  EXPECT_EQ(w[3], 7.5);  // 0.5 · (31 − 16)
  EXPECT_EQ(w[19], 1);   // 0.5 · (18 − 16)
  EXPECT_EQ(w[31], 0);   // 0.5 · (16 − 16)
}

TEST(HandMadeBlock, Q5_1) {
  BlockQ5_1 block{kHalf, kMinusTwo, {0x08, 0, 0, 0x80}, {}};  // the fifth bits of w[3], w[31]
  block.quants[3] = 0x2f;
  const std::vector<float> w = expanded(WeightType::kQ5_1, block);
  EXPECT_EQ(w[0], -2);
  EXPECT_EQ(w[3], 13.5);  // 0.5 · 31 − 2
  EXPECT_EQ(w[19], -1);   // 0.5 · 2 − 2
  EXPECT_EQ(w[31], 6);    // 0.5 · 16 − 2
}

TEST(HandMadeBlock, Q2_K) {
  BlockQ2_K block{};
  block.scale = kHalf;
  block.minimum = kOne;
  block.scales[0] = 0x23;   // weights 0…15: scale 3, minimum 2
  block.scales[2] = 0x14;   // weights 32…47: scale 4, minimum 1
  block.scales[15] = 0xff;  // weights 240…255: scale 15, minimum 15
  block.quants[5] = 0x0b;   // w[5]: 3, w[37]: 2
  block.quants[63] = 0x80;  // w[255]: 2
  const std::vector<float> w = expanded(WeightType::kQ2_K, block);
  EXPECT_EQ(w[0], -2);     // 0.5 · 3 · 0 − 1 · 2
  EXPECT_EQ(w[5], 2.5);    // 0.5 · 3 · 3 − 1 · 2
  EXPECT_EQ(w[37], 3);     // 0.5 · 4 · 2 − 1 · 1
  EXPECT_EQ(w[69], 0);     // scale and minimum 0
  EXPECT_EQ(w[240], -15);  // 0.5 · 15 · 0 − 15
  EXPECT_EQ(w[255], 0);    // 0.5 · 15 · 2 − 15
}

TEST(HandMadeBlock, Q3_K) {
  BlockQ3_K block{};
  block.scale = kHalf;
  block.scales[0] = 0x21;     // low bits: 1 of sub-block 0, 2 of sub-block 8
  block.scales[8] = 0x13;     // high bits: 3 of sub-block 0, 0 of 4, 1 of 8
  block.quants[2] = 0x03;     // w[2]: low bits 3
  block.high_bits[2] = 0x11;  // w[2] and w[130]: high bit
  const std::vector<float> w = expanded(WeightType::kQ3_K, block);
  EXPECT_EQ(w[0], -34);   // 0.5 · (49 − 32) · (0 − 4)
  EXPECT_EQ(w[2], 25.5);  // 0.5 · (49 − 32) · (7 − 4)
  EXPECT_EQ(w[16], 64);   // 0.5 · (0 − 32) · (0 − 4)
  EXPECT_EQ(w[130], 0);   // high bit alone: 4 − 4
  EXPECT_EQ(w[128], 28);  // 0.5 · (18 − 32) · (0 − 4)
  EXPECT_EQ(w[255], 64);
}

TEST(HandMadeBlock, Q4_K) {
  BlockQ4_K block{};
  block.scale = kHalf;
  block.minimum = kOne;
  block.scales[0] = 0x80 | 5;   // scale of sub-block 0: 5; high bits of the scale of sub-block 4: 2
  block.scales[4] = 0x40 | 3;   // minimum of sub-block 0: 3; high bits of the minimum of sub-block 4: 1
  block.scales[8] = 0x21;       // low bits of sub-block 4: scale 1, minimum 2
  block.quants[7] = 0xa6;       // w[7]: 6, w[39]: 10
  block.quants[64 + 7] = 0x0f;  // w[135]: 15, of sub-block 4
  const std::vector<float> w = expanded(WeightType::kQ4_K, block);
  EXPECT_EQ(w[0], -3);
  EXPECT_EQ(w[7], 12);       // 0.5 · 5 · 6 − 3
  EXPECT_EQ(w[39], 0);       // scale and minimum 0
  EXPECT_EQ(w[128], -18);    // minimum 16 + 2
  EXPECT_EQ(w[135], 229.5);  // 0.5 · 33 · 15 − 18
}

TEST(HandMadeBlock, Q5_K) {
  BlockQ5_K block{};
  block.scale = kHalf;
  block.minimum = kOne;
  block.scales[1] = 4;        // scale of sub-block 1
  block.scales[5] = 2;        // minimum of sub-block 1
  block.scales[11] = 0x72;    // low bits of sub-block 7: scale 2, minimum 7
  block.quants[7] = 0xa6;     // w[7]: 6, w[39]: 10
  block.high_bits[7] = 0x82;  // the fifth bits of w[39] and w[231]
  const std::vector<float> w = expanded(WeightType::kQ5_K, block);
  EXPECT_EQ(w[7], 0);
  EXPECT_EQ(w[32], -2);
  EXPECT_EQ(w[39], 50);  // 0.5 · 4 · 26 − 2
  EXPECT_EQ(w[224], -7);
  EXPECT_EQ(w[231], 9);  // 0.5 · 2 · 16 − 7
}

TEST(HandMadeBlock, Q6_K) {
  BlockQ6_K block{};
  block.scale = kHalf;
  block.scales[0] = 2;        // weights 0…15
  block.scales[2] = -3;       // weights 32…47
  block.scales[4] = 1;        // weights 64…79
  block.scales[15] = -128;    // weights 240…255
  block.low_bits[4] = 0x5f;   // low bits of w[4]: 15, of w[68]: 5
  block.low_bits[36] = 0x01;  // low bits of w[36]: 1
  block.high_bits[4] = 0x0b;  // high bits of w[4]: 3, of w[36]: 2
  const std::vector<float> w = expanded(WeightType::kQ6_K, block);
  EXPECT_EQ(w[0], -32);     // 0.5 · 2 · (0 − 32)
  EXPECT_EQ(w[4], 31);      // 0.5 · 2 · (63 − 32)
  EXPECT_EQ(w[36], -1.5);   // 0.5 · −3 · (33 − 32)
  EXPECT_EQ(w[68], -13.5);  // 0.5 · 1 · (5 − 32)
  EXPECT_EQ(w[255], 2048);  // 0.5 · −128 · (0 − 32)
}

TEST(HandMadeBlock, IQ4_NL) {
  BlockIQ4_NL block{kHalf, {}};
  block.quants[3] = 0x8f;
  const std::vector<float> w = expanded(WeightType::kIQ4_NL, block);
  EXPECT_EQ(w[0], -63.5);  // 0.5 · −127
  EXPECT_EQ(w[3], 56.5);   // 0.5 · 113
  EXPECT_EQ(w[19], 0.5);   // 0.5 · 1
}

TEST(HandMadeBlock, IQ4_XS) {
  BlockIQ4_XS block{};
  block.scale = kHalf;
  block.scales_high = 0x8002;   // high bits: 2 of sub-block 0, 2 of sub-block 7
  block.scales_low[0] = 0x52;   // low bits: 2 of sub-block 0, 5 of sub-block 1
  block.quants[3] = 0x8f;       // w[3]: 113, w[19]: 1
  block.quants[16 + 1] = 0x80;  // w[33]: −127, w[49]: 1
  const std::vector<float> w = expanded(WeightType::kIQ4_XS, block);
  EXPECT_EQ(w[3], 113);  // 0.5 · (34 − 32) · 113
  EXPECT_EQ(w[19], 1);
  EXPECT_EQ(w[33], 1714.5);  // 0.5 · (5 − 32) · −127
  EXPECT_EQ(w[49], -13.5);   // 0.5 · (5 − 32) · 1
  EXPECT_EQ(w[255], 0);      // sub-block 7 has scale 32 − 32
}

TEST(HandMadeBlock, MXFP4) {
  BlockMXFP4 block{126, {}};
  block.quants[3] = 0xf7;
  block.quants[5] = 0x81;
  const std::vector<float> w = expanded(WeightType::kMXFP4, block);
  EXPECT_EQ(w[0], 0);
  EXPECT_EQ(w[3], 3);     // 2⁻¹ · 6
  EXPECT_EQ(w[19], -3);   // 2⁻¹ · −6
  EXPECT_EQ(w[5], 0.25);  // 2⁻¹ · 0.5
  EXPECT_EQ(w[21], 0);    // the second zero
}

TEST(HandMadeBlock, MXFP4HasSubnormalAndLargeScales) {
  for (const int exponent : {0, 1, 2, 127, 252}) {
    BlockMXFP4 block{static_cast<uint8_t>(exponent), {}};
    block.quants[0] = 0x02;
    EXPECT_EQ(expanded(WeightType::kMXFP4, block)[0], std::ldexp(1.0f, exponent - 127)) << exponent;
  }
}

TEST(Quantize, ErrorOnNormalWeightsStaysWithinTheBoundOfItsType) {
  // Measured with a deviation of 0.02, rounded up by 2 to 6 %.
  const std::pair<WeightType, double> kBounds[] = {
      {WeightType::kF32, 0},        {WeightType::kF16, 0.00022},   {WeightType::kBF16, 0.0017},
      {WeightType::kQ8_0, 0.0051},  {WeightType::kQ6_K, 0.0173},   {WeightType::kQ5_K, 0.036},
      {WeightType::kQ5_1, 0.0361},  {WeightType::kQ5_0, 0.0412},   {WeightType::kQ4_K, 0.0721},
      {WeightType::kQ4_1, 0.0725},  {WeightType::kIQ4_NL, 0.0752}, {WeightType::kIQ4_XS, 0.0758},
      {WeightType::kQ4_0, 0.083},   {WeightType::kQ3_K, 0.1472},   {WeightType::kQ2_K, 0.269},
      {WeightType::kMXFP4, 0.1152},
  };
  for (const auto& [type, bound] : kBounds) EXPECT_LE(normal_error(type), bound) << info(type).name;
}

TEST(Quantize, MoreBitsOfOneFamilyMeanLessError) {
  const std::vector<WeightType> kFamilies[] = {
      {WeightType::kQ2_K, WeightType::kQ3_K, WeightType::kQ4_K, WeightType::kQ5_K, WeightType::kQ6_K,
       WeightType::kQ8_0, WeightType::kBF16, WeightType::kF16, WeightType::kF32},
      {WeightType::kQ4_0, WeightType::kQ5_0, WeightType::kQ8_0},
      {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_1},
      {WeightType::kIQ4_XS, WeightType::kIQ4_NL, WeightType::kQ5_0},
  };
  for (const auto& family : kFamilies) {
    for (size_t i = 1; i < family.size(); ++i) {
      EXPECT_LT(normal_error(family[i]), normal_error(family[i - 1])) << info(family[i]).name;
    }
  }
}

TEST(Quantize, RelativeErrorDoesNotDependOnTheMagnitude) {
  constexpr uint32_t kSeed = 11;
  for (WeightType type : kTypes) {
    const double reference = normal_error(type);
    for (float deviation : {1e-2f, 1.0f, 100.0f}) {
      const std::vector<float> row = normal_row(256 * 64, deviation, kSeed);
      EXPECT_LE(relative_error(row, round_trip(type, row)), 1.1 * reference + 1e-9)
          << info(type).name << " " << deviation;
    }
  }
}

TEST(Quantize, ZerosStayZeros) {
  const std::vector<float> row(512, 0.0f);
  for (WeightType type : kTypes) EXPECT_EQ(round_trip(type, row), row) << info(type).name;
}

TEST(Quantize, ConstantRowsKeepTheirValueWithinTwoPercent) {
  for (WeightType type : kTypes) {
    if (type == WeightType::kMXFP4) continue;  // its scales are powers of two
    for (float value : {0.03f, -0.03f, 5.0f, -5.0f}) {
      const std::vector<float> row(256, value);
      EXPECT_LT(relative_error(row, round_trip(type, row)), 0.02) << info(type).name << " " << value;
    }
  }
}

TEST(Quantize, WeightsOnTheGridOfASimpleBlockAreExact) {
  std::vector<float> symmetric4(32), symmetric5(32), line4(32), line5(32), codebook(32), fp4(32), bytes(32);
  for (int i = 0; i < 32; ++i) {
    symmetric4[i] = 0.5f * static_cast<float>(i % 16 - 8);
    symmetric5[i] = 0.25f * static_cast<float>(i - 16);
    line4[i] = 3 + 0.5f * static_cast<float>(i % 16);
    line5[i] = -7 + 0.25f * static_cast<float>(i);
    codebook[i] = 0.125f * static_cast<float>(kIq4Values[i % 16]);
    fp4[i] = 0.125f * static_cast<float>(kFp4Values[i % 16]);
    bytes[i] = 0.5f * static_cast<float>(i == 0 ? -128 : 4 * i - 1);
  }
  EXPECT_EQ(round_trip(WeightType::kQ4_0, symmetric4), symmetric4);
  EXPECT_EQ(round_trip(WeightType::kQ5_0, symmetric5), symmetric5);
  EXPECT_EQ(round_trip(WeightType::kQ4_1, line4), line4);
  EXPECT_EQ(round_trip(WeightType::kQ5_1, line5), line5);
  EXPECT_EQ(round_trip(WeightType::kIQ4_NL, codebook), codebook);
  EXPECT_EQ(round_trip(WeightType::kMXFP4, fp4), fp4);
  EXPECT_EQ(round_trip(WeightType::kQ8_0, bytes), bytes);
}

TEST(Quantize, OneOutlierAffectsOnlyItsOwnBlock) {
  constexpr uint32_t kSeed = 3;
  std::vector<float> row = normal_row(1024, 0.02f, kSeed);
  for (WeightType type : kTypes) {
    std::vector<std::byte> before = quantized(type, row);
    for (float outlier : {1000.0f, kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<float> changed = row;
      changed[300] = outlier;
      std::vector<std::byte> after = quantized(type, changed);
      const size_t first = 300 / info(type).block * info(type).bytes, last = first + info(type).bytes;
      EXPECT_TRUE(std::equal(before.begin(), before.begin() + first, after.begin())) << info(type).name;
      EXPECT_TRUE(std::equal(before.begin() + last, before.end(), after.begin() + last)) << info(type).name;
    }
  }
}

/// Expects dequantised rows to equal a file in shared/golden/weight-types: type, rows, cols, the blocks, and the
/// weights as floats.
void expect_golden_rows(WeightType type, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  int32_t head[3] = {};
  file.read(reinterpret_cast<char*>(head), sizeof(head));
  ASSERT_EQ(head[0], static_cast<int32_t>(type));
  const size_t n = static_cast<size_t>(head[1]) * head[2];
  std::vector<std::byte> blocks(row_bytes(type, n));
  std::vector<float> expected(n), found(n);
  file.read(reinterpret_cast<char*>(blocks.data()), static_cast<std::streamsize>(blocks.size()));
  file.read(reinterpret_cast<char*>(expected.data()), static_cast<std::streamsize>(n * sizeof(float)));
  ASSERT_TRUE(file);
  dequantize_row(type, blocks.data(), found.data(), static_cast<int64_t>(n));
  EXPECT_EQ(found, expected);
}

TEST(Dequantize, MXFP4EqualsTheReferenceRows) {
  for (const char* name : {"mxfp4", "mxfp4-random"}) {
    const std::string path = test::shared_path("golden/weight-types/" + std::string(name) + ".rows");
    FATHOM_NEEDS(path);
    expect_golden_rows(WeightType::kMXFP4, path);
  }
}

TEST(Dequantize, ReadsBlocksAtAnyAddress) {
  constexpr uint32_t kSeed = 5;
  const std::vector<float> row = normal_row(512, 1, kSeed);
  for (WeightType type : kTypes) {
    const std::vector<std::byte> bytes = quantized(type, row);
    std::vector<std::byte> shifted(bytes.size() + 1);
    std::memcpy(shifted.data() + 1, bytes.data(), bytes.size());
    std::vector<float> aligned(row.size()), unaligned(row.size());
    dequantize_row(type, bytes.data(), aligned.data(), 512);
    dequantize_row(type, shifted.data() + 1, unaligned.data(), 512);
    EXPECT_EQ(aligned, unaligned) << info(type).name;
  }
}

}  // namespace
}  // namespace fathom
