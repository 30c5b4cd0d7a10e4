#pragma once

#include "formats/gguf.h"
#include "models/config.h"

namespace fathom {

/// Keys, behind "{architecture}.", of models trained with softplus attention; no other engine knows them.
inline constexpr const char* kSoftplusKey = "attention.softplus";
inline constexpr const char* kSoftplusPowerKey = "attention.softplus_power";

/// Sets the keys from which an architecture reads a model's shape: names, sizes, norms; rotary positions not.
void set_shape_metadata(GgufWriter& writer, const ModelConfig& config);

}  // namespace fathom
