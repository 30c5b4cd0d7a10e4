#pragma once

#include <cstdint>

namespace fathom {

/// Whether kernels may use the matrix tiles of x86 (AMX-TILE, AMX-BF16 and AMX-INT8): the processor and the
/// operating system say so, this process has been given permission, and a trial product came out right. Looked up
/// once; later calls are free. On other machines false.
bool amx_usable();

/// Runs `trial` with SIGILL and SIGSEGV caught; the handlers before it are in place again afterwards. False when it
/// trapped or returned false: a machine that advertises an instruction need not have it.
bool trial_succeeds(bool (*trial)());

/// The trial of amx_usable(): one product of bfloat16 tiles; traps where there are none.
bool amx_product_is_right();

/// Kernels::peak_bf16 on tiles.
int64_t amx_peak_bf16(int64_t n, float* sink);

}  // namespace fathom
