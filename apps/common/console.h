#pragma once

#include <string>
#include <string_view>

namespace fathom {

/// Writes to stdout at once. Throws Error if not all of it can be written.
void write_out(std::string_view text);
/// Throws Error if anything written to stdout so far was lost.
void finish_out();

/// One line on stderr: "fathom: text".
void note(std::string_view text);
bool stderr_is_terminal();

/// "standard input" for "-".
std::string input_name(const std::string& path);
/// All bytes of a file, or of stdin for "-". Throws Error naming the path; an interrupt ends it.
std::string read_input(const std::string& path);

}  // namespace fathom
