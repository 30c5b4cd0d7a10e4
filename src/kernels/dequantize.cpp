#include <cstring>

#include "kernels/block_quants.h"
#include "kernels/blocks.h"
#include "kernels/quantize.h"

namespace fathom {
namespace {

void expand(const BlockQ8_0& block, float* w) {
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < kBlock; ++i) w[i] = scale * block.quants[i];
}

void expand(const BlockQ4_0& block, float* w) {
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < kBlock; ++i) w[i] = scale * (get_quant<4>(block.quants, nibble_location(i)) - 8);
}

void expand(const BlockQ4_1& block, float* w) {
  const float scale = f16_to_f32(block.scale), minimum = f16_to_f32(block.minimum);
  for (int i = 0; i < kBlock; ++i) w[i] = scale * get_quant<4>(block.quants, nibble_location(i)) + minimum;
}

template <class Block>
int five_bits(const Block& block, int i) {
  return get_quant<4>(block.quants, nibble_location(i)) | get_quant<1>(block.high_bits, bit_location(i)) << 4;
}

void expand(const BlockQ5_0& block, float* w) {
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < kBlock; ++i) w[i] = scale * (five_bits(block, i) - 16);
}

void expand(const BlockQ5_1& block, float* w) {
  const float scale = f16_to_f32(block.scale), minimum = f16_to_f32(block.minimum);
  for (int i = 0; i < kBlock; ++i) w[i] = scale * five_bits(block, i) + minimum;
}

void expand(const BlockQ2_K& block, float* w) {
  const float scale = f16_to_f32(block.scale), minimum = f16_to_f32(block.minimum);
  for (int s = 0; s < 16; ++s) {
    const float sub_scale = scale * (block.scales[s] & 15), sub_minimum = minimum * (block.scales[s] >> 4);
    for (int i = 16 * s; i < 16 * s + 16; ++i) {
      w[i] = sub_scale * get_quant<2>(block.quants, two_bit_location(i)) - sub_minimum;
    }
  }
}

void expand(const BlockQ3_K& block, float* w) {
  const float scale = f16_to_f32(block.scale);
  for (int s = 0; s < 16; ++s) {
    const float sub_scale = scale * (get_q3_scale(block.scales, s) - 32);
    for (int i = 16 * s; i < 16 * s + 16; ++i) {
      const int high = get_quant<1>(block.high_bits, strided_bit_location(i));
      w[i] = sub_scale * ((get_quant<2>(block.quants, two_bit_location(i)) | high << 2) - 4);
    }
  }
}

void expand(const BlockQ4_K& block, float* w) {
  const float scale = f16_to_f32(block.scale), minimum = f16_to_f32(block.minimum);
  for (int s = 0; s < 8; ++s) {
    const SubScale sub = get_sub_scale(block.scales, s);
    const float sub_scale = scale * sub.scale, sub_minimum = minimum * sub.minimum;
    for (int i = 32 * s; i < 32 * s + 32; ++i) {
      w[i] = sub_scale * get_quant<4>(block.quants, nibble_location_64(i)) - sub_minimum;
    }
  }
}

void expand(const BlockQ5_K& block, float* w) {
  const float scale = f16_to_f32(block.scale), minimum = f16_to_f32(block.minimum);
  for (int s = 0; s < 8; ++s) {
    const SubScale sub = get_sub_scale(block.scales, s);
    const float sub_scale = scale * sub.scale, sub_minimum = minimum * sub.minimum;
    for (int i = 32 * s; i < 32 * s + 32; ++i) {
      const int high = get_quant<1>(block.high_bits, strided_bit_location(i));
      w[i] = sub_scale * (get_quant<4>(block.quants, nibble_location_64(i)) | high << 4) - sub_minimum;
    }
  }
}

void expand(const BlockQ6_K& block, float* w) {
  const float scale = f16_to_f32(block.scale);
  for (int s = 0; s < 16; ++s) {
    const float sub_scale = scale * block.scales[s];
    for (int i = 16 * s; i < 16 * s + 16; ++i) {
      const int high = get_quant<2>(block.high_bits, two_bit_location(i));
      w[i] = sub_scale * ((get_quant<4>(block.low_bits, nibble_location_128(i)) | high << 4) - 32);
    }
  }
}

void expand(const BlockIQ4_NL& block, float* w) {
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < kBlock; ++i) w[i] = scale * kIq4Values[get_quant<4>(block.quants, nibble_location(i))];
}

void expand(const BlockIQ4_XS& block, float* w) {
  const float scale = f16_to_f32(block.scale);
  for (int s = 0; s < 8; ++s) {
    const float sub_scale = scale * (get_iq4_scale(block, s) - 32);
    for (int i = 32 * s; i < 32 * s + 32; ++i) {
      w[i] = sub_scale * kIq4Values[get_quant<4>(block.quants, nibble_location(i))];
    }
  }
}

void expand(const BlockMXFP4& block, float* w) {
  const float scale = mxfp4_scale(block.exponent);
  for (int i = 0; i < kBlock; ++i) w[i] = scale * kFp4Values[get_quant<4>(block.quants, nibble_location(i))];
}

template <class Block>
void expand_row(const std::byte* src, float* dst, int64_t n, int weights_in_block) {
  for (int64_t i = 0; i < n; i += weights_in_block, src += sizeof(Block)) {
    Block block;
    std::memcpy(&block, src, sizeof(Block));
    expand(block, dst + i);
  }
}

template <float (*kConvert)(uint16_t)>
void convert_row(const std::byte* src, float* dst, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t value;
    std::memcpy(&value, src + i * sizeof(value), sizeof(value));
    dst[i] = kConvert(value);
  }
}

}  // namespace

void dequantize_row(WeightType type, const std::byte* src, float* dst, int64_t n) {
  switch (type) {
    case WeightType::kF32:
      std::memcpy(dst, src, n * sizeof(float));
      return;
    case WeightType::kF16:
      return convert_row<f16_to_f32>(src, dst, n);
    case WeightType::kBF16:
      return convert_row<bf16_to_f32>(src, dst, n);
    case WeightType::kQ8_0:
      return expand_row<BlockQ8_0>(src, dst, n, kBlock);
    case WeightType::kQ4_0:
      return expand_row<BlockQ4_0>(src, dst, n, kBlock);
    case WeightType::kQ4_1:
      return expand_row<BlockQ4_1>(src, dst, n, kBlock);
    case WeightType::kQ5_0:
      return expand_row<BlockQ5_0>(src, dst, n, kBlock);
    case WeightType::kQ5_1:
      return expand_row<BlockQ5_1>(src, dst, n, kBlock);
    case WeightType::kQ2_K:
      return expand_row<BlockQ2_K>(src, dst, n, kSuperBlock);
    case WeightType::kQ3_K:
      return expand_row<BlockQ3_K>(src, dst, n, kSuperBlock);
    case WeightType::kQ4_K:
      return expand_row<BlockQ4_K>(src, dst, n, kSuperBlock);
    case WeightType::kQ5_K:
      return expand_row<BlockQ5_K>(src, dst, n, kSuperBlock);
    case WeightType::kQ6_K:
      return expand_row<BlockQ6_K>(src, dst, n, kSuperBlock);
    case WeightType::kIQ4_NL:
      return expand_row<BlockIQ4_NL>(src, dst, n, kBlock);
    case WeightType::kIQ4_XS:
      return expand_row<BlockIQ4_XS>(src, dst, n, kSuperBlock);
    case WeightType::kMXFP4:
      return expand_row<BlockMXFP4>(src, dst, n, kBlock);
  }
}

}  // namespace fathom
