#pragma once

#include "kernels/kernels.h"

namespace fathom {

/// The table of plain kernels.
Kernels reference_kernels();

}  // namespace fathom
