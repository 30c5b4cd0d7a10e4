#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace fathom::eval {

/// Calls `visit` with each object of a file of JSON lines and its line's number (from 1); empty lines are passed
/// over. Throws Error naming file and line for what is no JSON object, and the file if it cannot be read.
void read_json_lines(const std::string& path, const std::function<void(int64_t line, const Json& object)>& visit);

/// The same of a text; name: of the file, for errors.
void parse_json_lines(const std::string& name, std::string_view text,
                      const std::function<void(int64_t line, const Json& object)>& visit);

}  // namespace fathom::eval
