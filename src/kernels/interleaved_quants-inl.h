// Interleaves the quantised values of a super-block in the order of 8-bit activations for vectors of 64 bytes
// (interleaved_column): vector j has the values 8j … 8j + 7 of each group of 32, group by group. In all vectors the
// products of a group are in the same two lanes, so they are added as integers, and scales are in the order in
// which they are unpacked. Included inside Highway's target loop.
#if defined(FATHOM_INTERLEAVED_QUANTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_INTERLEAVED_QUANTS_INL
#undef FATHOM_INTERLEAVED_QUANTS_INL
#else
#define FATHOM_INTERLEAVED_QUANTS_INL
#endif

#include "kernels/unpack-inl.h"

#if FATHOM_VECTOR_TARGET && HWY_MAX_BYTES == 64
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// The values of a super-block. The first two vectors have the first 16 values of each group of 32, the others the
/// last 16.
struct InterleavedQuants {
  HWY_INLINE InterleavedQuants() {}  // an implicit one would be compiled without the target's instructions
  QuantVec vector[4];
};

/// Returns blocks 0 and 2 (or 1 and 3 if kOdd) of 16 bytes of a, followed by those of b.
template <int kOdd>
HWY_INLINE __m512i EveryOtherBlock(__m512i a, __m512i b) {
  return _mm512_shuffle_i64x2(a, b, kOdd ? 0xdd : 0x88);
}

/// Sets the two vectors of the first or the last 16 values of all groups. `first` has the values of groups 0 to 3,
/// `second` of groups 4 to 7.
HWY_INLINE void InterleaveHalf(__m512i first, __m512i second, int half, InterleavedQuants& interleaved) {
  const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0),
                odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
  interleaved.vector[2 * half] = QuantVec{_mm512_permutex2var_epi64(first, even, second)};
  interleaved.vector[2 * half + 1] = QuantVec{_mm512_permutex2var_epi64(first, odd, second)};
}

/// Interleaves nibbles, 16 bytes per group, low ones first. `first` has groups 0 to 3, `second` groups 4 to 7.
HWY_INLINE InterleavedQuants InterleaveNibbles(__m512i first, __m512i second) {
  const __m512i mask = _mm512_set1_epi8(15);
  InterleavedQuants interleaved;
  InterleaveHalf(_mm512_and_si512(first, mask), _mm512_and_si512(second, mask), 0, interleaved);
  InterleaveHalf(_mm512_and_si512(_mm512_srli_epi16(first, 4), mask),
                 _mm512_and_si512(_mm512_srli_epi16(second, 4), mask), 1, interleaved);
  return interleaved;
}

/// Loads 16 bytes of each of four blocks.
template <class Block>
HWY_INLINE __m512i FourQuants(const Block* HWY_RESTRICT b) {
  const auto load = [&](int i) HWY_ATTR { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(b[i].quants)); };
  __m512i four = _mm512_castsi128_si512(load(0));
  four = _mm512_inserti32x4(four, load(1), 1);
  four = _mm512_inserti32x4(four, load(2), 2);
  return _mm512_inserti32x4(four, load(3), 3);
}
template <class Block>
HWY_INLINE InterleavedQuants InterleaveSimpleNibbles(const Block* HWY_RESTRICT b) {
  return InterleaveNibbles(FourQuants(b), FourQuants(b + 4));
}

template <class Block>
HWY_INLINE InterleavedQuants Interleaved(const Block* HWY_RESTRICT b) {
  const __m512i c0 = QuantsAt(b, 0, 0).raw, c1 = QuantsAt(b, 1, 0).raw, c2 = QuantsAt(b, 2, 0).raw,
                c3 = QuantsAt(b, 3, 0).raw;
  InterleavedQuants interleaved;
  InterleaveHalf(EveryOtherBlock<0>(c0, c1), EveryOtherBlock<0>(c2, c3), 0, interleaved);
  InterleaveHalf(EveryOtherBlock<1>(c0, c1), EveryOtherBlock<1>(c2, c3), 1, interleaved);
  return interleaved;
}
HWY_INLINE InterleavedQuants Interleaved(const BlockQ4_0* HWY_RESTRICT b) { return InterleaveSimpleNibbles(b); }
HWY_INLINE InterleavedQuants Interleaved(const BlockQ4_1* HWY_RESTRICT b) { return InterleaveSimpleNibbles(b); }
HWY_INLINE InterleavedQuants Interleaved(const BlockIQ4_NL* HWY_RESTRICT b) {
  InterleavedQuants interleaved = InterleaveSimpleNibbles(b);
  FATHOM_UNROLL
  for (QuantVec& quants : interleaved.vector) quants = Iq4Quants(quants);
  return interleaved;
}
HWY_INLINE InterleavedQuants Interleaved(const BlockMXFP4* HWY_RESTRICT b) {
  InterleavedQuants interleaved = InterleaveSimpleNibbles(b);
  FATHOM_UNROLL
  for (QuantVec& quants : interleaved.vector) quants = Fp4Quants(quants);
  return interleaved;
}
HWY_INLINE InterleavedQuants Interleaved(const BlockIQ4_XS* HWY_RESTRICT b) {
  InterleavedQuants interleaved =
      InterleaveNibbles(_mm512_loadu_si512(b->quants), _mm512_loadu_si512(b->quants + 64));
  FATHOM_UNROLL
  for (QuantVec& quants : interleaved.vector) quants = Iq4Quants(quants);
  return interleaved;
}

/// Interleaves the lower four bits of Q4_K and Q5_K: 32 bytes have the low nibbles of one group and the high
/// nibbles of the next.
HWY_INLINE InterleavedQuants InterleavePairedNibbles(const uint8_t* HWY_RESTRICT quants) {
  const __m512i a = _mm512_loadu_si512(quants), b = _mm512_loadu_si512(quants + 64), mask = _mm512_set1_epi8(15);
  InterleavedQuants interleaved;
  const auto interleave = [&](__m512i bytes, int half) HWY_ATTR {
    const __m512i low = _mm512_and_si512(bytes, mask), high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
    interleaved.vector[2 * half] = QuantVec{_mm512_unpacklo_epi64(low, high)};
    interleaved.vector[2 * half + 1] = QuantVec{_mm512_unpackhi_epi64(low, high)};
  };
  interleave(EveryOtherBlock<0>(a, b), 0);
  interleave(EveryOtherBlock<1>(a, b), 1);
  return interleaved;
}
HWY_INLINE InterleavedQuants Interleaved(const BlockQ4_K* HWY_RESTRICT b) {
  return InterleavePairedNibbles(b->quants);
}
HWY_INLINE InterleavedQuants Interleaved(const BlockQ5_K* HWY_RESTRICT b) {
  InterleavedQuants interleaved = InterleavePairedNibbles(b->quants);
  const __m512i groups = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), one = _mm512_set1_epi8(1);
  FATHOM_UNROLL
  for (int j = 0; j < 4; ++j) {
    int64_t eight;
    std::memcpy(&eight, b->high_bits + 8 * j, 8);
    const __m512i bits = _mm512_and_si512(_mm512_srlv_epi64(_mm512_set1_epi64(eight), groups), one);
    interleaved.vector[j] = hn::Or(interleaved.vector[j], QuantVec{_mm512_slli_epi16(bits, 4)});
  }
  return interleaved;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
