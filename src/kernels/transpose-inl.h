// Transposes blocks of 16 × 16 words. AVX-512 only. Included inside Highway's target loop.
#if defined(FATHOM_TRANSPOSE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_TRANSPOSE_INL
#undef FATHOM_TRANSPOSE_INL
#else
#define FATHOM_TRANSPOSE_INL
#endif

#include "kernels/vector.h"

#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// Exchanges words (i, j) and (j, i): first pairs of rows, then fours within 128 bits, then 128-bit blocks.
HWY_INLINE void Transpose(__m512i (&rows)[16]) {
  __m512i a[16], b[16];
  FATHOM_UNROLL
  for (int i = 0; i < 8; ++i) {
    a[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
    a[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
  }
  // b[4g + c]: in each 128-bit block m, column 4m + c of rows 4g…4g+3
  FATHOM_UNROLL
  for (int g = 0; g < 4; ++g) {
    b[4 * g] = _mm512_unpacklo_epi64(a[4 * g], a[4 * g + 2]);
    b[4 * g + 1] = _mm512_unpackhi_epi64(a[4 * g], a[4 * g + 2]);
    b[4 * g + 2] = _mm512_unpacklo_epi64(a[4 * g + 1], a[4 * g + 3]);
    b[4 * g + 3] = _mm512_unpackhi_epi64(a[4 * g + 1], a[4 * g + 3]);
  }
  FATHOM_UNROLL
  for (int c = 0; c < 4; ++c) {
    const __m512i low_even = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x88);  // blocks 0, 2 of rows 0…3 and 4…7
    const __m512i low_odd = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xdd);
    const __m512i high_even = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x88);
    const __m512i high_odd = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xdd);
    rows[c] = _mm512_shuffle_i32x4(low_even, high_even, 0x88);
    rows[4 + c] = _mm512_shuffle_i32x4(low_odd, high_odd, 0x88);
    rows[8 + c] = _mm512_shuffle_i32x4(low_even, high_even, 0xdd);
    rows[12 + c] = _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd);
  }
}

/// Transpose while loading or storing. from, to: [16, 16] words at addresses that are multiples of 64.
HWY_INLINE void LoadTransposed(const void* from, __m512i (&rows)[16]) {
  FATHOM_UNROLL
  for (int i = 0; i < 16; ++i) rows[i] = _mm512_load_si512(static_cast<const char*>(from) + 64 * i);
  Transpose(rows);
}
HWY_INLINE void StoreTransposed(__m512i (&rows)[16], void* to) {
  Transpose(rows);
  FATHOM_UNROLL
  for (int i = 0; i < 16; ++i) _mm512_store_si512(static_cast<char*>(to) + 64 * i, rows[i]);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
