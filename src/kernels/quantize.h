#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/types.h"

namespace fathom {

// Reference conversions of all weight types. Tests compare the fast kernels with them.

/// Converts n weights of `type` at src to float32. n is a multiple of the type's block size.
void dequantize_row(WeightType type, const std::byte* src, float* dst, int64_t n);

/// Rounds n floats to `type`. Each block gets a scale (and minimum) fitted by least squares, and each weight the
/// nearest value that they can represent. n is a multiple of the type's block size.
void quantize_row(WeightType type, const float* src, std::byte* dst, int64_t n);

/// Conversions from and to IEEE half precision and bfloat16; round to nearest, ties to even.
float f16_to_f32(uint16_t half);
uint16_t f32_to_f16(float value);
inline float bf16_to_f32(uint16_t value) { return __builtin_bit_cast(float, static_cast<uint32_t>(value) << 16); }
uint16_t f32_to_bf16(float value);

}  // namespace fathom
