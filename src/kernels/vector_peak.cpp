// Measures the limits of the machine, once per instruction set: multiply-adds in registers, and reading memory.
// Used by benchmarks, not by models.
#include "kernels/vector.h"

#include <cstring>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_peak.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/lanes-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3_DL  // as in byte_products-inl.h
#pragma GCC push_options
#pragma GCC target("avx512vnni")
#endif
namespace fathom {
namespace HWY_NAMESPACE {

// Independent sums: they hide the latency of the multiply-adds (6 cycles, two started per cycle) and leave
// registers for the other operands.
constexpr int kSums = HWY_TARGET == HWY_AVX2 ? 10 : 12;

/// Adds products of kStep neighbours per lane: the multiply-add of the quantised matmul.
#if HWY_TARGET == HWY_AVX3_DL
constexpr int kStep = 4;
HWY_INLINE IntVec DotStep(IntVec sums, IntVec a, IntVec b) {
  return IntVec{_mm512_dpbusd_epi32(sums.raw, a.raw, b.raw)};
}
#elif HWY_TARGET == HWY_AVX3  // 16-bit sums, which the matmul widens at intervals
constexpr int kStep = 4;
HWY_INLINE IntVec DotStep(IntVec sums, IntVec a, IntVec b) {
  return IntVec{_mm512_add_epi16(sums.raw, _mm512_maddubs_epi16(a.raw, b.raw))};
}
#elif HWY_TARGET == HWY_AVX2
constexpr int kStep = 4;
HWY_INLINE IntVec DotStep(IntVec sums, IntVec a, IntVec b) {
  return IntVec{_mm256_add_epi16(sums.raw, _mm256_maddubs_epi16(a.raw, b.raw))};
}
#else
constexpr int kStep = 2;
HWY_INLINE IntVec DotStep(IntVec sums, IntVec a, IntVec b) {
  const IntTag d;
  const hn::Repartition<int16_t, IntTag> d16;
  auto odd = hn::Zero(d);
  const auto even = hn::ReorderWidenMulAccumulate(d, hn::BitCast(d16, a), hn::BitCast(d16, b), sums, odd);
  return hn::Add(even, odd);
}
#endif

/// Repeats sums[i] = step(sums[i]) until n multiply-adds are done, `per_step` each, and returns their number. The
/// sums start with different values, or the compiler would merge them into one.
template <class V, class D, class Step>
HWY_INLINE int64_t Repeat(int64_t n, int64_t per_step, float* sink, D d, const Step& step) {
  V sums[kSums];
  FATHOM_UNROLL
  for (int i = 0; i < kSums; ++i) sums[i] = hn::Set(d, static_cast<hn::TFromD<D>>(i));
  int64_t done = 0;
  for (; done < n; done += kSums * per_step) {
    FATHOM_UNROLL
    for (int i = 0; i < kSums; ++i) sums[i] = step(sums[i]);
  }
  FATHOM_UNROLL
  for (int i = 0; i < kSums; ++i) *sink += static_cast<float>(hn::GetLane(sums[i]));
  return done;
}

/// The sums are also an operand: the compiler would move a constant product out of the loop.
int64_t Peak(int64_t n, float* sink) {
  const IntTag d;
  const auto a = hn::Set(d, 0x01010101);
  return Repeat<IntVec>(n, static_cast<int64_t>(hn::Lanes(d)) * kStep, sink, d,
                        [&](IntVec sums) HWY_ATTR { return DotStep(sums, a, sums); });
}

int64_t PeakFloat(int64_t n, float* sink) {
  const FloatTag d;
  const auto a = hn::Set(d, 0.001f);
  return Repeat<FloatVec>(n, static_cast<int64_t>(hn::Lanes(d)), sink, d,
                          [&](FloatVec sums) HWY_ATTR { return hn::MulAdd(a, a, sums); });
}

#if HWY_TARGET == HWY_AVX3_DL
/// Products of pairs of bfloat16. Uses an intrinsic: the instruction is not part of the target that Highway
/// compiles for.
__attribute__((target("avx512bf16"))) int64_t PeakBf16Pairs(int64_t n, float* sink) {
  const auto a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3c003c00));
  __m512 sums[kSums];
  FATHOM_UNROLL
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  int64_t done = 0;
  for (; done < n; done += kSums * 32) {
    FATHOM_UNROLL
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, a);
  }
  FATHOM_UNROLL
  for (int i = 0; i < kSums; ++i) *sink += _mm512_cvtss_f32(sums[i]);
  return done;
}
#endif

/// Reads four streams in parallel, with prefetches. This was the fastest variant for every size of memory page,
/// among one to four streams and prefetch distances from none to 8 KiB: 1.6 times as fast as a plain loop over
/// words on two cores of a server.
uint32_t Read(const std::byte* bytes, size_t n) {
  constexpr size_t kStreams = 4, kPrefetchDistance = 1024;
  const hn::CappedTag<uint32_t, 16> d;
  const size_t width = hn::Lanes(d) * sizeof(uint32_t), part = n / kStreams;
  auto a = hn::Zero(d), b = hn::Zero(d), c = hn::Zero(d), e = hn::Zero(d);
  const auto load = [&](const std::byte* at)
                        HWY_ATTR { return hn::LoadU(d, reinterpret_cast<const uint32_t*>(at)); };
  for (size_t i = 0; i < part; i += kReadStep / kStreams) {
    for (size_t stream = 0; stream < kStreams; ++stream) {
      const std::byte* at = bytes + stream * part + i;
      for (size_t j = 0; j < kReadStep / kStreams; j += 64) __builtin_prefetch(at + kPrefetchDistance + j);
      for (size_t j = 0; j < kReadStep / kStreams; j += 4 * width) {
        a = hn::Add(a, load(at + j));
        b = hn::Add(b, load(at + j + width));
        c = hn::Add(c, load(at + j + 2 * width));
        e = hn::Add(e, load(at + j + 3 * width));
      }
    }
  }
  // not SumOfLanes, which adds signed words at the end; these must not wrap around
  alignas(64) uint32_t lanes[16];
  hn::Store(hn::Add(hn::Add(a, b), hn::Add(c, e)), d, lanes);
  uint32_t sum = 0;
  for (size_t i = 0; i < hn::Lanes(d); ++i) sum += lanes[i];
  return sum;
}

void FillPeak(Kernels& table) {
  table.peak = Peak;
  table.peak_f32 = PeakFloat;
  table.peak_bf16 = nullptr;
#if HWY_TARGET == HWY_AVX3_DL
  if (__builtin_cpu_supports("avx512bf16")) table.peak_bf16 = PeakBf16Pairs;
#endif
  table.read = Read;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillPeak(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillPeak);
void fill_vector_peak(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillPeak)(table); }
}  // namespace fathom
#endif
