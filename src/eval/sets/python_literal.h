#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace fathom::eval {

/// A Python literal (strings, numbers, True, False, None, lists, tuples and dicts of them) as JSON; JSON text
/// without escaped surrogates is one, too. Tuples become arrays, keys of dicts strings. Throws Error beginning with
/// `where` and naming the byte for anything else and for more than 64 levels.
Json parse_python_literal(std::string_view text, const std::string& where);

}  // namespace fathom::eval
