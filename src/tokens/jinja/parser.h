#pragma once

#include <string_view>

#include "tokens/jinja/ast.h"

namespace fathom::jinja {

/// Parses a template. Throws Error that names the line and the unexpected token, or for nesting beyond 300 levels.
Body parse(std::string_view source);

}  // namespace fathom::jinja
