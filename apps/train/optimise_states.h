#pragma once

#include <memory>
#include <string>
#include <vector>

#include "command_line.h"
#include "text_options.h"
#include "train/state_optimisation.h"

namespace fathom::train {

/// The options of `fathom train --optimise-states`.
struct OptimiseStatesOptions {
  bool run = false;  // --optimise-states is given
  StateStepOptions states;
  std::vector<std::string> given;  // of the options that need --optimise-states
};

/// Adds the options to the program.
void add_optimise_states_options(Command program, OptimiseStatesOptions& options);

/// Reads the text with the model, with and without optimised states, and prints the losses of its windows. Throws
/// Error (usage) if model or file is not given.
void optimise_states(const OptimiseStatesOptions& options, const TextOptions& text, const TextReport& report);

}  // namespace fathom::train
