#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

/// What a passage of a text is.
enum class PassageUnit {
  kLine,   // a line
  kBlank,  // lines up to a blank line, which holds at most spaces, tabs and a carriage return
  kWhole,  // the whole text
};

/// Returns the unit named "lines", "blank" or "whole". Throws Error (usage) for another name.
PassageUnit parse_passage_unit(std::string_view name);

/// Returns the passages of a text, in order, without white space around them. Passages without other characters are
/// left out. The views refer to `text`, which may be any bytes.
std::vector<std::string_view> split_passages(std::string_view text, PassageUnit unit);

}  // namespace fathom
