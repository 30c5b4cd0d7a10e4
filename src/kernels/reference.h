#pragma once

#include "kernels/kernels.h"

namespace fathom {

/// Returns the table of reference kernels.
Kernels reference_kernels();

/// Reference kernels of state-space layers.
namespace reference {
void causal_conv(const ConvTask& t);
void selective_scan(const SelectiveScan& t);
void ssd_scan(const SsdHead& t);
void ssd_chunk(const SsdHead& t, float* scratch);
void ssd_products(const SsdProducts& t, float* scratch);
void gated_group_norm(const float* x, const float* z, const float* weight, float eps, int64_t groups, int64_t width,
                      float* out);
}  // namespace reference

}  // namespace fathom
