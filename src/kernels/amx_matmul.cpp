// Matrix products on AMX tiles: y = x·Wᵀ for many rows of activations, every weight type.
//
// W is unpacked, a panel at a time, to bfloat16 rows, which are operand A of the tile product without
// rearrangement. The activations are operand B, packed once for all products that share them. So W, the larger of
// the two, is never transposed; the sums come out as [rows of W, tokens] and are transposed when they are stored.
//
// Precision: quantised weights and their activations are rounded to bfloat16, less than half the error of 8-bit
// activations. Float weights keep their precision: the rounding remainders of the activations, and of F16 and F32
// weights, are multiplied as well (high·high + high·low + low·high), which leaves an error of 2⁻¹⁶ of each factor.
#include "kernels/vector.h"

#include <algorithm>
#include <cstring>

#include "kernels/amx_tiles.h"

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/amx_matmul.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/panels-inl.h"
#include "kernels/unpack-inl.h"
#include "kernels/float_matmul-inl.h"
#include "kernels/transpose-inl.h"
// clang-format on

// Compiled only for AVX-512 targets: every machine with AMX has all of AVX-512.
#if FATHOM_AMX && HWY_TARGET == HWY_AVX3_DL
HWY_BEFORE_NAMESPACE();
#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512bf16")
namespace fathom {
namespace HWY_NAMESPACE {

constexpr int64_t kTileElements = kTileBytes / 2;  // of bfloat16
constexpr int64_t kPairRows = 2 * kTileRows;       // of W, or of activations: two tiles
// A panel of 32 rows by this many columns takes 32 KiB and stays in the L1 cache while all activations are
// multiplied with it.
constexpr int64_t kBlockColumns = 512;
// The sums of this many rows and tokens (512 KiB) and the activations of a block of columns (as much) stay in the
// L2 cache while the panels of those rows are multiplied.
constexpr int64_t kBlockRows = 256;
constexpr int64_t kBlockTokens = 512;

/// 32 rows of W by a block of columns: [columns/32, 2, 16, 32], the tiles in the order of their use.
struct TilePanel {
  alignas(64) uint16_t high[kPairRows * kBlockColumns];
  alignas(64) uint16_t low[kPairRows * kBlockColumns];  // the rounding remainders; F16 and F32 only
};

HWY_INLINE uint16_t* PanelRow(uint16_t* panel, int64_t row, int64_t column) {
  return panel + (column / 32 * 2 + row / kTileRows) * kTileElements + row % kTileRows * 32;
}

/// Rounds 32 floats to one row of a tile.
HWY_INLINE __m512i Rounded(FloatVec first, FloatVec second) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.raw, first.raw));
}
/// Returns the rounding remainders of the floats, themselves rounded.
HWY_INLINE __m512i Remainder(FloatVec first, FloatVec second, __m512i rounded) {
  const auto widened = [](__m256i half) {
    return FloatVec{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
  };
  return Rounded(hn::Sub(first, widened(_mm512_castsi512_si256(rounded))),
                 hn::Sub(second, widened(_mm512_extracti64x4_epi64(rounded, 1))));
}

/// Unpacks n columns of a row of quantised weights to rows of tiles.
template <class Block>
HWY_INLINE void UnpackRow(const Block* HWY_RESTRICT row, int64_t n, int64_t r, TilePanel& panel) {
  const FloatTag d;
  const hn::Rebind<int32_t, FloatTag> di;
  const hn::Rebind<uint8_t, FloatTag> d8;
  alignas(64) uint8_t q[kSuperBlock];
  alignas(64) float scale[16], min[16];
  ForSuperBlocks(row, n, [&](const Block* HWY_RESTRICT super_block, int64_t k) {
    UnpackSuperBlock(super_block, q, scale, min);
    // A scale is broadcast by its load from memory. Without the barrier, the compiler would shuffle it out of a
    // register, which costs a third more.
    asm volatile("" : : : "memory");
    const auto weights = [&](int i) {
      const auto quants = hn::ConvertTo(d, hn::PromoteTo(di, hn::Load(d8, q + 16 * i)));
      return hn::MulSub(quants, hn::Set(d, scale[i]), hn::Set(d, min[i]));
    };
    uint16_t* out = PanelRow(panel.high, r, k);
    const auto put = [&](int t) {
      _mm512_store_si512(out + 2 * t * kTileElements, Rounded(weights(2 * t), weights(2 * t + 1)));
    };
    const int64_t left = n - k;
    FATHOM_UNROLL
    for (int t = 0; t < kSuperBlock / 32; ++t) {
      if (32 * t < left) put(t);
    }
  });
}

/// Unpacks float weights in the same way; n may be any number.
template <class T>
HWY_INLINE void UnpackFloats(const T* HWY_RESTRICT row, int64_t n, int64_t r, TilePanel& panel) {
  for (int64_t k = 0; k < n; k += 32) {
    T last[32] = {};
    const T* from = row + k;
    if (n - k < 32) {
      std::copy_n(from, n - k, last);
      from = last;
    }
    const FloatVec first = LoadFloats(from), second = LoadFloats(from + 16);
    const __m512i high = Rounded(first, second);
    _mm512_store_si512(PanelRow(panel.high, r, k), high);
    if constexpr (!std::is_same_v<T, hwy::bfloat16_t>)
      _mm512_store_si512(PanelRow(panel.low, r, k), Remainder(first, second, high));
  }
}

/// Defines how a weight type is unpacked to tiles, and which products its precision needs.
template <class Block>
struct TileType {
  static constexpr bool kLowActivations = false, kLowWeights = false;
  static HWY_INLINE void Unpack(const std::byte* row, int64_t column, int64_t n, int64_t r, TilePanel& panel) {
    UnpackRow(reinterpret_cast<const Block*>(row) + column / kBlockWeights<Block>, n, r, panel);
  }
};
template <class T>
struct FloatTileType {
  static constexpr bool kLowActivations = true, kLowWeights = !std::is_same_v<T, hwy::bfloat16_t>;
  static HWY_INLINE void Unpack(const std::byte* row, int64_t column, int64_t n, int64_t r, TilePanel& panel) {
    UnpackFloats(reinterpret_cast<const T*>(row) + column, n, r, panel);
  }
};
template <>
struct TileType<float> : FloatTileType<float> {};
template <>
struct TileType<hwy::float16_t> : FloatTileType<hwy::float16_t> {};
template <>
struct TileType<hwy::bfloat16_t> : FloatTileType<hwy::bfloat16_t> {};

/// Unpacks rows [first, first + rows) and columns [column, column + n) of W; missing rows of the panel are zero.
template <class Type>
HWY_INLINE void UnpackPanel(const Matrix& w, int64_t first, int64_t rows, int64_t column, int64_t n,
                            TilePanel& panel) {
  const size_t stride = row_bytes(w.type, w.cols);
  for (int64_t r = 0; r < rows; ++r) Type::Unpack(w.data + (first + r) * stride, column, n, r, panel);
  for (int64_t r = rows; r < kPairRows; ++r) {
    for (int64_t k = 0; k < n; k += 32) {
      std::memset(PanelRow(panel.high, r, k), 0, kTileRowBytes);
      if (Type::kLowWeights) std::memset(PanelRow(panel.low, r, k), 0, kTileRowBytes);
    }
  }
}

/// Adds to tiles 0…3 the products of two tiles of rows of W with kTokenTiles tiles of activations, over `steps`
/// steps of 32 columns.
template <int kTokenTiles>
HWY_INLINE void MultiplySteps(const uint16_t* HWY_RESTRICT a, const uint16_t* HWY_RESTRICT first,
                              const uint16_t* HWY_RESTRICT second, int64_t steps) {
  for (int64_t s = 0; s < steps; ++s) {
    tile_load<4>(a + 2 * s * kTileElements, kTileRowBytes);
    tile_load_stream<6>(first + s * kTileElements, kTileRowBytes);
    tile_dp_bf16<0, 4, 6>();
    if constexpr (kTokenTiles == 2) {
      tile_load_stream<7>(second + s * kTileElements, kTileRowBytes);
      tile_dp_bf16<1, 4, 7>();
    }
    tile_load<5>(a + (2 * s + 1) * kTileElements, kTileRowBytes);
    tile_dp_bf16<2, 5, 6>();
    if constexpr (kTokenTiles == 2) tile_dp_bf16<3, 5, 7>();
  }
}

/// Adds the products of a panel with 16 or 32 tokens, for its columns, from `column` on. `sums`: [4, 16, 16] holds
/// the sums between calls.
template <class Type, int kTokenTiles>
HWY_INLINE void MultiplyPanel(const TilePanel& panel, const ActivationRows& x, int64_t token, int64_t column,
                              int64_t n, float* HWY_RESTRICT sums) {
  constexpr int64_t kSum = kTileRows * kTileRows;
  if (column == 0) {
    tile_zero<0>();
    tile_zero<1>();
    tile_zero<2>();
    tile_zero<3>();
  } else {
    tile_load<0>(sums, kTileRowBytes);
    tile_load<1>(sums + kSum, kTileRowBytes);
    tile_load<2>(sums + 2 * kSum, kTileRowBytes);
    tile_load<3>(sums + 3 * kSum, kTileRowBytes);
  }
  const int64_t steps = (n + 31) / 32;
  const int64_t stride = tile_columns(x.cols) * kTileRows;  // from one tile of tokens to the next
  const int64_t at = token / kTileRows * stride + column * kTileRows;
  MultiplySteps<kTokenTiles>(panel.high, x.tiles + at, x.tiles + at + stride, steps);
  if constexpr (Type::kLowActivations)
    MultiplySteps<kTokenTiles>(panel.high, x.tiles_low + at, x.tiles_low + at + stride, steps);
  if constexpr (Type::kLowWeights)
    MultiplySteps<kTokenTiles>(panel.low, x.tiles + at, x.tiles + at + stride, steps);
  tile_store<0>(sums, kTileRowBytes);
  tile_store<1>(sums + kSum, kTileRowBytes);
  tile_store<2>(sums + 2 * kSum, kTileRowBytes);
  tile_store<3>(sums + 3 * kSum, kTileRowBytes);
}

/// Transposes the sums of a panel and up to 32 tokens into y[token, row].
HWY_INLINE void StoreTransposed(const float* HWY_RESTRICT sums, int64_t rows, int64_t tokens, float* HWY_RESTRICT y,
                                int64_t y_stride) {
  for (int64_t a = 0; a * kTileRows < rows; ++a) {
    const int64_t width = std::min<int64_t>(kTileRows, rows - a * kTileRows);
    const auto mask = static_cast<__mmask16>((1u << width) - 1);
    for (int64_t b = 0; b * kTileRows < tokens; ++b) {
      __m512i block[kTileRows];
      LoadTransposed(sums + (2 * a + b) * kTileRows * kTileRows, block);
      const int64_t height = std::min<int64_t>(kTileRows, tokens - b * kTileRows);
      for (int64_t t = 0; t < height; ++t)
        _mm512_mask_storeu_epi32(y + (b * kTileRows + t) * y_stride + a * kTileRows, mask, block[t]);
    }
  }
}

/// Prefetches the bytes of a panel: rows of W are far apart, so the hardware prefetcher does not predict them.
HWY_INLINE void PrefetchPanel(const Matrix& w, int64_t first, int64_t rows, int64_t column, int64_t n) {
  const size_t stride = row_bytes(w.type, w.cols);
  const size_t begin = row_bytes(w.type, column), bytes = row_bytes(w.type, n);
  for (int64_t r = first; r < first + rows; ++r) {
    for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(w.data + r * stride + begin + at, 0, 2);
  }
}

/// Multiplies rows [begin, end) of W, at most kBlockRows, with tokens [token, token_end), at most kBlockTokens.
template <class Type>
HWY_NOINLINE void MultiplyBlock(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, int64_t token,
                                int64_t token_end, float* HWY_RESTRICT y, int64_t y_stride) {
  constexpr int64_t kSums = kPairRows * kPairRows;
  TilePanel panel;
  alignas(64) float sums[kBlockRows / kPairRows * (kBlockTokens / kPairRows) * kSums];
  for (int64_t column = 0; column < w.cols; column += kBlockColumns) {
    const int64_t n = std::min(kBlockColumns, w.cols - column);
    for (int64_t r = begin; r < end; r += kPairRows) {
      const int64_t rows = std::min(kPairRows, end - r);
      UnpackPanel<Type>(w, r, rows, column, n, panel);
      if (r + kPairRows < end) PrefetchPanel(w, r + kPairRows, std::min(kPairRows, end - r - kPairRows), column, n);
      for (int64_t t = token; t < token_end; t += kPairRows) {
        float* block =
            sums + ((r - begin) / kPairRows * (kBlockTokens / kPairRows) + (t - token) / kPairRows) * kSums;
        const int64_t tokens = std::min(kPairRows, token_end - t);
        if (tokens > kTileRows) {
          MultiplyPanel<Type, 2>(panel, x, t, column, n, block);
        } else {
          MultiplyPanel<Type, 1>(panel, x, t, column, n, block);
        }
        if (column + n == w.cols) StoreTransposed(block, rows, tokens, y + t * y_stride + r, y_stride);
      }
    }
  }
}

template <class Block>
void MatmulTiles(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  const TileScope tiles;
  for (int64_t token = 0; token < x.rows; token += kBlockTokens) {
    for (int64_t r = begin; r < end; r += kBlockRows) {
      MultiplyBlock<TileType<Block>>(w, r, std::min(r + kBlockRows, end), x, token,
                                     std::min(token + kBlockTokens, x.rows), y, y_stride);
    }
  }
}

void AmxMatmul(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  switch (w.type) {
    FATHOM_FLOAT_TYPES(FATHOM_TYPE_PRODUCT, MatmulTiles)
    FATHOM_SMALL_BLOCK_TYPES(FATHOM_TYPE_PRODUCT, MatmulTiles)
    FATHOM_LOW_K_TYPES(FATHOM_TYPE_PRODUCT, MatmulTiles)
    FATHOM_HIGH_K_TYPES(FATHOM_TYPE_PRODUCT, MatmulTiles)
  }
}

/// Packs 32 columns of up to 16 rows into one tile of pairs: [16 pairs, 16 tokens, 2].
HWY_INLINE void PackTile(const float* HWY_RESTRICT x, int64_t rows, int64_t cols, int64_t n,
                         uint16_t* HWY_RESTRICT high, uint16_t* HWY_RESTRICT low) {
  const FloatTag d;
  alignas(64) __m512i tile[kTileRows], rest[kTileRows];
  for (int64_t t = 0; t < kTileRows; ++t) {
    alignas(64) float last[32] = {};
    const float* from = t < rows ? x + t * cols : last;
    if (t < rows && n < 32) {
      std::copy_n(from, n, last);
      from = last;
    }
    const FloatVec first = hn::LoadU(d, from), second = hn::LoadU(d, from + 16);
    tile[t] = Rounded(first, second);
    if (low) rest[t] = Remainder(first, second, tile[t]);
  }
  StoreTransposed(tile, high);
  if (low) StoreTransposed(rest, low);
}

void PackActivations(const float* x, int64_t rows, int64_t cols, uint16_t* high, uint16_t* low) {
  for (int64_t k = 0; k < cols; k += 32) {
    const int64_t at = k * kTileRows;
    PackTile(x + k, rows, cols, std::min<int64_t>(32, cols - k), high + at, low ? low + at : nullptr);
  }
}

void FillAmxMatmul(Kernels& table) {
  table.matmul = AmxMatmul;
  table.pack_activations = PackActivations;
  table.panel_rows = kPairRows;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
#pragma GCC pop_options
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillAmxMatmul(Kernels& /*table*/) {}
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillAmxMatmul);
void fill_amx_matmul(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillAmxMatmul)(table); }
}  // namespace fathom
#endif
