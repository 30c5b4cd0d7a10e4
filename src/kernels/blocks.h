#pragma once

#include <cstdint>

namespace fathom {

// The quantised blocks of GGUF as stored in a file: packed, little-endian, at any address that is a multiple of the
// alignment (2, or 1 for MXFP4). `scale` and `minimum` are IEEE halves (f16_to_f32). w[i] is weight i of a block
// and q[i] its quantised value. "Low nibbles first" means that byte j of `quants` holds q[j] in its low four bits
// and q[j + 16] in its high four bits.

inline constexpr int kBlock = 32;        // weights in a simple block
inline constexpr int kSuperBlock = 256;  // weights in a super-block, the block of the K and IQ4_XS types

/// w[i] = scale · quants[i]
struct BlockQ8_0 {
  uint16_t scale;
  int8_t quants[kBlock];
};
static_assert(sizeof(BlockQ8_0) == 34);

/// w[i] = scale · (q[i] − 8), q in [0, 15]
struct BlockQ4_0 {
  uint16_t scale;
  uint8_t quants[kBlock / 2];  // low nibbles first
};
static_assert(sizeof(BlockQ4_0) == 18);

/// w[i] = scale · q[i] + minimum, q in [0, 15]
struct BlockQ4_1 {
  uint16_t scale;
  uint16_t minimum;
  uint8_t quants[kBlock / 2];  // low nibbles first
};
static_assert(sizeof(BlockQ4_1) == 20);

/// w[i] = scale · (q[i] − 16), q in [0, 31]
struct BlockQ5_0 {
  uint16_t scale;
  uint8_t high_bits[4];        // bit i of the 32-bit word is the fifth bit of q[i]
  uint8_t quants[kBlock / 2];  // the low four bits of q, low nibbles first
};
static_assert(sizeof(BlockQ5_0) == 22);

/// w[i] = scale · q[i] + minimum, q in [0, 31]
struct BlockQ5_1 {
  uint16_t scale;
  uint16_t minimum;
  uint8_t high_bits[4];        // bit i of the 32-bit word is the fifth bit of q[i]
  uint8_t quants[kBlock / 2];  // the low four bits of q, low nibbles first
};
static_assert(sizeof(BlockQ5_1) == 24);

/// 16 sub-blocks of 16 weights. In sub-block s = i / 16: w[i] = scale · scales_s · q[i] − minimum · minimums_s, q
/// in [0, 3]
struct BlockQ2_K {
  uint8_t scales[kSuperBlock / 16];  // of sub-block s: low nibble scales_s, high nibble minimums_s
  uint8_t quants[kSuperBlock / 4];  // q[128·h + 32·p + l] in bits 2p, 2p+1 of byte 32·h + l (h < 2, p < 4, l < 32)
  uint16_t scale;
  uint16_t minimum;
};
static_assert(sizeof(BlockQ2_K) == 84);

/// 16 sub-blocks of 16 weights. In sub-block s = i / 16: w[i] = scale · (scales_s − 32) · (q[i] − 4), q in [0, 7]
struct BlockQ3_K {
  uint8_t high_bits[kSuperBlock / 8];  // the third bit of q[32·b + l] is bit b of byte l (b < 8, l < 32)
  uint8_t quants[kSuperBlock / 4];     // the low two bits of q, in the layout of BlockQ2_K
  uint8_t scales[12];                  // 16 six-bit numbers: the low four bits of scales_s are in byte s % 8 (low
                       // nibble for s < 8, else high), its high two in byte 8 + s % 4 at bit 2·(s / 4)
  uint16_t scale;
};
static_assert(sizeof(BlockQ3_K) == 110);

/// 8 sub-blocks of 32 weights. In sub-block s = i / 32: w[i] = scale · scales_s · q[i] − minimum · minimums_s, q in
/// [0, 15]
struct BlockQ4_K {
  uint16_t scale;
  uint16_t minimum;
  uint8_t scales[12];  // 8 + 8 six-bit numbers. s < 4: scales_s is bits 0…5 of byte s, minimums_s of byte
                       // s + 4. s ≥ 4: the low four bits of scales_s are the low nibble of byte s + 4, those
                       // of minimums_s its high nibble; the high two of scales_s are bits 6, 7 of byte
                       // s − 4, those of minimums_s bits 6, 7 of byte s
  uint8_t quants[kSuperBlock / 2];  // byte 32·c + l: q[64·c + l] in the low, q[64·c + 32 + l] in the high nibble
                                    // (c < 4, l < 32)
};
static_assert(sizeof(BlockQ4_K) == 144);

/// As BlockQ4_K with q in [0, 31]
struct BlockQ5_K {
  uint16_t scale;
  uint16_t minimum;
  uint8_t scales[12];                  // as in BlockQ4_K
  uint8_t high_bits[kSuperBlock / 8];  // the fifth bit of q[32·s + l] is bit s of byte l (s < 8, l < 32)
  uint8_t quants[kSuperBlock / 2];     // the low four bits of q, in the layout of BlockQ4_K
};
static_assert(sizeof(BlockQ5_K) == 176);

/// 16 sub-blocks of 16 weights. In sub-block s = i / 16: w[i] = scale · scales[s] · (q[i] − 32), q in [0, 63]
struct BlockQ6_K {
  uint8_t low_bits[kSuperBlock / 2];  // the low four bits of q[128·h + 32·p + l]: byte 64·h + 32·(p % 2) + l, low
                                      // nibble for p < 2, else high (h < 2, p < 4, l < 32)
  uint8_t high_bits[kSuperBlock / 4];  // the two high bits of q, in the layout of BlockQ2_K
  int8_t scales[kSuperBlock / 16];
  uint16_t scale;
};
static_assert(sizeof(BlockQ6_K) == 210);

/// The 16 values that the 4-bit indices of the IQ4 types stand for. They are denser near zero, as weights are.
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// w[i] = scale · kIq4Values[q[i]]
struct BlockIQ4_NL {
  uint16_t scale;
  uint8_t quants[kBlock / 2];  // low nibbles first
};
static_assert(sizeof(BlockIQ4_NL) == 18);

/// 8 sub-blocks of 32 weights. In sub-block s = i / 32: w[i] = scale · (scales_s − 32) · kIq4Values[q[i]]
struct BlockIQ4_XS {
  uint16_t scale;
  uint16_t scales_high;             // the two high bits of scales_s are bits 2s, 2s+1
  uint8_t scales_low[4];            // the low four bits of scales_s: byte s / 2, low nibble for even s
  uint8_t quants[kSuperBlock / 2];  // per sub-block 16 bytes, low nibbles first
};
static_assert(sizeof(BlockIQ4_XS) == 136);

/// Twice the 16 numbers of FP4 (E2M1). Bit 3 of the index is the sign; index 8 is a second zero.
inline constexpr int8_t kFp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// OCP Microscaling FP4: w[i] = 2^(exponent − 128) · kFp4Values[q[i]]
struct BlockMXFP4 {
  uint8_t exponent;
  uint8_t quants[kBlock / 2];  // low nibbles first
};
static_assert(sizeof(BlockMXFP4) == 17);

}  // namespace fathom
