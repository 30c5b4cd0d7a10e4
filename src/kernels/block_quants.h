#pragma once

#include <bit>
#include <cstdint>

#include "kernels/blocks.h"

namespace fathom {

/// Location of the quantised value of weight i in the packed arrays of blocks.h: its byte, and the shift of its
/// lowest bit in that byte. Only the reference conversions use this header.
struct QuantLocation {
  int byte;
  int shift;
};

/// Four bits, low nibbles first, in groups of 32 weights.
constexpr QuantLocation nibble_location(int i) { return {i / 32 * 16 + i % 16, i / 16 % 2 * 4}; }
/// Four bits as in BlockQ4_K: nibbles in groups of 64 weights.
constexpr QuantLocation nibble_location_64(int i) { return {i / 64 * 32 + i % 32, i / 32 % 2 * 4}; }
/// The low four bits of BlockQ6_K: nibbles in groups of 128 weights.
constexpr QuantLocation nibble_location_128(int i) { return {i / 128 * 64 + i % 64, i / 64 % 2 * 4}; }
/// Two bits as in BlockQ2_K.
constexpr QuantLocation two_bit_location(int i) { return {i / 128 * 32 + i % 32, i / 32 % 4 * 2}; }
/// One bit, in the order of the weights.
constexpr QuantLocation bit_location(int i) { return {i / 8, i % 8}; }
/// One bit as in BlockQ5_K and BlockQ3_K.
constexpr QuantLocation strided_bit_location(int i) { return {i % 32, i / 32}; }

/// Returns the quantised value of kBits bits at a location.
template <int kBits>
int get_quant(const uint8_t* packed, QuantLocation at) {
  return packed[at.byte] >> at.shift & ((1 << kBits) - 1);
}

/// Stores a quantised value. The bits at the location must be zero.
inline void put_quant(uint8_t* packed, QuantLocation at, int quant) {
  packed[at.byte] = static_cast<uint8_t>(packed[at.byte] | quant << at.shift);
}

/// Scale and minimum of a sub-block, unsigned.
struct SubScale {
  int scale;
  int minimum;
};

/// Returns the scale and minimum of sub-block s < 8 of BlockQ4_K and BlockQ5_K.
inline SubScale get_sub_scale(const uint8_t (&scales)[12], int s) {
  if (s < 4) return {scales[s] & 63, scales[s + 4] & 63};
  return {(scales[s + 4] & 15) | (scales[s - 4] >> 6) << 4, scales[s + 4] >> 4 | (scales[s] >> 6) << 4};
}

/// Stores the scale and minimum of sub-block s. Its bits must be zero.
inline void put_sub_scale(uint8_t (&scales)[12], int s, SubScale value) {
  if (s < 4) {
    put_quant(scales, {s, 0}, value.scale);
    put_quant(scales, {s + 4, 0}, value.minimum);
    return;
  }
  put_quant(scales, {s + 4, 0}, value.scale & 15);
  put_quant(scales, {s + 4, 4}, value.minimum & 15);
  put_quant(scales, {s - 4, 6}, value.scale >> 4);
  put_quant(scales, {s, 6}, value.minimum >> 4);
}

/// Returns the six-bit scale of sub-block s < 16 of BlockQ3_K, biased by 32.
inline int get_q3_scale(const uint8_t (&scales)[12], int s) {
  return get_quant<4>(scales, {s % 8, s / 8 * 4}) | get_quant<2>(scales, {8 + s % 4, s / 4 * 2}) << 4;
}

/// Stores the biased scale of sub-block s. Its bits must be zero.
inline void put_q3_scale(uint8_t (&scales)[12], int s, int value) {
  put_quant(scales, {s % 8, s / 8 * 4}, value & 15);
  put_quant(scales, {8 + s % 4, s / 4 * 2}, value >> 4);
}

/// Returns the six-bit scale of sub-block s < 8 of BlockIQ4_XS, biased by 32.
inline int get_iq4_scale(const BlockIQ4_XS& block, int s) {
  return get_quant<4>(block.scales_low, {s / 2, s % 2 * 4}) | (block.scales_high >> 2 * s & 3) << 4;
}

/// Returns 2^(exponent − 128), the scale of the kFp4Values of a block. It is exact for every exponent, and
/// subnormal for exponents below 2.
inline float mxfp4_scale(uint8_t exponent) {
  const uint32_t bits = exponent < 2 ? uint32_t{0x00200000} << exponent : (uint32_t{exponent} - 1) << 23;
  return std::bit_cast<float>(bits);
}

/// Stores the biased scale of sub-block s. Its bits must be zero.
inline void put_iq4_scale(BlockIQ4_XS& block, int s, int value) {
  put_quant(block.scales_low, {s / 2, s % 2 * 4}, value & 15);
  block.scales_high = static_cast<uint16_t>(block.scales_high | (value >> 4) << 2 * s);
}

}  // namespace fathom
