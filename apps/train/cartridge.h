#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "command_line.h"
#include "text_options.h"
#include "train/cartridge_training.h"

namespace fathom::train {

/// The options of `fathom train --cartridge`.
struct CartridgeOptions {
  std::string out;             // --cartridge
  std::string study = "self";  // what is trained on: self, next or none
  int64_t slots = 128, conversations = 320;
  int64_t chunk = 4096;  // shortest part of the text in view of a conversation, tokens
  int64_t steps = 0;     // 0: two passes over the conversations
  // Of 0.002 to 0.02, 0.005 and 0.01 gave the lowest divergence with fathom-reader (docs/training.md); the paper
  // has 0.02.
  CartridgeSteps training{.batch = 16, .rate = 0.01};
  std::vector<std::string> given;  // of the options that need --cartridge
};

/// Adds the options to the program.
void add_cartridge_options(Command program, CartridgeOptions& options);

/// Trains a cartridge of the text, writes it, and prints the divergence from the full text before and after.
/// Throws Error (usage) if model or file is not given, or if the text has fewer tokens than slots.
void train_cartridge_of_text(const CartridgeOptions& options, const TextOptions& text, const TextReport& report);

}  // namespace fathom::train
