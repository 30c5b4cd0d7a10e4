#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace fathom {

/// A Python literal (strings, numbers, True, False, None, lists, tuples and dicts of them) as JSON; JSON text
/// without escaped surrogates is one, too. Tuples become arrays, keys of dicts strings. Throws Error beginning with
/// `where` and naming the byte for anything else and for more than 64 levels.
nlohmann::ordered_json parse_python_literal(std::string_view text, const std::string& where);

}  // namespace fathom
