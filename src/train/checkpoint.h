#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/json.h"

namespace fathom::train {

/// The state of a run. Batches are functions of the step, so this is all that a run needs to continue.
struct TrainState {
  int64_t step = 0;         // number of completed steps
  std::span<float> values;  // [count], like the moments
  std::span<float> first_moments, second_moments;
};

/// Writes the state to a temporary file in the folder of `path`, syncs it and renames it to `path`. Needs memory
/// for a second copy of the state. Throws Error if it cannot be written completely (full disk); `path` is then
/// unchanged.
void write_checkpoint(const std::string& path, const Json& config, const TrainState& state);

/// Reads step and arrays from the file, exactly as written. Throws Error if the file is not a checkpoint, is
/// truncated or damaged (checksum), or belongs to a run whose config differs in fields that affect results; the
/// error names them. The state is then unchanged.
void read_checkpoint(const std::string& path, const Json& config, TrainState& state);

}  // namespace fathom::train
