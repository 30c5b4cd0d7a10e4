#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace fathom::eval {

/// Parses a Python literal (strings, numbers, True, False, None, and lists, tuples and dicts of them) into JSON.
/// JSON text without escaped surrogates is also accepted. Tuples become arrays and keys of dicts become strings.
/// Throws Error that begins with `where` and contains the byte offset for anything else and for more than 64
/// levels.
Json parse_python_literal(std::string_view text, const std::string& where);

}  // namespace fathom::eval
