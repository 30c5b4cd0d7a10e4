#pragma once

#include "kernels/kernels.h"

// True while a target with vectors is compiled. Machines without such a target (x86 before AVX2) use the reference
// kernels.
#define FATHOM_VECTOR_TARGET (HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128)

/// Put before a loop over registers: unrolls it early enough for the compiler to keep an array of vectors in
/// registers.
#define FATHOM_UNROLL _Pragma("GCC unroll 16")

namespace fathom {

/// A permutation of 32 16-bit numbers that interleaves the first 16 with the last 16.
alignas(64) inline constexpr uint16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                         21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                         11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

/// Distances in bytes between the prefetch of weights and their use: `far` for prefetches to the L2 cache, `near`
/// for those from the L2 to the L1.
struct StreamPrefetch {
  int64_t far, near;
};
/// Returns the distances for this machine.
StreamPrefetch stream_prefetch();

// Each function sets its kernels in the table, for the target that Highway has chosen.
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

// These functions replace the kernels of an AVX-512 table that are faster on AMX tiles.
void fill_amx_matmul(Kernels& table);
void fill_amx_attend(Kernels& table);
/// Returns the floats of scratch that attention on tiles needs.
size_t amx_attend_scratch(int key_dim, int value_dim, int queries);

}  // namespace fathom
