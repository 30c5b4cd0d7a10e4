#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/json.h"

namespace fathom::train {

/// All that a run needs to go on as if it had not stopped; batches are functions of the step.
struct TrainState {
  int64_t step = 0;         // steps done
  std::span<float> values;  // [count] each
  std::span<float> first_moments, second_moments;
};

/// Writes the state to a temporary beside `path`, syncs and renames it; needs memory for a second copy of it.
/// Throws Error if it cannot be written whole (full disk); `path` is then as it was before.
void write_checkpoint(const std::string& path, const Json& config, const TrainState& state);

/// Sets step and arrays to those of the file, to the bit. Throws Error when the file is no checkpoint, truncated,
/// damaged (by its checksum), or of a run whose config differs in what results depend on, naming the fields; the
/// state is then untouched.
void read_checkpoint(const std::string& path, const Json& config, TrainState& state);

}  // namespace fathom::train
