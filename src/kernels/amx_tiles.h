// A wrapper for each AMX instruction. Tile registers are numbered 0…7 at compile time. Call these functions only if
// amx_usable(), and within the lifetime of a TileScope.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && defined(__linux__)
#define FATHOM_AMX 1
#else
#define FATHOM_AMX 0
#endif

#if FATHOM_AMX

// The compilers' own intrinsics are macros that require literal tile numbers, and the loads of g++ 12 do not tell
// the compiler that they read memory. clang checks inline assembly against the target of the enclosing function,
// which then only inlines into functions with this attribute; g++ does not.
#ifdef __clang__
#define FATHOM_AMX_TARGET __attribute__((target("amx-tile,amx-bf16,amx-int8")))
#else
#define FATHOM_AMX_TARGET
#endif

namespace fathom {

inline constexpr int kTiles = 8;
inline constexpr int kTileRows = 16;
inline constexpr int kTileRowBytes = 64;
inline constexpr int kTileBytes = kTileRows * kTileRowBytes;

/// The operand of LDTILECFG.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved_low[14] = {};
  uint16_t row_bytes[16] = {};  // of tiles 0…7, at most 64; the rest 0
  uint8_t rows[16] = {};        // of tiles 0…7, at most 16; the rest 0

  /// Returns a configuration in which all eight tiles have the largest shape, 16 rows of 64 bytes.
  static constexpr TileConfig whole_tiles() {
    TileConfig config;
    for (int t = 0; t < kTiles; ++t) {
      config.row_bytes[t] = kTileRowBytes;
      config.rows[t] = kTileRows;
    }
    return config;
  }
};
static_assert(sizeof(TileConfig) == 64);

/// Configures the tiles of this thread and zeroes them.
FATHOM_AMX_TARGET inline void tile_configure(const TileConfig& config) {
  asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
}
/// Resets the tiles to their initial state, so that the system need not save them when it switches threads.
FATHOM_AMX_TARGET inline void tile_release() { asm volatile("tilerelease" : : : "memory"); }

/// Configures all tiles with the largest shape for its lifetime. Calling a function that itself uses tiles loses
/// their contents.
class TileScope {
 public:
  FATHOM_AMX_TARGET TileScope() { tile_configure(kConfig); }
  FATHOM_AMX_TARGET ~TileScope() { tile_release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  static constexpr TileConfig kConfig = TileConfig::whole_tiles();
};

template <int T>
FATHOM_AMX_TARGET inline void tile_zero() {
  static_assert(T >= 0 && T < kTiles);
  asm volatile("tilezero %%tmm%c0" : : "i"(T));
}

/// Loads row r of tile T from base + r · stride_bytes.
template <int T>
FATHOM_AMX_TARGET inline void tile_load(const void* base, size_t stride_bytes) {
  static_assert(T >= 0 && T < kTiles);
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride_bytes), "i"(T) : "memory");
}

/// Like tile_load, with the hint that the data will not be read again soon and need not stay in the caches.
template <int T>
FATHOM_AMX_TARGET inline void tile_load_stream(const void* base, size_t stride_bytes) {
  static_assert(T >= 0 && T < kTiles);
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride_bytes), "i"(T) : "memory");
}

/// Stores row r of tile T to base + r · stride_bytes.
template <int T>
FATHOM_AMX_TARGET inline void tile_store(void* base, size_t stride_bytes) {
  static_assert(T >= 0 && T < kTiles);
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(base), "r"(stride_bytes), "i"(T) : "memory");
}

/// C[m][n] += Σ_k A[m][2k]·B[k][2n] + A[m][2k+1]·B[k][2n+1]. A: [16, 32] bfloat16, B: [16, 16, 2] bfloat16, C: [16,
/// 16] float.
template <int C, int A, int B>
FATHOM_AMX_TARGET inline void tile_dp_bf16() {
  static_assert(C != A && C != B && A != B);
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

/// C[m][n] += Σ_k Σ_{i<4} A[m][4k+i]·B[k][4n+i], wrapping around. A: [16, 64] unsigned bytes, B: [16, 16, 4] signed
/// bytes, C: [16, 16] int32.
template <int C, int A, int B>
FATHOM_AMX_TARGET inline void tile_dp_u8s8() {
  static_assert(C != A && C != B && A != B);
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

/// Like tile_dp_u8s8, with signed bytes in A.
template <int C, int A, int B>
FATHOM_AMX_TARGET inline void tile_dp_s8s8() {
  static_assert(C != A && C != B && A != B);
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

}  // namespace fathom

#endif  // FATHOM_AMX
