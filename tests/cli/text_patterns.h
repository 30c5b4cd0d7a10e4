#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom::test {

/// Patterns in lines of expected text: <*> matches any text within a line, <number> a number, <empty> (alone on a
/// line) an empty line, and <...> (alone on a line) any number of lines.

/// Whether the whole line fits the pattern.
bool matches_line(std::string_view pattern, std::string_view line);
/// Whether a part of a line of `text` fits the pattern.
bool contains_line(std::string_view text, std::string_view pattern);

/// The lines of a text. When the text does not end with a newline, the last line ends with "<no newline>".
std::vector<std::string> lines_of(std::string_view text);

struct Comparison {
  bool same = true;
  std::string difference;            // all lines; "-" marks expected ones that are missing, "+" unexpected ones
  std::vector<std::string> updated;  // patterns that match all of the text; those that matched before are kept
};
/// Aligns lines with patterns so that the fewest are left over.
Comparison compare(const std::vector<std::string>& patterns, std::string_view text);

}  // namespace fathom::test
