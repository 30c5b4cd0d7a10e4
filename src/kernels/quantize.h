#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/types.h"

namespace fathom {

/// The plain meaning of every weight type, and the reference that fast kernels are compared with.

/// n weights of `type` at src as float32. n is a multiple of the type's block.
void dequantize_row(WeightType type, const std::byte* src, float* dst, int64_t n);

/// Rounds n floats to `type`: per block the nearest representable values under a least-squares scale (and minimum).
/// n is a multiple of the block.
void quantize_row(WeightType type, const float* src, std::byte* dst, int64_t n);

/// IEEE half precision and bfloat16, round to nearest even.
float f16_to_f32(uint16_t half);
uint16_t f32_to_f16(float value);
inline float bf16_to_f32(uint16_t value) { return __builtin_bit_cast(float, static_cast<uint32_t>(value) << 16); }
uint16_t f32_to_bf16(float value);

}  // namespace fathom
