// Unpacks every quantised weight type to one form: w = scale · q − min with q in [0, 255], with a scale and a min
// per group of 16 weights. Included inside Highway's target loop.
#if defined(FATHOM_UNPACK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_UNPACK_INL
#undef FATHOM_UNPACK_INL
#else
#define FATHOM_UNPACK_INL
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/blocks.h"
#include "kernels/panels-inl.h"

#ifndef FATHOM_TYPE_GROUPS
#define FATHOM_TYPE_GROUPS
// The weight types, each as CASE(WeightType, element or block, product), in the groups in which products are
// compiled. Each group has a source file, since the products of one type and instruction set take seconds to
// compile.
#define FATHOM_FLOAT_TYPES(CASE, product) \
  CASE(kF32, float, product) CASE(kF16, hwy::float16_t, product) CASE(kBF16, hwy::bfloat16_t, product)
#define FATHOM_SMALL_BLOCK_TYPES(CASE, product) \
  CASE(kQ8_0, BlockQ8_0, product)               \
  CASE(kQ4_0, BlockQ4_0, product)               \
  CASE(kQ4_1, BlockQ4_1, product)               \
  CASE(kQ5_0, BlockQ5_0, product)               \
  CASE(kQ5_1, BlockQ5_1, product)               \
  CASE(kIQ4_NL, BlockIQ4_NL, product) CASE(kMXFP4, BlockMXFP4, product)
#define FATHOM_LOW_K_TYPES(CASE, product) \
  CASE(kQ2_K, BlockQ2_K, product) CASE(kQ3_K, BlockQ3_K, product) CASE(kQ4_K, BlockQ4_K, product)
#define FATHOM_HIGH_K_TYPES(CASE, product) \
  CASE(kQ5_K, BlockQ5_K, product) CASE(kQ6_K, BlockQ6_K, product) CASE(kIQ4_XS, BlockIQ4_XS, product)

/// Calls the product for the type of w, which is one of TYPES. Expands to the body of a function with the
/// parameters of Kernels::matvec.
#define FATHOM_BY_TYPE(TYPES, product)  \
  switch (w.type) {                     \
    TYPES(FATHOM_TYPE_PRODUCT, product) \
    default: /* in another group */     \
      return;                           \
  }
#define FATHOM_TYPE_LABEL(type, element, product) case WeightType::type:
#define FATHOM_TYPE_PRODUCT(type, element, product) \
  case WeightType::type:                            \
    return product<element>(w, begin, end, x, y, y_stride);
#endif

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

HWY_INLINE float HalfToFloat(uint16_t half) {
  const hn::FixedTag<uint16_t, 4> du;
  const hn::FixedTag<hwy::float16_t, 4> dh;
  const hn::FixedTag<float, 4> df;
  return hn::GetLane(hn::PromoteTo(df, hn::BitCast(dh, hn::Set(du, half))));
}

/// kBlockWeights: weights in a block. kGroupWeights: weights that share a scale.
template <class Block>
inline constexpr int kBlockWeights = kBlock;
template <>
inline constexpr int kBlockWeights<BlockQ2_K> = kSuperBlock;
template <>
inline constexpr int kBlockWeights<BlockQ3_K> = kSuperBlock;
template <>
inline constexpr int kBlockWeights<BlockQ4_K> = kSuperBlock;
template <>
inline constexpr int kBlockWeights<BlockQ5_K> = kSuperBlock;
template <>
inline constexpr int kBlockWeights<BlockQ6_K> = kSuperBlock;
template <>
inline constexpr int kBlockWeights<BlockIQ4_XS> = kSuperBlock;
template <class Block>
inline constexpr int kGroupWeights = 32;
template <>
inline constexpr int kGroupWeights<BlockQ2_K> = 16;
template <>
inline constexpr int kGroupWeights<BlockQ3_K> = 16;
template <>
inline constexpr int kGroupWeights<BlockQ6_K> = 16;

/// Bits of a quantised value.
template <class Block>
inline constexpr int kQuantBits = 8;
template <>
inline constexpr int kQuantBits<BlockQ2_K> = 2;
template <>
inline constexpr int kQuantBits<BlockQ3_K> = 3;
template <>
inline constexpr int kQuantBits<BlockQ4_0> = 4;
template <>
inline constexpr int kQuantBits<BlockQ4_1> = 4;
template <>
inline constexpr int kQuantBits<BlockQ4_K> = 4;
template <>
inline constexpr int kQuantBits<BlockQ5_0> = 5;
template <>
inline constexpr int kQuantBits<BlockQ5_1> = 5;
template <>
inline constexpr int kQuantBits<BlockQ5_K> = 5;
template <>
inline constexpr int kQuantBits<BlockMXFP4> = 5;
template <>
inline constexpr int kQuantBits<BlockQ6_K> = 6;

using Bytes16 = hn::FixedTag<uint8_t, 16>;
using Vec16 = hn::Vec<Bytes16>;

// The quantised values of a super-block are unpacked one vector at a time and passed in registers. If a vector were
// stored to memory in pieces, loading it would have to wait for the stores.
using QuantTag = hn::CappedTag<uint8_t, 64>;
using QuantVec = hn::Vec<QuantTag>;
constexpr int kQuantLanes = HWY_MAX_BYTES;
constexpr int kQuantVectors = kSuperBlock / kQuantLanes;
// Quantised values are indexed by chunk (64 weights) and part (vector of a chunk).
constexpr int kVectorsOf64 = 64 / kQuantLanes;
constexpr int kScaleVectors = 16 / (HWY_MAX_BYTES / 4);

/// The scale and the minimum of each of the 16 groups of a super-block.
struct GroupScales {
  HWY_INLINE GroupScales() {}  // an implicit one would be compiled without the target's instructions
  FloatVec scale[kScaleVectors], min[kScaleVectors];
};

HWY_INLINE uint64_t Join(uint32_t low, uint32_t high) { return low | static_cast<uint64_t>(high) << 32; }

/// Returns two 64-bit words as 16 bytes, without a store to memory.
HWY_INLINE Vec16 Bytes16Of(uint64_t low, uint64_t high) {
  const hn::FixedTag<uint64_t, 2> d;
  return hn::BitCast(Bytes16(), hn::OddEven(hn::Set(d, high), hn::Set(d, low)));
}

HWY_INLINE FloatVec SetHalf(uint16_t half) {
  const hn::Rebind<hwy::float16_t, FloatTag> dh;
  return hn::PromoteTo(FloatTag(), hn::BitCast(dh, hn::Set(hn::Rebind<uint16_t, FloatTag>(), half)));
}

/// Shifts each byte right by `bits`. The upper bits then come from the next byte, and the caller masks them.
HWY_INLINE QuantVec ShiftBits(QuantVec v, int bits) {
  return hn::BitCast(QuantTag(), hn::ShiftRightSame(hn::BitCast(hn::Repartition<uint64_t, QuantTag>(), v), bits));
}
template <int kBits>
HWY_INLINE QuantVec ShiftUp(QuantVec v) {
  return hn::BitCast(QuantTag(), hn::ShiftLeft<kBits>(hn::BitCast(hn::Repartition<uint16_t, QuantTag>(), v)));
}
HWY_INLINE QuantVec Masked(QuantVec v, uint8_t mask) { return hn::And(v, hn::Set(QuantTag(), mask)); }

/// Returns one part of a chunk whose first 32 values are the 32 bytes at `bytes` shifted right by `first`, and
/// whose other 32 values are the same bytes shifted by `second`.
HWY_INLINE QuantVec Spread(const uint8_t* HWY_RESTRICT bytes, int part, int first, int second) {
#if HWY_MAX_BYTES == 64
  (void)part;
  const __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
  return QuantVec{
      _mm512_srlv_epi64(both, _mm512_set_epi64(second, second, second, second, first, first, first, first))};
#else
  const int byte = part * kQuantLanes;
  return ShiftBits(hn::LoadU(QuantTag(), bytes + byte % 32), byte < 32 ? first : second);
#endif
}

/// Returns one part of a chunk of two simple blocks with 16 bytes of nibbles each: low nibbles first, then high
/// ones.
HWY_INLINE QuantVec Nibbles(const uint8_t* HWY_RESTRICT first, const uint8_t* HWY_RESTRICT second, int part) {
#if HWY_MAX_BYTES == 64
  (void)part;
  const __m512i one = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(first)));
  const __m512i two =
      _mm512_mask_broadcast_i32x4(one, 0xff00, _mm_loadu_si128(reinterpret_cast<const __m128i*>(second)));
  return Masked(QuantVec{_mm512_srlv_epi64(two, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0))}, 15);
#elif HWY_MAX_BYTES == 32
  const auto both = hn::LoadDup128(QuantTag(), part == 0 ? first : second);
  return Masked(hn::ConcatUpperLower(QuantTag(), ShiftBits(both, 4), both), 15);
#else
  return Masked(ShiftBits(hn::LoadU(QuantTag(), part < 2 ? first : second), part % 2 * 4), 15);
#endif
}

/// Returns 16 for each value of one part whose fifth bit is set, 0 for the others. first, second: the 32-bit words
/// of fifth bits of two simple blocks.
HWY_INLINE QuantVec FifthBits(const uint8_t* HWY_RESTRICT first, const uint8_t* HWY_RESTRICT second, int part) {
#if HWY_MAX_BYTES == 64
  (void)part;
  uint32_t low, high;
  std::memcpy(&low, first, 4);
  std::memcpy(&high, second, 4);
  return QuantVec{_mm512_maskz_mov_epi8(Join(low, high), _mm512_set1_epi8(16))};
#else
  const QuantTag d;
  uint32_t word;
  std::memcpy(&word, part * kQuantLanes < 32 ? first : second, 4);
  const auto bytes = hn::BitCast(d, hn::Set(hn::Repartition<uint32_t, QuantTag>(), word));
  const auto lane = hn::Add(hn::Iota(d, 0), hn::Set(d, static_cast<uint8_t>(part * kQuantLanes % 32)));
  alignas(16) static constexpr uint8_t kBitOfLane[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const auto bit = hn::LoadDup128(d, kBitOfLane);
  return hn::IfThenElseZero(hn::TestBit(hn::TableLookupBytes(bytes, hn::ShiftRight<3>(lane)), bit), hn::Set(d, 16));
#endif
}

/// Maps four-bit indices through the table of the IQ4 types, shifted to [0, 255] by adding 128.
HWY_INLINE QuantVec Iq4Quants(QuantVec nibbles) {
  alignas(16) static constexpr uint8_t kTable[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                     129, 141, 153, 166, 181, 197, 217, 241};
  return hn::TableLookupBytes(hn::LoadDup128(QuantTag(), kTable), nibbles);
}

/// Maps four-bit indices through the table of FP4, shifted to [0, 24] by adding 12.
HWY_INLINE QuantVec Fp4Quants(QuantVec nibbles) {
  alignas(16) static constexpr uint8_t kTable[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
  return hn::TableLookupBytes(hn::LoadDup128(QuantTag(), kTable), nibbles);
}

// QuantsAt: returns the quantised values of one part of a chunk of a super-block.

HWY_INLINE QuantVec QuantsAt(const BlockQ8_0* HWY_RESTRICT b, int chunk, int part) {
#if HWY_MAX_BYTES == 64
  (void)part;
  const hn::Half<QuantTag> half;
  const auto* first = reinterpret_cast<const uint8_t*>(b[2 * chunk].quants);
  const auto* second = reinterpret_cast<const uint8_t*>(b[2 * chunk + 1].quants);
  const QuantVec quants = hn::Combine(QuantTag(), hn::LoadU(half, second), hn::LoadU(half, first));
#else
  const int byte = part * kQuantLanes;
  const auto* block = reinterpret_cast<const uint8_t*>(b[2 * chunk + byte / 32].quants);
  const QuantVec quants = hn::LoadU(QuantTag(), block + byte % 32);
#endif
  return hn::Xor(quants, hn::Set(QuantTag(), 0x80));
}
HWY_INLINE QuantVec QuantsAt(const BlockQ4_0* HWY_RESTRICT b, int chunk, int part) {
  return Nibbles(b[2 * chunk].quants, b[2 * chunk + 1].quants, part);
}
HWY_INLINE QuantVec QuantsAt(const BlockQ4_1* HWY_RESTRICT b, int chunk, int part) {
  return Nibbles(b[2 * chunk].quants, b[2 * chunk + 1].quants, part);
}
template <class Block>
HWY_INLINE QuantVec FiveBitQuants(const Block* HWY_RESTRICT b, int chunk, int part) {
  return hn::Or(Nibbles(b[2 * chunk].quants, b[2 * chunk + 1].quants, part),
                FifthBits(b[2 * chunk].high_bits, b[2 * chunk + 1].high_bits, part));
}
HWY_INLINE QuantVec QuantsAt(const BlockQ5_0* HWY_RESTRICT b, int chunk, int part) {
  return FiveBitQuants(b, chunk, part);
}
HWY_INLINE QuantVec QuantsAt(const BlockQ5_1* HWY_RESTRICT b, int chunk, int part) {
  return FiveBitQuants(b, chunk, part);
}
HWY_INLINE QuantVec QuantsAt(const BlockIQ4_NL* HWY_RESTRICT b, int chunk, int part) {
  return Iq4Quants(Nibbles(b[2 * chunk].quants, b[2 * chunk + 1].quants, part));
}
HWY_INLINE QuantVec QuantsAt(const BlockMXFP4* HWY_RESTRICT b, int chunk, int part) {
  return Fp4Quants(Nibbles(b[2 * chunk].quants, b[2 * chunk + 1].quants, part));
}
HWY_INLINE QuantVec QuantsAt(const BlockIQ4_XS* HWY_RESTRICT b, int chunk, int part) {
  return Iq4Quants(Nibbles(b->quants + 32 * chunk, b->quants + 32 * chunk + 16, part));
}
HWY_INLINE QuantVec QuantsAt(const BlockQ2_K* HWY_RESTRICT b, int chunk, int part) {
  const int shift = chunk % 2 * 4;
  return Masked(Spread(b->quants + chunk / 2 * 32, part, shift, shift + 2), 3);
}
HWY_INLINE QuantVec QuantsAt(const BlockQ3_K* HWY_RESTRICT b, int chunk, int part) {
  const int shift = chunk % 2 * 4;
  const QuantVec low = Masked(Spread(b->quants + chunk / 2 * 32, part, shift, shift + 2), 3);
  const QuantVec third = Masked(Spread(b->high_bits, part, 2 * chunk, 2 * chunk + 1), 1);
  return hn::Or(low, ShiftUp<2>(third));
}
HWY_INLINE QuantVec QuantsAt(const BlockQ4_K* HWY_RESTRICT b, int chunk, int part) {
  return Masked(Spread(b->quants + 32 * chunk, part, 0, 4), 15);
}
HWY_INLINE QuantVec QuantsAt(const BlockQ5_K* HWY_RESTRICT b, int chunk, int part) {
  const QuantVec fifth = Masked(Spread(b->high_bits, part, 2 * chunk, 2 * chunk + 1), 1);
  return hn::Or(Masked(Spread(b->quants + 32 * chunk, part, 0, 4), 15), ShiftUp<4>(fifth));
}
HWY_INLINE QuantVec QuantsAt(const BlockQ6_K* HWY_RESTRICT b, int chunk, int part) {
  const int half = chunk / 2, upper = chunk % 2;
  const QuantVec low = hn::LoadU(QuantTag(), b->low_bits + 64 * half + part * kQuantLanes);
  const QuantVec high = Masked(Spread(b->high_bits + 32 * half, part, 4 * upper, 4 * upper + 2), 3);
  return hn::Or(Masked(ShiftBits(low, 4 * upper), 15), ShiftUp<4>(high));
}

/// The offset of the quantised values of a simple block without a minimum: w = scale · (value − offset).
template <class Block>
inline constexpr float kOffset = 0;
template <>
inline constexpr float kOffset<BlockQ8_0> = 128;
template <>
inline constexpr float kOffset<BlockQ4_0> = 8;
template <>
inline constexpr float kOffset<BlockQ5_0> = 16;
template <>
inline constexpr float kOffset<BlockIQ4_NL> = 128;
template <>
inline constexpr float kOffset<BlockMXFP4> = 12;

/// Whether values use all eight bits. For instructions that add pairs of products in 16 bits, such values must be
/// signed: value − 128. Their minimum is then zero.
template <class Block>
inline constexpr bool kSignedQuants = kQuantBits<Block> == 8;

/// out = factor · bytes for 16 bytes, signed or unsigned.
template <class Byte>
HWY_INLINE void ScaleBytes(Vec16 bytes, FloatVec factor, FloatVec (&out)[kScaleVectors]) {
  const FloatTag d;
  const hn::Rebind<int32_t, FloatTag> di;
#if HWY_MAX_BYTES == 64
  out[0] = hn::Mul(hn::ConvertTo(d, hn::PromoteTo(di, hn::BitCast(hn::FixedTag<Byte, 16>(), bytes))), factor);
#else
  alignas(16) Byte list[16];
  hn::Store(hn::BitCast(hn::FixedTag<Byte, 16>(), bytes), hn::FixedTag<Byte, 16>(), list);
  FATHOM_UNROLL
  for (int i = 0; i < kScaleVectors; ++i) {
    const auto part = hn::LoadU(hn::Rebind<Byte, FloatTag>(), list + i * (16 / kScaleVectors));
    out[i] = hn::Mul(hn::ConvertTo(d, hn::PromoteTo(di, part)), factor);
  }
#endif
}

/// out[i] = factor · halves[i / 2] for 16 values.
HWY_INLINE void ScaleHalves(const uint16_t (&halves)[8], float factor, FloatVec (&out)[kScaleVectors]) {
  const FloatTag d;
#if HWY_MAX_BYTES == 64
  const auto join = [&](int i) {
    return Join(halves[i] | static_cast<uint32_t>(halves[i + 1]) << 16,
                halves[i + 2] | static_cast<uint32_t>(halves[i + 3]) << 16);
  };
  const hn::FixedTag<uint16_t, 8> d16;
  const auto eight = hn::BitCast(d16, Bytes16Of(join(0), join(4)));
  const auto doubled = hn::Combine(hn::FixedTag<uint16_t, 16>(), hn::InterleaveUpper(d16, eight, eight),
                                   hn::InterleaveLower(eight, eight));
  out[0] = hn::Mul(hn::PromoteTo(d, hn::BitCast(hn::FixedTag<hwy::float16_t, 16>(), doubled)), hn::Set(d, factor));
#else
  alignas(32) float list[16];
  for (int i = 0; i < 8; ++i) list[2 * i] = list[2 * i + 1] = factor * HalfToFloat(halves[i]);
  for (int i = 0; i < kScaleVectors; ++i) out[i] = hn::Load(d, list + i * (16 / kScaleVectors));
#endif
}

/// out.min = out.scale · offset.
HWY_INLINE void SetOffset(float offset, GroupScales& out) {
  FATHOM_UNROLL
  for (int i = 0; i < kScaleVectors; ++i) out.min[i] = hn::Mul(out.scale[i], hn::Set(FloatTag(), offset));
}

/// Returns the scales of eight simple blocks.
template <class Block>
HWY_INLINE GroupScales ScalesOf(const Block* HWY_RESTRICT b) {
  uint16_t scales[8], minimums[8] = {};
  FATHOM_UNROLL
  for (int i = 0; i < 8; ++i) {
    scales[i] = b[i].scale;
    if constexpr (kOffset<Block> == 0) minimums[i] = b[i].minimum;
  }
  GroupScales out;
  ScaleHalves(scales, 1, out.scale);
  if constexpr (kOffset<Block> == 0) {
    ScaleHalves(minimums, -1, out.min);
  } else {
    SetOffset(kOffset<Block>, out);
  }
  return out;
}

/// Returns 2^(exponent − 128), computed as in mxfp4_scale.
HWY_INLINE FloatVec PowersOfTwo(IntVec exponent) {
  const IntTag di;
  const IntVec normal = hn::ShiftLeft<23>(hn::Sub(exponent, hn::Set(di, 1)));
  const IntVec subnormal = hn::ShiftLeft<21>(hn::Add(exponent, hn::Set(di, 1)));
  return hn::BitCast(FloatTag(), hn::IfThenElse(hn::Lt(exponent, hn::Set(di, 2)), subnormal, normal));
}

HWY_INLINE GroupScales ScalesOf(const BlockMXFP4* HWY_RESTRICT b) {
  uint64_t exponents = 0;
  FATHOM_UNROLL
  for (int i = 0; i < 8; ++i) exponents |= static_cast<uint64_t>(b[i].exponent) << (8 * i);
  const auto bytes = Bytes16Of(exponents, exponents);
  const auto doubled = hn::InterleaveLower(bytes, bytes);
  GroupScales out;
#if HWY_MAX_BYTES == 64
  out.scale[0] = PowersOfTwo(hn::PromoteTo(IntTag(), doubled));
#else
  alignas(16) uint8_t list[16];
  hn::Store(doubled, Bytes16(), list);
  FATHOM_UNROLL
  for (int i = 0; i < kScaleVectors; ++i) {
    const auto part = hn::LoadU(hn::Rebind<uint8_t, FloatTag>(), list + i * (16 / kScaleVectors));
    out.scale[i] = PowersOfTwo(hn::PromoteTo(IntTag(), part));
  }
#endif
  SetOffset(kOffset<BlockMXFP4>, out);
  return out;
}

/// Returns the scales of a type whose scales are signed bytes and whose quantised values have an offset.
HWY_INLINE GroupScales OffsetScales(Vec16 bytes, uint16_t half, float offset) {
  GroupScales out;
  ScaleBytes<int8_t>(bytes, SetHalf(half), out.scale);
  SetOffset(offset, out);
  return out;
}

HWY_INLINE GroupScales ScalesOf(const BlockQ2_K* HWY_RESTRICT b) {
  const Bytes16 d;
  const auto packed = hn::LoadU(d, b->scales);
  GroupScales out;
  ScaleBytes<uint8_t>(hn::And(packed, hn::Set(d, 15)), SetHalf(b->scale), out.scale);
  ScaleBytes<uint8_t>(hn::ShiftRight<4>(packed), SetHalf(b->minimum), out.min);
  return out;
}

HWY_INLINE GroupScales ScalesOf(const BlockQ3_K* HWY_RESTRICT b) {
  uint64_t low;   // 16 low halves of six-bit scales: those of scales 0…7 are the low nibbles
  uint32_t high;  // their two high bits
  std::memcpy(&low, b->scales, 8);
  std::memcpy(&high, b->scales + 8, 4);
  constexpr uint64_t kNibbles = 0x0f0f0f0f0f0f0f0f;
  constexpr uint32_t kTwoBits = 0x30303030;
  const auto six = Bytes16Of((low & kNibbles) | Join((high << 4) & kTwoBits, (high << 2) & kTwoBits),
                             ((low >> 4) & kNibbles) | Join(high & kTwoBits, (high >> 2) & kTwoBits));
  return OffsetScales(hn::Sub(six, hn::Set(Bytes16(), 32)), b->scale, 4);
}

/// Returns the 8 scales and 8 minimums of Q4_K and Q5_K, each for two groups of 16.
template <class Block>
HWY_INLINE GroupScales SixBitScales(const Block* HWY_RESTRICT b) {
  uint64_t first;   // scales 0…3, minimums 0…3, and the high bits of the others
  uint32_t second;  // the low halves of scales 4…7 and minimums 4…7
  std::memcpy(&first, b->scales, 8);
  std::memcpy(&second, b->scales + 8, 4);
  const uint64_t lower = first & 0x3f3f3f3f3f3f3f3f;
  const uint64_t upper = (Join(second, second >> 4) & 0x0f0f0f0f0f0f0f0f) | ((first >> 2) & 0x3030303030303030);
  const Bytes16 d;
  const auto six = Bytes16Of(lower, upper);  // scales 0…3, minimums 0…3, scales 4…7, minimums 4…7
  alignas(16) static constexpr uint8_t kScale[16] = {0, 0, 1, 1, 2, 2, 3, 3, 8, 8, 9, 9, 10, 10, 11, 11};
  GroupScales out;
  const auto order = hn::Load(d, kScale);
  ScaleBytes<uint8_t>(hn::TableLookupBytes(six, order), SetHalf(b->scale), out.scale);
  ScaleBytes<uint8_t>(hn::TableLookupBytes(six, hn::Add(order, hn::Set(d, 4))), SetHalf(b->minimum), out.min);
  return out;
}
HWY_INLINE GroupScales ScalesOf(const BlockQ4_K* HWY_RESTRICT b) { return SixBitScales(b); }
HWY_INLINE GroupScales ScalesOf(const BlockQ5_K* HWY_RESTRICT b) { return SixBitScales(b); }

HWY_INLINE GroupScales ScalesOf(const BlockQ6_K* HWY_RESTRICT b) {
  const auto bytes = hn::LoadU(Bytes16(), reinterpret_cast<const uint8_t*>(b->scales));
  return OffsetScales(bytes, b->scale, 32);
}

HWY_INLINE GroupScales ScalesOf(const BlockIQ4_XS* HWY_RESTRICT b) {
  uint64_t six = 0;  // 8 six-bit scales in bytes
  FATHOM_UNROLL
  for (int s = 0; s < 8; ++s) {
    const uint64_t low = (b->scales_low[s / 2] >> (4 * (s % 2))) & 15, high = (b->scales_high >> (2 * s)) & 3;
    six |= (low | high << 4) << (8 * s);
  }
  const auto bytes = Bytes16Of(six, six);
  return OffsetScales(hn::Sub(hn::InterleaveLower(bytes, bytes), hn::Set(Bytes16(), 32)), b->scale, 128);
}

/// Calls body(blocks, column) for each super-block of a row of `cols` weights. A shorter last one (simple blocks
/// only) is copied and padded with zeros.
template <class Block, class Body>
HWY_INLINE void ForSuperBlocks(const Block* HWY_RESTRICT row, int64_t cols, const Body& body) {
  constexpr int64_t kBlocks = kSuperBlock / kBlockWeights<Block>;
  const int64_t whole = cols / kSuperBlock;
  for (int64_t i = 0; i < whole; ++i) body(row + i * kBlocks, i * kSuperBlock);
  if constexpr (kBlocks > 1) {
    const int64_t left = (cols - whole * kSuperBlock) / kBlockWeights<Block>;
    if (left == 0) return;
    Block last[kBlocks] = {};
    std::copy_n(row + whole * kBlocks, left, last);
    body(last, whole * kSuperBlock);
  }
}

/// Unpacks a super-block to memory: q: [256], scale, min: [16].
template <class Block>
HWY_INLINE void UnpackSuperBlock(const Block* HWY_RESTRICT src, uint8_t* HWY_RESTRICT q, float* HWY_RESTRICT scale,
                                 float* HWY_RESTRICT min) {
  FATHOM_UNROLL
  for (int j = 0; j < kQuantVectors; ++j)
    hn::StoreU(QuantsAt(src, j / kVectorsOf64, j % kVectorsOf64), QuantTag(), q + j * kQuantLanes);
  const GroupScales scales = ScalesOf(src);
  FATHOM_UNROLL
  for (int i = 0; i < kScaleVectors; ++i) {
    hn::StoreU(scales.scale[i], FloatTag(), scale + i * (16 / kScaleVectors));
    hn::StoreU(scales.min[i], FloatTag(), min + i * (16 / kScaleVectors));
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
