#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace fathom::eval {

/// Calls `visit` with each object of a JSON-lines file and its line number (from 1). Empty lines are skipped.
/// Throws Error with file and line for a line that is not a JSON object, and with the file if it cannot be read.
void read_json_lines(const std::string& path, const std::function<void(int64_t line, const Json& object)>& visit);

/// Like read_json_lines for a text in memory; `name` replaces the path in errors.
void parse_json_lines(const std::string& name, std::string_view text,
                      const std::function<void(int64_t line, const Json& object)>& visit);

}  // namespace fathom::eval
