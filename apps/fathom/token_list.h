#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

/// Token ids separated by white space; `source` names the text in errors. Throws Error that quotes what is no id.
std::vector<int32_t> parse_token_list(std::string_view text, const std::string& source);

}  // namespace fathom
