#pragma once

#include <cstdint>

namespace fathom {

/// Returns whether kernels may use the matrix tiles of x86 (AMX-TILE, AMX-BF16 and AMX-INT8): the processor and the
/// operating system report them, this process has permission to use them, and a trial product was correct. The
/// result is determined at the first call. Returns false on other machines.
bool amx_usable();

/// Runs `trial` with handlers for SIGILL and SIGSEGV, then restores the previous handlers. Returns false if it
/// trapped or returned false. A machine may report an instruction that it does not execute. Calls from several
/// threads run one after the other.
bool trial_succeeds(bool (*trial)());

/// Multiplies two bfloat16 tiles and returns whether the result is correct. This is the trial of amx_usable().
/// Traps on machines without tiles.
bool amx_product_is_correct();

/// Implements Kernels::peak_bf16 with tiles.
int64_t amx_peak_bf16(int64_t n, float* sink);

}  // namespace fathom
