#include "text_patterns.h"

#include <algorithm>
#include <limits>

namespace fathom::test {
namespace {

constexpr std::string_view kAnyText = "<*>", kNumber = "<number>", kAnyLines = "<...>", kEmpty = "<empty>";
constexpr std::string_view kNoNewline = "<no newline>";

size_t digits(std::string_view text) { return std::min(text.find_first_not_of("0123456789"), text.size()); }

/// Returns the length of the number at the start of `text`, in the format of JSON and printf; 0: none.
size_t number_length(std::string_view text) {
  size_t at = text.starts_with('-') ? 1 : 0;
  const size_t whole = digits(text.substr(at));
  if (whole == 0) return 0;
  at += whole;
  if (const size_t fraction = at < text.size() && text[at] == '.' ? digits(text.substr(at + 1)) : 0; fraction > 0)
    at += 1 + fraction;
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    const size_t sign = at + 1 < text.size() && (text[at + 1] == '+' || text[at + 1] == '-') ? 1 : 0;
    if (const size_t exponent = digits(text.substr(std::min(at + 1 + sign, text.size()))); exponent > 0)
      at += 1 + sign + exponent;
  }
  return at;
}

/// Removes one character or number of the pattern from both. Returns false if they differ.
bool match_one(std::string_view pattern, size_t& p, std::string_view line, size_t& at) {
  if (pattern.substr(p).starts_with(kNumber)) {
    const size_t length = number_length(line.substr(at));
    p += kNumber.size();
    at += length;
    return length > 0;
  }
  return at < line.size() && pattern[p++] == line[at++];
}

/// Whether the pattern matches the line from its start to its end or, if `part`, a prefix of the line.
bool matches_from_start(std::string_view pattern, std::string_view line, bool part) {
  constexpr size_t kNone = std::string_view::npos;
  size_t p = 0, at = 0;
  size_t retry_p = kNone, retry_at = 0;  // after the last <*>, and the end of the text that it matches
  for (;;) {
    if (pattern.substr(p).starts_with(kAnyText)) {
      p += kAnyText.size();
      retry_p = p;
      retry_at = at;
      continue;
    }
    if (p == pattern.size() && (part || at == line.size())) return true;
    if (p < pattern.size() && match_one(pattern, p, line, at)) continue;
    if (retry_p == kNone || retry_at >= line.size()) return false;
    p = retry_p;
    at = ++retry_at;
  }
}

std::string_view without_mark(std::string_view pattern) { return pattern == kEmpty ? "" : pattern; }

/// Aligns patterns and lines. cost(i, j): the fewest unmatched ones of the patterns from i and the lines from j on.
class Alignment {
 public:
  Alignment(const std::vector<std::string>& patterns, const std::vector<std::string>& lines)
      : patterns_(patterns), lines_(lines), cost_((patterns.size() + 1) * (lines.size() + 1)) {
    for (size_t i = patterns.size() + 1; i-- > 0;)
      for (size_t j = lines.size() + 1; j-- > 0;) cost(i, j) = least_cost(i, j);
  }

  Comparison comparison() {
    Comparison result;
    size_t i = 0, j = 0;
    const auto line = [&](const char* mark, const std::string& text) { result.difference += mark + text + "\n"; };
    while (i < patterns_.size() || j < lines_.size()) {
      if (any_lines(i) && cost(i + 1, j) == cost(i, j)) {
        result.updated.push_back(patterns_[i++]);
      } else if (any_lines(i) && j < lines_.size() && cost(i, j + 1) == cost(i, j)) {
        line("    ", lines_[j++]);
      } else if (fits(i, j) && cost(i + 1, j + 1) == cost(i, j)) {
        line("    ", lines_[j++]);
        result.updated.push_back(patterns_[i++]);
      } else if (i < patterns_.size() && cost(i + 1, j) + 1 == cost(i, j)) {
        line("  - ", patterns_[i++]);
        result.same = false;
      } else {
        line("  + ", lines_[j]);
        result.updated.push_back(lines_[j++]);
        result.same = false;
      }
    }
    return result;
  }

 private:
  size_t& cost(size_t i, size_t j) { return cost_[i * (lines_.size() + 1) + j]; }
  bool any_lines(size_t i) const { return i < patterns_.size() && patterns_[i] == kAnyLines; }
  bool fits(size_t i, size_t j) const {
    return i < patterns_.size() && j < lines_.size() && matches_line(patterns_[i], lines_[j]);
  }

  size_t least_cost(size_t i, size_t j) {
    if (i == patterns_.size() && j == lines_.size()) return 0;
    size_t least = std::numeric_limits<size_t>::max();
    if (any_lines(i)) least = std::min(least, cost(i + 1, j));
    if (any_lines(i) && j < lines_.size()) least = std::min(least, cost(i, j + 1));
    if (fits(i, j)) least = std::min(least, cost(i + 1, j + 1));
    if (i < patterns_.size()) least = std::min(least, cost(i + 1, j) + 1);
    if (j < lines_.size()) least = std::min(least, cost(i, j + 1) + 1);
    return least;
  }

  const std::vector<std::string>& patterns_;
  const std::vector<std::string>& lines_;
  std::vector<size_t> cost_;
};

}  // namespace

bool matches_line(std::string_view pattern, std::string_view line) {
  return matches_from_start(without_mark(pattern), line, false);
}

bool contains_line(std::string_view text, std::string_view pattern) {
  const std::string anywhere = std::string(kAnyText).append(without_mark(pattern));
  return std::ranges::any_of(lines_of(text), [&](const std::string& line) {
    return pattern == kEmpty ? line.empty() : matches_from_start(anywhere, line, true);
  });
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.emplace_back(text.substr(begin, end - begin));
    if (end == text.size()) lines.back() += kNoNewline;
    begin = end + 1;
  }
  return lines;
}

Comparison compare(const std::vector<std::string>& patterns, std::string_view text) {
  const std::vector<std::string> lines = lines_of(text);
  return Alignment(patterns, lines).comparison();
}

}  // namespace fathom::test
