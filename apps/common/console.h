#pragma once

#include <string>
#include <string_view>

namespace fathom {

/// Writes to stdout and flushes. Throws Error on a write error.
void write_out(std::string_view text);
/// Flushes stdout. Throws Error if this or an earlier write failed.
void finish_out();

/// Prints one line to stderr: "fathom: text".
void note(std::string_view text);
bool stderr_is_terminal();

/// Returns the name of an input for messages: the path, or "standard input" for "-".
std::string input_name(const std::string& path);
/// Returns all bytes of a file, or of stdin for "-". Throws Error that names the path, and Error (interrupted) on
/// Ctrl-C.
std::string read_input(const std::string& path);

}  // namespace fathom
