#pragma once

#include <string>
#include <vector>

#include "command_line.h"

namespace fathom::train {

/// The model and the text of the uses that read a text.
struct TextOptions {
  std::string model, file;
  std::vector<std::string> given;  // names of the options that were given

  /// Throws Error (usage) if one is missing. use: the option that needs them.
  void check(const std::string& use) const;
};

/// Adds -m and -f to the program.
void add_text_options(Command program, TextOptions& options);

/// How results are computed and printed.
struct TextReport {
  bool plain = false;  // libtorch's operations only
  bool json = false;   // one JSON object instead of text
};

}  // namespace fathom::train
