#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

/// Parses token ids separated by white space. `source` names the text in errors. Throws Error that quotes the first
/// word that is not an id.
std::vector<int32_t> parse_token_list(std::string_view text, const std::string& source);

}  // namespace fathom
