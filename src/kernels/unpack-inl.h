// Every quantised weight type as one form: w = scale · q − min with q in [0, 255], scale and min per group of 16
// weights. Included by vector_matmul.cpp inside Highway's target loop.
#if defined(FATHOM_UNPACK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_UNPACK_INL
#undef FATHOM_UNPACK_INL
#else
#define FATHOM_UNPACK_INL
#endif

#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/blocks.h"

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

HWY_INLINE float HalfToFloat(uint16_t half) {
  const hn::FixedTag<uint16_t, 4> du;
  const hn::FixedTag<hwy::float16_t, 4> dh;
  const hn::FixedTag<float, 4> df;
  return hn::GetLane(hn::PromoteTo(df, hn::BitCast(dh, hn::Set(du, half))));
}

/// Weights in a block, and how many share a scale.
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

using Bytes16 = hn::FixedTag<uint8_t, 16>;

HWY_INLINE uint64_t Join(uint32_t low, uint32_t high) { return low | static_cast<uint64_t>(high) << 32; }

/// Two words as 16 bytes, without a way through memory, where a load over two stores would wait for them.
HWY_INLINE hn::Vec<Bytes16> Bytes16Of(uint64_t low, uint64_t high) {
  const hn::FixedTag<uint64_t, 2> d;
  return hn::BitCast(Bytes16(), hn::OddEven(hn::Set(d, high), hn::Set(d, low)));
}

/// The codes of 32 weights.
struct Codes {
  hn::Vec<Bytes16> first, second;
};

/// 32 nibbles: low halves first, then high halves.
HWY_INLINE Codes Nibbles(const uint8_t* HWY_RESTRICT quants) {
  const Bytes16 d;
  const auto packed = hn::LoadU(d, quants);
  return {hn::And(packed, hn::Set(d, 15)), hn::ShiftRight<4>(packed)};
}

/// The same with fifth bits: bit i of the 32-bit word belongs to weight i.
HWY_INLINE Codes Nibbles(const uint8_t* HWY_RESTRICT quants, const uint8_t* HWY_RESTRICT high_bits) {
  const Bytes16 d;
  alignas(16) static constexpr uint8_t kByteOfLane[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
  alignas(16) static constexpr uint8_t kBitOfLane[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  uint32_t word;
  std::memcpy(&word, high_bits, 4);
  const auto bytes = hn::BitCast(d, hn::Set(hn::FixedTag<uint32_t, 4>(), word));
  const auto lanes = hn::Load(d, kByteOfLane), bits = hn::Load(d, kBitOfLane), fifth = hn::Set(d, 16);
  const auto low = hn::TableLookupBytes(bytes, lanes);
  const auto high = hn::TableLookupBytes(bytes, hn::Add(lanes, hn::Set(d, 2)));
  const Codes four = Nibbles(quants);
  return {hn::Or(four.first, hn::IfThenElseZero(hn::TestBit(low, bits), fifth)),
          hn::Or(four.second, hn::IfThenElseZero(hn::TestBit(high, bits), fifth))};
}

/// 32 codes of four bits through the table of the IQ4 types, moved to [0, 255] by adding 128.
HWY_INLINE Codes Iq4Codes(const uint8_t* HWY_RESTRICT quants) {
  const Bytes16 d;
  alignas(16) static constexpr uint8_t kTable[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                     129, 141, 153, 166, 181, 197, 217, 241};
  const auto table = hn::Load(d, kTable);
  const Codes four = Nibbles(quants);
  return {hn::TableLookupBytes(table, four.first), hn::TableLookupBytes(table, four.second)};
}

HWY_INLINE Codes CodesOf(const BlockQ8_0& b) {
  const Bytes16 d;
  const auto* quants = reinterpret_cast<const uint8_t*>(b.quants);
  return {hn::Xor(hn::LoadU(d, quants), hn::Set(d, 0x80)), hn::Xor(hn::LoadU(d, quants + 16), hn::Set(d, 0x80))};
}
HWY_INLINE Codes CodesOf(const BlockQ4_0& b) { return Nibbles(b.quants); }
HWY_INLINE Codes CodesOf(const BlockQ4_1& b) { return Nibbles(b.quants); }
HWY_INLINE Codes CodesOf(const BlockQ5_0& b) { return Nibbles(b.quants, b.high_bits); }
HWY_INLINE Codes CodesOf(const BlockQ5_1& b) { return Nibbles(b.quants, b.high_bits); }
HWY_INLINE Codes CodesOf(const BlockIQ4_NL& b) { return Iq4Codes(b.quants); }

/// What a simple block without a minimum of its own takes off its codes: w = scale · (code − offset).
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

// The large blocks keep their codes in runs of 32 bytes; a run is read in steps of at most 32 lanes.
using Run = hn::CappedTag<uint8_t, 32>;
using RunVec = hn::Vec<Run>;

/// Stores codes of q[0…] and q[32…]. With vectors of 64 bytes both go in one store, as wide as the loads that
/// follow: a load over two narrower stores would wait for them.
HWY_INLINE void StoreRuns(RunVec first, RunVec second, uint8_t* q) {
#if HWY_MAX_BYTES == 64
  const hn::FixedTag<uint8_t, 64> d;
  hn::StoreU(hn::Combine(d, second, first), d, q);
#else
  hn::StoreU(first, Run(), q);
  hn::StoreU(second, Run(), q + 32);
#endif
}

/// Stores 64 codes, for the same reason at once.
HWY_INLINE void StoreCodes(const Codes& a, const Codes& b, uint8_t* q) {
#if HWY_MAX_BYTES == 64
  StoreRuns(hn::Combine(Run(), a.second, a.first), hn::Combine(Run(), b.second, b.first), q);
#else
  const Bytes16 d;
  hn::StoreU(a.first, d, q);
  hn::StoreU(a.second, d, q + 16);
  hn::StoreU(b.first, d, q + 32);
  hn::StoreU(b.second, d, q + 48);
#endif
}

/// out[i] = factor · halves[i / 2] for 16 values.
HWY_INLINE void ScaleHalves(const uint16_t (&halves)[8], float factor, float* HWY_RESTRICT out) {
#if HWY_MAX_BYTES == 64
  const auto join = [&](int i) {
    return Join(halves[i] | static_cast<uint32_t>(halves[i + 1]) << 16,
                halves[i + 2] | static_cast<uint32_t>(halves[i + 3]) << 16);
  };
  const hn::FixedTag<uint16_t, 8> d16;
  const hn::FixedTag<hwy::float16_t, 16> dh;
  const hn::FixedTag<float, 16> d;
  const auto eight = hn::BitCast(d16, Bytes16Of(join(0), join(4)));
  const auto doubled = hn::Combine(hn::FixedTag<uint16_t, 16>(), hn::InterleaveUpper(d16, eight, eight),
                                   hn::InterleaveLower(eight, eight));
  hn::StoreU(hn::Mul(hn::PromoteTo(d, hn::BitCast(dh, doubled)), hn::Set(d, factor)), d, out);
#else
  for (int i = 0; i < 8; ++i) out[2 * i] = out[2 * i + 1] = factor * HalfToFloat(halves[i]);
#endif
}

/// n weights (at most 256) of simple blocks; see UnpackRun.
template <class Block>
HWY_INLINE void UnpackSimple(const Block* HWY_RESTRICT src, int64_t n, uint8_t* HWY_RESTRICT q,
                             float* HWY_RESTRICT scale, float* HWY_RESTRICT min) {
  const int64_t blocks = n / kBlock;
  uint16_t scales[8] = {}, minimums[8] = {};
  for (int64_t i = 0; i < blocks; ++i) {
    scales[i] = src[i].scale;
    if constexpr (kOffset<Block> == 0) minimums[i] = src[i].minimum;
  }
  for (int64_t i = 0; i < blocks; i += 2) {
    const Codes first = CodesOf(src[i]);
    StoreCodes(first, i + 1 < blocks ? CodesOf(src[i + 1]) : first, q + i * kBlock);
  }
  ScaleHalves(scales, 1, scale);
  if constexpr (kOffset<Block> == 0) {
    ScaleHalves(minimums, -1, min);
  } else {
    ScaleHalves(scales, kOffset<Block>, min);
  }
}

/// out[i] = factor · bytes[i] for 16 bytes.
template <class Byte>
HWY_INLINE void ScaleBytes(const Byte* HWY_RESTRICT bytes, float factor, float* HWY_RESTRICT out) {
  const hn::CappedTag<float, 16> d;
  const hn::Rebind<int32_t, decltype(d)> di;
  const hn::Rebind<Byte, decltype(d)> db;
  for (size_t i = 0; i < 16; i += hn::Lanes(d)) {
    hn::StoreU(hn::Mul(hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(db, bytes + i))), hn::Set(d, factor)), d,
               out + i);
  }
}

HWY_INLINE void UnpackQuants(const BlockQ2_K& b, uint8_t* HWY_RESTRICT q) {
  const Run d;
  const auto two = hn::Set(d, 3);
  for (size_t l = 0; l < 32; l += hn::Lanes(d)) {
    for (int h = 0; h < 2; ++h) {
      const auto v = hn::LoadU(d, b.quants + 32 * h + l);
      StoreRuns(hn::And(v, two), hn::And(hn::ShiftRight<2>(v), two), q + 128 * h + l);
      StoreRuns(hn::And(hn::ShiftRight<4>(v), two), hn::ShiftRight<6>(v), q + 128 * h + 64 + l);
    }
  }
}

HWY_INLINE void Unpack(const BlockQ2_K& b, uint8_t* HWY_RESTRICT q, float* HWY_RESTRICT scale,
                       float* HWY_RESTRICT min) {
  UnpackQuants(b, q);
  const Bytes16 d;
  alignas(16) uint8_t scales[16], minimums[16];
  const auto packed = hn::LoadU(d, b.scales);
  hn::Store(hn::And(packed, hn::Set(d, 15)), d, scales);
  hn::Store(hn::ShiftRight<4>(packed), d, minimums);
  ScaleBytes(scales, HalfToFloat(b.scale), scale);
  ScaleBytes(minimums, HalfToFloat(b.minimum), min);
}

HWY_INLINE void UnpackQuants(const BlockQ3_K& b, uint8_t* HWY_RESTRICT q) {
  const Run d;
  const auto two = hn::Set(d, 3), third = hn::Set(d, 4);
  for (size_t l = 0; l < 32; l += hn::Lanes(d)) {
    auto high = hn::LoadU(d, b.high_bits + l);  // bit 0 belongs to the first run
    for (int h = 0; h < 2; ++h) {
      const auto v = hn::LoadU(d, b.quants + 32 * h + l);
      StoreRuns(hn::Or(hn::And(v, two), hn::And(hn::ShiftLeft<2>(high), third)),
                hn::Or(hn::And(hn::ShiftRight<2>(v), two), hn::And(hn::ShiftLeft<1>(high), third)),
                q + 128 * h + l);
      StoreRuns(hn::Or(hn::And(hn::ShiftRight<4>(v), two), hn::And(high, third)),
                hn::Or(hn::ShiftRight<6>(v), hn::And(hn::ShiftRight<1>(high), third)), q + 128 * h + 64 + l);
      high = hn::ShiftRight<4>(high);
    }
  }
}

HWY_INLINE void Unpack(const BlockQ3_K& b, uint8_t* HWY_RESTRICT q, float* HWY_RESTRICT scale,
                       float* HWY_RESTRICT min) {
  UnpackQuants(b, q);
  uint64_t low;   // 16 low halves of six-bit scales: those of scales 0…7 are the low nibbles
  uint32_t high;  // their two high bits
  std::memcpy(&low, b.scales, 8);
  std::memcpy(&high, b.scales + 8, 4);
  constexpr uint64_t kNibbles = 0x0f0f0f0f0f0f0f0f;
  constexpr uint32_t kTwoBits = 0x30303030;
  const Bytes16 d8;
  const auto six = Bytes16Of((low & kNibbles) | Join((high << 4) & kTwoBits, (high << 2) & kTwoBits),
                             ((low >> 4) & kNibbles) | Join(high & kTwoBits, (high >> 2) & kTwoBits));
  alignas(16) int8_t scales[16];
  const hn::FixedTag<int8_t, 16> d;
  hn::Store(hn::BitCast(d, hn::Sub(six, hn::Set(d8, 32))), d, scales);
  const float s = HalfToFloat(b.scale);
  ScaleBytes(scales, s, scale);
  ScaleBytes(scales, 4 * s, min);
}

/// The 8 scales and 8 minimums of Q4_K and Q5_K, each doubled to groups of 16.
HWY_INLINE void UnpackSixBitScales(const uint8_t* packed, float d, float m, float* HWY_RESTRICT scale,
                                   float* HWY_RESTRICT min) {
  uint32_t a, b, c;
  std::memcpy(&a, packed, 4);
  std::memcpy(&b, packed + 4, 4);
  std::memcpy(&c, packed + 8, 4);
  const auto six = Bytes16Of(Join(a & 0x3f3f3f3f, (c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030)),
                             Join(b & 0x3f3f3f3f, ((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030)));
  const Bytes16 d8;
  alignas(16) uint8_t doubled[32];
  hn::Store(hn::InterleaveLower(d8, six, six), d8, doubled);
  hn::Store(hn::InterleaveUpper(d8, six, six), d8, doubled + 16);
  ScaleBytes(doubled, d, scale);
  ScaleBytes(doubled + 16, m, min);
}

HWY_INLINE void Unpack(const BlockQ4_K& b, uint8_t* HWY_RESTRICT q, float* scale, float* min) {
  const Run d;
  for (size_t l = 0; l < 32; l += hn::Lanes(d)) {
    for (int c = 0; c < 4; ++c) {
      const auto packed = hn::LoadU(d, b.quants + 32 * c + l);
      StoreRuns(hn::And(packed, hn::Set(d, 15)), hn::ShiftRight<4>(packed), q + 64 * c + l);
    }
  }
  UnpackSixBitScales(b.scales, HalfToFloat(b.scale), HalfToFloat(b.minimum), scale, min);
}

HWY_INLINE void Unpack(const BlockQ5_K& b, uint8_t* HWY_RESTRICT q, float* scale, float* min) {
  const Run d;
  const auto fifth = hn::Set(d, 16);
  for (size_t l = 0; l < 32; l += hn::Lanes(d)) {
    auto high = hn::LoadU(d, b.high_bits + l);  // bits 0 and 1 belong to the first two runs
    for (int c = 0; c < 4; ++c) {
      const auto packed = hn::LoadU(d, b.quants + 32 * c + l);
      StoreRuns(hn::Or(hn::And(packed, hn::Set(d, 15)), hn::And(hn::ShiftLeft<4>(high), fifth)),
                hn::Or(hn::ShiftRight<4>(packed), hn::And(hn::ShiftLeft<3>(high), fifth)), q + 64 * c + l);
      high = hn::ShiftRight<2>(high);
    }
  }
  UnpackSixBitScales(b.scales, HalfToFloat(b.scale), HalfToFloat(b.minimum), scale, min);
}

HWY_INLINE void Unpack(const BlockQ6_K& b, uint8_t* HWY_RESTRICT q, float* HWY_RESTRICT scale,
                       float* HWY_RESTRICT min) {
  const Run d;
  const auto four = hn::Set(d, 15), top = hn::Set(d, 0x30);
  for (size_t l = 0; l < 32; l += hn::Lanes(d)) {
    for (int h = 0; h < 2; ++h) {
      const auto first = hn::LoadU(d, b.low_bits + 64 * h + l), second = hn::LoadU(d, b.low_bits + 64 * h + 32 + l);
      const auto high = hn::LoadU(d, b.high_bits + 32 * h + l);
      StoreRuns(hn::Or(hn::And(first, four), hn::And(hn::ShiftLeft<4>(high), top)),
                hn::Or(hn::And(second, four), hn::And(hn::ShiftLeft<2>(high), top)), q + 128 * h + l);
      StoreRuns(hn::Or(hn::ShiftRight<4>(first), hn::And(high, top)),
                hn::Or(hn::ShiftRight<4>(second), hn::And(hn::ShiftRight<2>(high), top)), q + 128 * h + 64 + l);
    }
  }
  const float s = HalfToFloat(b.scale);
  ScaleBytes(b.scales, s, scale);
  ScaleBytes(b.scales, 32 * s, min);
}

HWY_INLINE void Unpack(const BlockIQ4_XS& b, uint8_t* HWY_RESTRICT q, float* scale, float* min) {
  for (int s = 0; s < 8; s += 2)
    StoreCodes(Iq4Codes(b.quants + 16 * s), Iq4Codes(b.quants + 16 * s + 16), q + 32 * s);
  uint64_t six = 0;  // 8 six-bit scales in bytes
  for (int s = 0; s < 8; ++s) {
    const uint64_t low = (b.scales_low[s / 2] >> (4 * (s % 2))) & 15, high = (b.scales_high >> (2 * s)) & 3;
    six |= (low | high << 4) << (8 * s);
  }
  const Bytes16 d8;
  const hn::FixedTag<int8_t, 16> d;
  const auto bytes = Bytes16Of(six, six);
  alignas(16) int8_t scales[16];
  hn::Store(hn::BitCast(d, hn::Sub(hn::InterleaveLower(bytes, bytes), hn::Set(d8, 32))), d, scales);
  const float s = HalfToFloat(b.scale);
  ScaleBytes(scales, s, scale);
  ScaleBytes(scales, 128 * s, min);
}

/// n weights (at most 256, whole blocks) from `src`: q: [256], scale, min: [16]; beyond n they may hold anything
/// finite.
template <class Block>
HWY_INLINE void UnpackRun(const Block* HWY_RESTRICT src, int64_t n, uint8_t* HWY_RESTRICT q,
                          float* HWY_RESTRICT scale, float* HWY_RESTRICT min) {
  if constexpr (kBlockWeights<Block> == kBlock) {
    UnpackSimple(src, n, q, scale, min);
  } else {
    Unpack(*src, q, scale, min);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
