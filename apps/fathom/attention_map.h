#pragma once

#include <string>
#include <vector>

#include "command_line.h"
#include "options.h"

namespace fathom {

/// fathom inspect --attention: a picture of what an answer looked at.
struct AttentionMapOptions {
  CommonOptions common;
  std::vector<std::string> files;
  std::string prompt, html;
  int64_t tokens = 32;
  bool json = false;
};
void add_attention_options(Command command, AttentionMapOptions& o);
/// Reads and answers; writes the page, or one JSON object to stdout.
void map_attention(const AttentionMapOptions& options);

}  // namespace fathom
