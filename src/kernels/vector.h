#pragma once

#include "kernels/kernels.h"

// True while a target with vectors is compiled. Machines without one (x86 before AVX2) use the reference kernels.
#define FATHOM_VECTOR_TARGET (HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128)

/// Before a loop over registers: unrolled early enough for the compiler to keep an array of vectors in registers.
#define FATHOM_UNROLL _Pragma("GCC unroll 16")

namespace fathom {

/// From this many queries on, bringing a page into a tile costs less than unpacking it for every group of queries.
inline constexpr int kTileQueries = 16;

/// For a permutation of 32 numbers of 16 bits: the first 16 and the last become pairs of one of each.
alignas(64) inline constexpr uint16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                         21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                         11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

/// How far prefetch of their use weights are asked for, in bytes: into the L2 cache, and from there into the L1.
struct StreamPrefetch {
  int64_t far, near;
};
StreamPrefetch stream_prefetch();

/// Each fills its part of the table for the target that Highway has chosen.
void fill_vector_matmul(Kernels& table);
void fill_vector_multiply(Kernels& table);
void fill_bf16_multiply(Kernels& table);
void fill_vector_attend(Kernels& table);
void fill_vector_weights(Kernels& table);
void fill_vector_scores(Kernels& table);
void fill_vector_pages(Kernels& table);
void fill_vector_elementwise(Kernels& table);
void fill_vector_gradients(Kernels& table);
void fill_vector_scan(Kernels& table);
void fill_vector_ssd(Kernels& table);
void fill_vector_peak(Kernels& table);

/// Replaces what runs better on AMX tiles in a table for AVX-512.
void fill_amx_matmul(Kernels& table);
void fill_amx_attend(Kernels& table);
/// attend_scratch for the attention on tiles alone.
size_t amx_attend_scratch(int key_dim, int value_dim, int queries);

}  // namespace fathom
