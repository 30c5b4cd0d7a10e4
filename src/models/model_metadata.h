#pragma once

#include "formats/gguf.h"
#include "models/config.h"

namespace fathom {

/// Keys of models trained with softplus attention, without the prefix "{architecture}.". They are specific to
/// Fathom.
inline constexpr const char* kSoftplusKey = "attention.softplus";
inline constexpr const char* kSoftplusPowerKey = "attention.softplus_power";

/// Sets the keys from which an architecture reads the shape of a model: names, sizes and norms, but not rotary
/// positions.
void set_shape_metadata(GgufWriter& writer, const ModelConfig& config);

}  // namespace fathom
