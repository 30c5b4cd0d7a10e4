#pragma once

// GCC 12 with sanitizers reports members of std::regex as uninitialised.
#pragma GCC diagnostic push
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <iterator>
#include <regex>
#pragma GCC diagnostic pop

#include <sstream>
#include <string>
#include <string_view>
#include <vector>

// Helpers that read prompts independently of the code that made them.
namespace fathom::eval {

using Strings = std::vector<std::string>;

/// Returns a group (0: the whole match) of each match of `pattern`.
inline Strings matches(const std::string& text, const std::string& pattern, int group = 0) {
  const std::regex regex(pattern);
  Strings found;
  for (std::sregex_iterator at(text.begin(), text.end(), regex), end; at != end; ++at)
    found.push_back((*at)[group]);
  return found;
}
/// Returns the groups of the first match; empty without a match.
inline Strings groups(const std::string& text, const std::string& pattern) {
  std::smatch match;
  Strings found;
  if (std::regex_search(text, match, std::regex(pattern))) found.assign(match.begin() + 1, match.end());
  return found;
}

inline Strings lines_of_text(const std::string& text) {
  std::istringstream in(text);
  Strings lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}
inline Strings words_of(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}
inline std::string joined(const Strings& parts, const std::string& between) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : between) + part;
  return text;
}
/// Returns how often `part` occurs, overlapping occurrences included.
inline size_t occurrences(std::string_view text, std::string_view part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace fathom::eval
