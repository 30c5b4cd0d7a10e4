// Attention of many queries over pages on AMX tiles.
//
// Scores are Q·Kᵀ, with 16 queries by 32 dimensions of Q as operand A. A page's keys, tiles of 16 tokens with
// interleaved pairs of dimensions, are operand B as stored. Weighted values are P·V in the same way, with
// interleaved pairs of tokens. So a bfloat16 page without a rotation is read in place; others are unpacked into
// that layout once for all queries, rotated in float and rounded once. Queries, keys, weights and values are
// bfloat16; scores and all sums are float.
//
// Scores, softmax and values are computed for blocks of sixteen queries. The scores of the next block are started
// before the softmax of the current one, so that the tile unit and the vector units work at the same time.
#include "kernels/vector.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/amx_tiles.h"

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/amx_attend.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/attend_floats-inl.h"
#include "kernels/attend_quants-inl.h"
#include "kernels/transpose-inl.h"
// clang-format on

// Compiled only for AVX-512 targets: every machine with AMX has all of AVX-512.
#if FATHOM_AMX && HWY_TARGET == HWY_AVX3_DL
HWY_BEFORE_NAMESPACE();
#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512bf16")
namespace fathom {
namespace HWY_NAMESPACE {

void Attend(const AttendTask& task, float* scratch);  // vector_attend.cpp

constexpr int kBlock = kTileRows;             // queries that are processed together
constexpr int kTileDims = kTileRowBytes / 2;  // dimensions (or tokens) that one product sums over

constexpr int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// The working memory of one task, laid out in the caller's scratch (amx_attend_scratch); all aligned to 64 bytes.
struct TileScratch {
  int64_t blocks;                       // of 16 queries
  int64_t key_dim, value_dim, out_dim;  // padded: to 32, to 16, and by 16 partial sums
  uint16_t* queries;                    // [blocks · 16, key_dim] bfloat16, times log2 e
  float* max;                           // [blocks · 16]: maxima of the scores, as powers of two
  float* out;                           // [blocks · 16, out_dim]: values, then 16 partial sums of the weights
  float* scores[2];                     // [16, 64]: of the current block and of the next
  uint16_t* weights;                    // [16, 64] bfloat16
  uint16_t* keys;                       // [4, key_dim / 2, 16, 2]: an unpacked page
  uint16_t* values;                     // [32, value_dim, 2]
  float* floats;  // [64, key_dim or value_dim]: a quantised page as floats, before rounding to bfloat16

  TileScratch(const AttendTask& task, float* scratch)
      : blocks(RoundUp(static_cast<int64_t>(task.rows) * task.group, kBlock) / kBlock),
        key_dim(RoundUp(task.key_dim, kTileDims)),
        value_dim(RoundUp(task.value_dim, kTileRows)),
        out_dim(value_dim + 16) {
    const auto take = [&](int64_t floats) { return std::exchange(scratch, scratch + floats); };
    const int64_t rows = blocks * kBlock;
    queries = reinterpret_cast<uint16_t*>(take(rows * key_dim / 2));
    max = take(rows);
    out = take(rows * out_dim);
    scores[0] = take(kBlock * kPageTokens);
    scores[1] = take(kBlock * kPageTokens);
    weights = reinterpret_cast<uint16_t*>(take(kBlock * kPageTokens / 2));
    keys = reinterpret_cast<uint16_t*>(take(kPageTokens * key_dim / 2));
    values = reinterpret_cast<uint16_t*>(take(kPageTokens * value_dim / 2));
    floats = take(kPageTokens * std::max(key_dim, value_dim));
  }
};

/// Rounds 32 floats to bfloat16, in order.
HWY_INLINE __m512i Rounded(__m512 first, __m512 second) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}

/// Rounds 16 pairs of floats to pairs of bfloat16.
HWY_INLINE __m512i RoundedPairs(__m512 even, __m512 odd) {
  return _mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), Rounded(even, odd));
}

/// Returns 2^x for x ≤ 0; 0 for −∞. The polynomial of the fraction has a relative error of at most 8e-5 (Remez), a
/// small part of the rounding to bfloat16 that follows.
HWY_INLINE __m512 Exp2(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x − ⌊x⌋
  __m512 p = _mm512_set1_ps(0x1.3f96a4p-4f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.cefc4cp-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.64444cp-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.fff632p-1f));
  return _mm512_scalef_ps(p, x);
}

void LoadQueries(const AttendTask& task, TileScratch& work) {
  const __m512 log2e = _mm512_set1_ps(1.44269504f);
  const int64_t queries = static_cast<int64_t>(task.rows) * task.group;
  const auto half = [&](const float* q, int64_t left) {
    const __mmask16 lanes = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << std::max<int64_t>(left, 0)) - 1);
    return _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, q), log2e);
  };
  for (int64_t i = 0; i < work.blocks * kBlock; ++i) {
    for (int64_t d = 0; d < work.key_dim; d += kTileDims) {
      const int64_t left = i < queries ? task.key_dim - d : 0;
      const float* q = task.queries + (i < queries ? i * task.key_dim + d : 0);
      _mm512_store_si512(work.queries + i * work.key_dim + d, Rounded(half(q, left), half(q + 16, left - 16)));
    }
  }
}

/// Unpacks keys into tiles, rotated by the page's position.
template <class Pairs>
HWY_INLINE void UnpackKeys(const AttendTask& task, const PageRead& page, const Pairs& pairs, TileScratch& work) {
  const int rotating = page.cos ? task.rotary_dim / 2 : 0;
  for (int r = 0; r < task.key_dim / 2; ++r) {
    const __m512 c = _mm512_set1_ps(r < rotating ? page.cos[r] : 1.0f);
    const __m512 s = _mm512_set1_ps(r < rotating ? page.sin[r] : 0.0f);
    for (int t = 0; t < kPageTokens; t += 16) {
      FloatVec even, odd;
      pairs.Load(r, t, kPageTokens, even, odd);
      const __m512 rotated_even = _mm512_fnmadd_ps(odd.raw, s, _mm512_mul_ps(even.raw, c));
      const __m512 rotated_odd = _mm512_fmadd_ps(even.raw, s, _mm512_mul_ps(odd.raw, c));
      const int64_t at = key_pair_index(static_cast<int>(work.key_dim), r, t);
      _mm512_store_si512(work.keys + at * 2, RoundedPairs(rotated_even, rotated_odd));
    }
  }
}

/// Unpacks values from pairs of rows that `load` returns: [32, value_dim], zeros beyond the page's dimensions.
template <class Load>
HWY_INLINE void UnpackValues(const AttendTask& task, TileScratch& work, const Load& load) {
  for (int r = 0; r < kPageTokens / 2; ++r) {
    for (int c = 0; c < work.value_dim; c += 16) {
      const int left = task.value_dim - c;
      const __mmask16 lanes = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
      _mm512_store_si512(work.values + (r * work.value_dim + c) * 2, load(r, c, lanes));
    }
  }
}

/// A page in the layout of operand B.
struct PageOperands {
  const void* keys;
  const void* values;
};

template <int kBits>
PageOperands UnpackQuants(const AttendTask& task, const PageRead& page, TileScratch& work) {
  QuantKeyTile<kBits>(page.keys, task.key_dim, work.floats);
  UnpackKeys(task, page, TilePairs{work.floats}, work);
  QuantValueTile<kBits>(page.values, task.value_dim, work.floats);
  UnpackValues(task, work, [&](int r, int c, __mmask16 lanes) HWY_ATTR {
    const float* row = work.floats + static_cast<int64_t>(2 * r) * task.value_dim + c;
    return RoundedPairs(_mm512_maskz_loadu_ps(lanes, row), _mm512_maskz_loadu_ps(lanes, row + task.value_dim));
  });
  return {work.keys, work.values};
}

PageOperands Unpack(const AttendTask& task, const PageRead& page, const PageRead& next_page, TileScratch& work) {
  if (task.format == PageFormat::kQ8) return UnpackQuants<8>(task, page, work);
  if (task.format == PageFormat::kQ4) return UnpackQuants<4>(task, page, work);
  PageOperands operands{page.keys, page.values};
  const auto* keys = reinterpret_cast<const uint32_t*>(page.keys);
  const auto* values = reinterpret_cast<const uint32_t*>(page.values);
  if (page.cos || work.key_dim != task.key_dim) {
    UnpackKeys(task, page, PagePairs<Bf16Words, TileLayout>{keys, next_page.keys, {task.key_dim / 2}}, work);
    operands.keys = work.keys;
  }
  if (work.value_dim != task.value_dim) {
    UnpackValues(task, work, [&](int r, int c, __mmask16 lanes) HWY_ATTR {
      return _mm512_maskz_loadu_epi32(lanes, values + r * task.value_dim + c);
    });
    operands.values = work.values;
  }
  return operands;
}

/// Computes scores = Q·Kᵀ of a block of queries. queries: [16, key_dim]; scores: [16, 64].
FATHOM_AMX_TARGET HWY_INLINE void Scores(const uint16_t* queries, int64_t key_dim, const void* keys,
                                         float* scores) {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  const int64_t tile_stride = key_dim / 2 * kTileRowBytes;  // bytes from 16 tokens to the next
  const auto* k = static_cast<const std::byte*>(keys);
  for (int64_t d = 0; d < key_dim; d += kTileDims, k += kTileRows * kTileRowBytes) {
    tile_load<4>(queries + d, key_dim * sizeof(uint16_t));
    tile_load<5>(k, kTileRowBytes);
    tile_dp_bf16<0, 4, 5>();
    tile_load<6>(k + tile_stride, kTileRowBytes);
    tile_dp_bf16<1, 4, 6>();
    tile_load<7>(k + 2 * tile_stride, kTileRowBytes);
    tile_dp_bf16<2, 4, 7>();
    tile_load<5>(k + 3 * tile_stride, kTileRowBytes);
    tile_dp_bf16<3, 4, 5>();
  }
  constexpr size_t kStride = kPageTokens * sizeof(float);
  tile_store<0>(scores, kStride);
  tile_store<1>(scores + 16, kStride);
  tile_store<2>(scores + 32, kStride);
  tile_store<3>(scores + 48, kStride);
}

/// Adds the products of two tiles of weights with kCols tiles of values to out, from its column 0 on.
template <int kCols>
FATHOM_AMX_TARGET HWY_INLINE void AddValueTiles(const uint16_t* weights, const std::byte* values,
                                                size_t value_stride, float* out, size_t out_stride) {
  tile_load<0>(out, out_stride);
  if constexpr (kCols > 1) tile_load<1>(out + 16, out_stride);
  tile_load<4>(weights, kPageTokens * sizeof(uint16_t));
  tile_load<5>(weights + kTileDims, kPageTokens * sizeof(uint16_t));
  const std::byte* second = values + kTileRows * value_stride;
  tile_load<6>(values, value_stride);
  tile_dp_bf16<0, 4, 6>();
  if constexpr (kCols > 1) {
    tile_load<7>(values + kTileRowBytes, value_stride);
    tile_dp_bf16<1, 4, 7>();
  }
  tile_load<6>(second, value_stride);
  tile_dp_bf16<0, 5, 6>();
  if constexpr (kCols > 1) {
    tile_load<7>(second + kTileRowBytes, value_stride);
    tile_dp_bf16<1, 5, 7>();
  }
  tile_store<0>(out, out_stride);
  if constexpr (kCols > 1) tile_store<1>(out + 16, out_stride);
}

/// Computes out += P·V of a block of queries. weights: [16, 64]; out: [16, out_dim].
FATHOM_AMX_TARGET HWY_INLINE void AddValues(const TileScratch& work, const void* values, float* out) {
  const size_t value_stride = work.value_dim * 2 * sizeof(uint16_t), out_stride = work.out_dim * sizeof(float);
  const auto* v = static_cast<const std::byte*>(values);
  int64_t c = 0;
  for (; c + 32 <= work.value_dim; c += 32)
    AddValueTiles<2>(work.weights, v + c * 4, value_stride, out + c, out_stride);
  if (c < work.value_dim) AddValueTiles<1>(work.weights, v + c * 4, value_stride, out + c, out_stride);
}

/// Returns the largest score of each of 16 rows.
HWY_INLINE __m512 RowMaxima(const float* HWY_RESTRICT scores) {
  __m512i rows[16];
  FATHOM_UNROLL
  for (int r = 0; r < 16; ++r) {
    const float* row = scores + r * kPageTokens;
    rows[r] = _mm512_castps_si512(_mm512_max_ps(_mm512_max_ps(_mm512_load_ps(row), _mm512_load_ps(row + 16)),
                                                _mm512_max_ps(_mm512_load_ps(row + 32), _mm512_load_ps(row + 48))));
  }
  Transpose(rows);
  __m512 largest = _mm512_castsi512_ps(rows[0]);
  FATHOM_UNROLL
  for (int r = 1; r < 16; ++r) largest = _mm512_max_ps(largest, _mm512_castsi512_ps(rows[r]));
  return largest;
}

/// Replaces the masked scores of a block by weights relative to the running maxima. Outputs and sums are rescaled
/// where a maximum grows. max: [16]; out: [16, out_dim]; log_sums: null, or [16]: log2 of the sums of 2^score over
/// this page.
HWY_INLINE void Softmax(const float* HWY_RESTRICT scores, float* HWY_RESTRICT max, const TileScratch& work,
                        float* HWY_RESTRICT out, float* HWY_RESTRICT log_sums) {
  const __m512 minus_infinity = _mm512_set1_ps(kMinusInfinity);
  const __m512 before = _mm512_load_ps(max);
  const __m512 now = _mm512_max_ps(before, RowMaxima(scores));
  if (const __mmask16 grown = _mm512_cmp_ps_mask(now, before, _CMP_GT_OQ)) {
    alignas(64) float factor[16];
    _mm512_store_ps(factor, Exp2(_mm512_maskz_sub_ps(grown, before, now)));
    _mm512_store_ps(max, now);
    for (int r = 0; r < kBlock; ++r) {
      if (!(grown >> r & 1)) continue;
      const __m512 f = _mm512_set1_ps(factor[r]);
      for (int64_t c = 0; c < work.out_dim; c += 16) {
        float* at = out + r * work.out_dim + c;
        _mm512_store_ps(at, _mm512_mul_ps(_mm512_load_ps(at), f));
      }
    }
  }
  alignas(64) float shift[16];  // while no token has been visible, scores are −∞ and weights must be 0
  _mm512_store_ps(shift, _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(now, minus_infinity, _CMP_NEQ_UQ), now));
  for (int r = 0; r < kBlock; ++r) {
    const __m512 s = _mm512_set1_ps(shift[r]);
    const float* row = scores + r * kPageTokens;
    float* sums = out + r * work.out_dim + work.value_dim;
    const __m512 a = Exp2(_mm512_sub_ps(_mm512_load_ps(row), s));
    const __m512 b = Exp2(_mm512_sub_ps(_mm512_load_ps(row + 16), s));
    const __m512 c = Exp2(_mm512_sub_ps(_mm512_load_ps(row + 32), s));
    const __m512 d = Exp2(_mm512_sub_ps(_mm512_load_ps(row + 48), s));
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
    _mm512_store_ps(sums, _mm512_add_ps(_mm512_load_ps(sums), sum));
    if (log_sums) log_sums[r] = std::log2(_mm512_reduce_add_ps(sum)) + shift[r];
    _mm512_store_si512(work.weights + r * kPageTokens, Rounded(a, b));
    _mm512_store_si512(work.weights + r * kPageTokens + 32, Rounded(c, d));
  }
}

/// Writes the mask of each query of block b over a page and returns their union. For pages with row masks, and for
/// the last block.
HWY_NOINLINE inline uint64_t BlockMasks(const AttendTask& task, const PageRead& page, int64_t b,
                                        uint64_t* HWY_RESTRICT masks) {
  const int64_t first = b * kBlock, queries = static_cast<int64_t>(task.rows) * task.group;
  int64_t row = first / task.group, left = task.group - first % task.group;
  uint64_t any = 0;
  for (int r = 0; r < kBlock; ++r) {
    const bool exists = first + r < queries;
    masks[r] = !exists ? 0 : page.row_masks ? page.mask & page.row_masks[row] : page.mask;
    any |= masks[r];
    if (--left == 0) {
      ++row;
      left = task.group;
    }
  }
  return any;
}

/// Iterates over the blocks of queries to which a token of a page is visible, with their masks.
class VisibleBlocks {
 public:
  VisibleBlocks(const AttendTask& task, const PageRead& page, int64_t blocks)
      : task_(&task), page_(&page), blocks_(blocks) {}
  /// Advances to the next block; returns false if there is none.
  bool next() {
    while (++block_ < blocks_) {
      all_ = !page_->row_masks && page_->mask == ~uint64_t{0} &&
             (block_ + 1) * kBlock <= static_cast<int64_t>(task_->rows) * task_->group;
      if (all_ || BlockMasks(*task_, *page_, block_, masks_)) return true;
    }
    return false;
  }
  int64_t block() const { return block_; }
  /// Sets the scores of tokens outside the masks to −∞. scores: [16, 64].
  HWY_INLINE void mask(float* scores) const {
    for (int r = 0; !all_ && r < kBlock; ++r) {
      if (masks_[r] != ~uint64_t{0}) MaskScores(masks_[r], kPageTokens / Lanes(), scores + r * kPageTokens);
    }
  }

 private:
  const AttendTask* task_;
  const PageRead* page_;
  int64_t blocks_, block_ = -1;
  bool all_ = false;  // every token is visible to every query: there are no masks
  uint64_t masks_[kBlock];
};

/// Computes softmax and values of a block whose scores are complete.
FATHOM_AMX_TARGET HWY_INLINE void FinishBlock(const AttendTask& task, int64_t p, const VisibleBlocks& at,
                                              const void* values, float* scores, TileScratch& work) {
  at.mask(scores);
  const int64_t first = at.block() * kBlock;
  float log_sums[kBlock];
  Softmax(scores, work.max + first, work, work.out + first * work.out_dim, task.mass ? log_sums : nullptr);
  AddValues(work, values, work.out + first * work.out_dim);
  const int64_t rows = std::min<int64_t>(kBlock, static_cast<int64_t>(task.rows) * task.group - first);
  for (int64_t r = 0; task.mass && r < rows; ++r) task.mass[(first + r) * task.page_count + p] = log_sums[r];
}

FATHOM_AMX_TARGET void AttendPage(const AttendTask& task, int64_t p, const PageOperands& operands,
                                  TileScratch& work) {
  const auto scores = [&](const VisibleBlocks& at, float* to) HWY_ATTR {
    Scores(work.queries + at.block() * kBlock * work.key_dim, work.key_dim, operands.keys, to);
  };
  VisibleBlocks at(task, task.pages[p], work.blocks);
  bool more = at.next();
  if (more) scores(at, work.scores[0]);
  for (int buffer = 0; more; buffer ^= 1) {
    VisibleBlocks next = at;
    more = next.next();
    if (more) scores(next, work.scores[buffer ^ 1]);
    FinishBlock(task, p, at, operands.values, work.scores[buffer], work);
    at = next;
  }
}

/// Stores outputs divided by their sums, log-sum-exps and masses.
void StoreResults(const AttendTask& task, const TileScratch& work) {
  constexpr float kLn2 = 0.693147181f;
  for (int64_t i = 0; i < static_cast<int64_t>(task.rows) * task.group; ++i) {
    const float* out = work.out + i * work.out_dim;
    const float sum = _mm512_reduce_add_ps(_mm512_load_ps(out + work.value_dim));
    const bool any = !(sum <= 0);  // true for NaN
    const float log_sum = any ? work.max[i] + std::log2(sum) : kMinusInfinity;
    task.lse[i] = log_sum * kLn2;
    const float inverse = any ? 1.0f / sum : 0.0f;
    for (int d = 0; d < task.value_dim; ++d) task.out[i * task.value_dim + d] = out[d] * inverse;
    for (int64_t p = 0; task.mass && p < task.page_count; ++p) {
      float& mass = task.mass[i * task.page_count + p];
      mass = any ? std::exp2(mass - log_sum) : 0.0f;
    }
  }
  SetNonFiniteToNan(task);
}

FATHOM_AMX_TARGET void AmxAttend(const AttendTask& task, float* scratch) {
  const int64_t queries = static_cast<int64_t>(task.rows) * task.group;
  // Weight functions are computed from float scores: the power of softplus weights would amplify the rounding of
  // queries to bfloat16.
  if (queries < kTileQueries || task.format == PageFormat::kF32 || task.weights.apply || !task.out ||
      task.value_offset >= 0) {
    return Attend(task, scratch);
  }
  TileScratch work(task, scratch);
  LoadQueries(task, work);
  std::fill_n(work.max, work.blocks * kBlock, kMinusInfinity);
  std::fill_n(work.out, work.blocks * kBlock * work.out_dim, 0.0f);
  std::fill_n(work.keys, kPageTokens * work.key_dim, uint16_t{0});  // elements beyond the page's dimensions stay 0
  if (task.mass) std::fill_n(task.mass, queries * task.page_count, kMinusInfinity);
  const TileScope tiles;
  for (int64_t p = 0; p < task.page_count; ++p) {
    const PageRead& next_page = task.pages[std::min(p + 1, task.page_count - 1)];
    AttendPage(task, p, Unpack(task, task.pages[p], next_page, work), work);
  }
  StoreResults(task, work);
}

void FillAmxAttend(Kernels& table) { table.attend = AmxAttend; }

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
#pragma GCC pop_options
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillAmxAttend(Kernels& /*table*/) {}
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {

size_t amx_attend_scratch(int key_dim, int value_dim, int queries) {
  const auto up = [](size_t n, size_t to) { return (n + to - 1) / to * to; };
  const size_t rows = up(queries, 16), k = up(key_dim, 32), v = up(value_dim, 16);
  const size_t per_query = k / 2 + 1 + v + 16;                      // bfloat16 query, maximum, output and sums
  const size_t per_page = (k + v) / 2 + std::max(k, v);             // unpacked to floats, then to bfloat16
  return rows * per_query + kPageTokens * (per_page + 16 * 5 / 2);  // and two blocks of scores, weights
}

HWY_EXPORT(FillAmxAttend);
void fill_amx_attend(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillAmxAttend)(table); }

}  // namespace fathom
#endif
