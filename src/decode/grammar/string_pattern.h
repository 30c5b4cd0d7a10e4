#pragma once

#include <string>
#include <string_view>

#include "decode/grammar/json_text.h"

namespace fathom {

/// Returns the content of JSON strings that match a regular expression of a JSON schema (ECMA-262) somewhere:
/// literals, classes, groups, alternatives, repetitions, \d \w \s, and ^ and $ at the ends of alternatives. Throws
/// Error for other constructs, such as look-around and back references. place: of the pattern, for messages.
GrammarBuilder::Expression string_pattern(JsonText& json, std::string_view pattern, const std::string& place);

}  // namespace fathom
