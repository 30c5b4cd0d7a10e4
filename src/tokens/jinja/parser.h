#pragma once

#include <string_view>

#include "tokens/jinja/ast.h"

namespace fathom::jinja {

/// Throws Error that names the line and the token that is not understood, or that it is nested too deeply.
Body parse(std::string_view source);

}  // namespace fathom::jinja
