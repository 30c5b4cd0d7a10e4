#pragma once

#include "formats/gguf.h"
#include "models/config.h"

namespace fathom {

/// Sets the keys from which an architecture reads a model's shape: names, sizes, norms; rotary positions not.
void set_shape_metadata(GgufWriter& writer, const ModelConfig& config);

}  // namespace fathom
