#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom::test {

/// Patterns in lines of expected text: <*> matches any text within a line, <number> a number, <empty> (alone on a
/// line) an empty line, and <...> (alone on a line) any number of lines.

/// Whether the pattern matches the whole line.
bool matches_line(std::string_view pattern, std::string_view line);
/// Whether the pattern matches a part of a line of `text`.
bool contains_line(std::string_view text, std::string_view pattern);

/// Returns the lines of a text. If the text does not end with a newline, the last line ends with "<no newline>".
std::vector<std::string> lines_of(std::string_view text);

/// The result of compare().
struct Comparison {
  bool same = true;
  std::string difference;            // all lines; "-" marks expected ones that are missing, "+" unexpected ones
  std::vector<std::string> updated;  // patterns that match all of the text; those that matched before are kept
};
/// Aligns lines with patterns so that as few as possible are unmatched.
Comparison compare(const std::vector<std::string>& patterns, std::string_view text);

}  // namespace fathom::test
