#pragma once

#include <memory>
#include <string>
#include <vector>

#include "command_line.h"
#include "train/state_optimisation.h"

namespace fathom::train {

/// The options of `fathom train --optimise-states`.
struct OptimiseStatesOptions {
  bool run = false;  // --optimise-states is given
  std::string model, file;
  StateStepOptions states;
  std::vector<std::string> given;  // of the options that need --optimise-states
};

/// Adds the options to the program.
void add_optimise_states_options(Command program, OptimiseStatesOptions& options);

/// How the losses are computed and printed.
struct StateReport {
  bool plain = false;  // libtorch's operations only
  bool json = false;   // one JSON object instead of a table
};
/// Reads the text with the model, with and without optimised states, and prints the losses of its windows. Throws
/// Error (usage) if model or file is not given.
void optimise_states(const OptimiseStatesOptions& options, const StateReport& report);

}  // namespace fathom::train
