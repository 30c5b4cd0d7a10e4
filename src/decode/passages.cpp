#include "decode/passages.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"

namespace fathom {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";

std::string_view without_blanks(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) + 1 - first);
}

}  // namespace

PassageUnit parse_passage_unit(std::string_view name) {
  if (name == "lines") return PassageUnit::kLine;
  if (name == "blank") return PassageUnit::kBlank;
  if (name == "whole") return PassageUnit::kWhole;
  fail_usage("passages: expected lines, blank or whole, found ", quote(name));
}

std::vector<std::string_view> split_passages(std::string_view text, PassageUnit unit) {
  std::vector<std::string_view> passages;
  const auto add = [&](size_t begin, size_t end) {
    const std::string_view passage = without_blanks(text.substr(begin, end - begin));
    if (!passage.empty()) passages.push_back(passage);
  };
  size_t begin = 0;  // of the passage
  for (size_t line = 0; line < text.size() && unit != PassageUnit::kWhole;) {
    const size_t end = std::min(text.find('\n', line), text.size());
    const bool blank = without_blanks(text.substr(line, end - line)).empty();
    line = std::min(end + 1, text.size());
    if (unit == PassageUnit::kBlank && !blank) continue;
    add(begin, line);
    begin = line;
  }
  add(begin, text.size());
  return passages;
}

}  // namespace fathom
