#pragma once

#include <string>
#include <vector>

#include "command_line.h"
#include "options.h"

namespace fathom {

/// Options of fathom inspect --attention, which draws the tokens that an answer attended to.
struct AttentionMapOptions {
  CommonOptions common;
  std::vector<std::string> files;
  std::string prompt, html;
  int64_t tokens = 32;
  bool json = false;
};
void add_attention_options(Command command, AttentionMapOptions& o);
/// Reads the text, generates an answer and writes the HTML page. Prints the answer, or with json one JSON object.
void map_attention(const AttentionMapOptions& options);

}  // namespace fathom
