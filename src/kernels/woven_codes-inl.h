// The codes of a run of 256 weights woven, as activations lie for vectors of 64 bytes (woven_column): vector j has
// the codes 8j … 8j + 7 of each group of 32 side by side. So the products of a group stay in its own two lanes from
// one vector to the next and are added up as integers, and scales meet them in the order in which they are
// unpacked. Included inside Highway's target loop.
#if defined(FATHOM_WOVEN_CODES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_WOVEN_CODES_INL
#undef FATHOM_WOVEN_CODES_INL
#else
#define FATHOM_WOVEN_CODES_INL
#endif

#include "kernels/unpack-inl.h"

#if FATHOM_VECTOR_TARGET && HWY_MAX_BYTES == 64
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// A run of codes. The first two vectors have the first 16 codes of each group of 32, the others the last 16.
struct WovenCodes {
  HWY_INLINE WovenCodes() {}  // an implicit one would be compiled without the target's instructions
  CodeVec vector[4];
};

/// Blocks 0 and 2, or 1 and 3, of 16 bytes of a, then those of b.
template <int kOdd>
HWY_INLINE __m512i EveryOtherBlock(__m512i a, __m512i b) {
  return _mm512_shuffle_i64x2(a, b, kOdd ? 0xdd : 0x88);
}

/// The two vectors of the first or the last 16 codes of all groups: those of groups 0 to 3 lie in `first`, of 4 to
/// 7 in `second`.
HWY_INLINE void WeaveHalf(__m512i first, __m512i second, int half, WovenCodes& woven) {
  const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0),
                odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
  woven.vector[2 * half] = CodeVec{_mm512_permutex2var_epi64(first, even, second)};
  woven.vector[2 * half + 1] = CodeVec{_mm512_permutex2var_epi64(first, odd, second)};
}

/// Nibbles of 16 bytes a group, low ones first: those of groups 0 to 3 in `first`, of 4 to 7 in `second`.
HWY_INLINE WovenCodes WeaveNibbles(__m512i first, __m512i second) {
  const __m512i mask = _mm512_set1_epi8(15);
  WovenCodes woven;
  WeaveHalf(_mm512_and_si512(first, mask), _mm512_and_si512(second, mask), 0, woven);
  WeaveHalf(_mm512_and_si512(_mm512_srli_epi16(first, 4), mask),
            _mm512_and_si512(_mm512_srli_epi16(second, 4), mask), 1, woven);
  return woven;
}

/// 16 bytes of each of four blocks.
template <class Block>
HWY_INLINE __m512i FourQuants(const Block* HWY_RESTRICT b) {
  const auto load = [&](int i) HWY_ATTR { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(b[i].quants)); };
  __m512i four = _mm512_castsi128_si512(load(0));
  four = _mm512_inserti32x4(four, load(1), 1);
  four = _mm512_inserti32x4(four, load(2), 2);
  return _mm512_inserti32x4(four, load(3), 3);
}
template <class Block>
HWY_INLINE WovenCodes WeaveSimpleNibbles(const Block* HWY_RESTRICT b) {
  return WeaveNibbles(FourQuants(b), FourQuants(b + 4));
}

template <class Block>
HWY_INLINE WovenCodes Woven(const Block* HWY_RESTRICT b) {
  const __m512i c0 = CodesAt(b, 0, 0).raw, c1 = CodesAt(b, 1, 0).raw, c2 = CodesAt(b, 2, 0).raw,
                c3 = CodesAt(b, 3, 0).raw;
  WovenCodes woven;
  WeaveHalf(EveryOtherBlock<0>(c0, c1), EveryOtherBlock<0>(c2, c3), 0, woven);
  WeaveHalf(EveryOtherBlock<1>(c0, c1), EveryOtherBlock<1>(c2, c3), 1, woven);
  return woven;
}
HWY_INLINE WovenCodes Woven(const BlockQ4_0* HWY_RESTRICT b) { return WeaveSimpleNibbles(b); }
HWY_INLINE WovenCodes Woven(const BlockQ4_1* HWY_RESTRICT b) { return WeaveSimpleNibbles(b); }
HWY_INLINE WovenCodes Woven(const BlockIQ4_NL* HWY_RESTRICT b) {
  WovenCodes woven = WeaveSimpleNibbles(b);
  FATHOM_UNROLL
  for (CodeVec& codes : woven.vector) codes = Iq4Codes(codes);
  return woven;
}
HWY_INLINE WovenCodes Woven(const BlockMXFP4* HWY_RESTRICT b) {
  WovenCodes woven = WeaveSimpleNibbles(b);
  FATHOM_UNROLL
  for (CodeVec& codes : woven.vector) codes = Fp4Codes(codes);
  return woven;
}
HWY_INLINE WovenCodes Woven(const BlockIQ4_XS* HWY_RESTRICT b) {
  WovenCodes woven = WeaveNibbles(_mm512_loadu_si512(b->quants), _mm512_loadu_si512(b->quants + 64));
  FATHOM_UNROLL
  for (CodeVec& codes : woven.vector) codes = Iq4Codes(codes);
  return woven;
}

/// The lower four bits of Q4_K and Q5_K: 32 bytes have the low nibbles of one group and the high ones of the next.
HWY_INLINE WovenCodes WeavePairedNibbles(const uint8_t* HWY_RESTRICT quants) {
  const __m512i a = _mm512_loadu_si512(quants), b = _mm512_loadu_si512(quants + 64), mask = _mm512_set1_epi8(15);
  WovenCodes woven;
  const auto weave = [&](__m512i bytes, int half) HWY_ATTR {
    const __m512i low = _mm512_and_si512(bytes, mask), high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
    woven.vector[2 * half] = CodeVec{_mm512_unpacklo_epi64(low, high)};
    woven.vector[2 * half + 1] = CodeVec{_mm512_unpackhi_epi64(low, high)};
  };
  weave(EveryOtherBlock<0>(a, b), 0);
  weave(EveryOtherBlock<1>(a, b), 1);
  return woven;
}
HWY_INLINE WovenCodes Woven(const BlockQ4_K* HWY_RESTRICT b) { return WeavePairedNibbles(b->quants); }
HWY_INLINE WovenCodes Woven(const BlockQ5_K* HWY_RESTRICT b) {
  WovenCodes woven = WeavePairedNibbles(b->quants);
  const __m512i groups = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), one = _mm512_set1_epi8(1);
  FATHOM_UNROLL
  for (int j = 0; j < 4; ++j) {
    int64_t eight;
    std::memcpy(&eight, b->high_bits + 8 * j, 8);
    const __m512i bits = _mm512_and_si512(_mm512_srlv_epi64(_mm512_set1_epi64(eight), groups), one);
    woven.vector[j] = hn::Or(woven.vector[j], CodeVec{_mm512_slli_epi16(bits, 4)});
  }
  return woven;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
