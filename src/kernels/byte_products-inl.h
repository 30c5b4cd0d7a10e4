// Products of vectors of bytes, quantised weights by 8-bit activations, on each instruction set. Included inside
// Highway's target loop.
#if defined(FATHOM_BYTE_PRODUCTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_BYTE_PRODUCTS_INL
#undef FATHOM_BYTE_PRODUCTS_INL
#else
#define FATHOM_BYTE_PRODUCTS_INL
#endif

#include "kernels/unpack-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
// Highway's AVX3_DL checks for VNNI at run time, but its compiler attributes (1.0.3) lack the 512-bit instructions.
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC push_options
#pragma GCC target("avx512vnni")
#endif
namespace fathom {
namespace HWY_NAMESPACE {

// VNNI multiplies four unsigned by four signed bytes per lane. Other x86 targets need three instructions, with
// intermediate 16-bit sums. All other targets multiply pairs of 16-bit numbers.
#undef FATHOM_VNNI
#define FATHOM_VNNI (HWY_TARGET == HWY_AVX3_DL)
#undef FATHOM_BYTES
#define FATHOM_BYTES HWY_ARCH_X86

// Only x86 without VNNI needs signed values.
#if FATHOM_BYTES && !FATHOM_VNNI
template <class Block>
inline constexpr bool kDotSigned = kSignedQuants<Block>;
#else
template <class Block>
inline constexpr bool kDotSigned = false;
#endif

#if FATHOM_BYTES
#if HWY_TARGET == HWY_AVX2
using ByteVec = __m256i;
HWY_INLINE __m256i LoadBytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
HWY_INLINE __m256i Signed(__m256i quants) { return _mm256_xor_si256(quants, _mm256_set1_epi8(-128)); }
HWY_INLINE __m256i Magnitude(__m256i v) { return _mm256_abs_epi8(v); }
HWY_INLINE __m256i WithSignOf(__m256i a, __m256i w) { return _mm256_sign_epi8(a, w); }
HWY_INLINE __m256i MultiplyBytes(__m256i w, __m256i a) { return _mm256_maddubs_epi16(w, a); }
HWY_INLINE __m256i Add16(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
HWY_INLINE __m256i Add32(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
HWY_INLINE __m256i Widen(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
#else
using ByteVec = __m512i;
HWY_INLINE __m512i LoadBytes(const void* p) { return _mm512_loadu_si512(p); }
HWY_INLINE __m512i Signed(__m512i quants) { return _mm512_xor_si512(quants, _mm512_set1_epi8(-128)); }
HWY_INLINE __m512i Magnitude(__m512i v) { return _mm512_abs_epi8(v); }
HWY_INLINE __m512i WithSignOf(__m512i a, __m512i w) {
  return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w), _mm512_setzero_si512(), a);
}
HWY_INLINE __m512i MultiplyBytes(__m512i w, __m512i a) { return _mm512_maddubs_epi16(w, a); }
HWY_INLINE __m512i Add16(__m512i a, __m512i b) { return _mm512_add_epi16(a, b); }
HWY_INLINE __m512i Add32(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
HWY_INLINE __m512i Widen(__m512i sums) { return _mm512_madd_epi16(sums, _mm512_set1_epi16(1)); }
#endif

#if !FATHOM_VNNI
/// The number of steps whose 16-bit sums cannot overflow. Each step adds two products of a value of kQuantBits bits
/// and a number of magnitude up to 127.
template <class Block>
constexpr int kNarrowSteps = kQuantBits<Block> <= 4   ? 8
                             : kQuantBits<Block> == 5 ? 4
                             : kQuantBits<Block> == 6 ? 2
                                                      : 1;

/// Returns 16-bit sums of pairs of products of quantised values, or of value − 128 if kSigned (kDotSigned), and
/// activations.
template <bool kSigned>
HWY_INLINE ByteVec MultiplyQuants(ByteVec quants, ByteVec a) {
  if constexpr (!kSigned) return MultiplyBytes(quants, a);
  const ByteVec w = Signed(quants);
  return MultiplyBytes(Magnitude(w), WithSignOf(a, w));
}
#endif
#endif

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();
#endif

#endif
