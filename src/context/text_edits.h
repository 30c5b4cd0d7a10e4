#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "session/session.h"

namespace fathom {

/// Returns the edits that turn one list of tokens into another (diff_words).
std::vector<TokenEdit> edits_between(std::span<const int32_t> old_tokens, std::span<const int32_t> tokens);

}  // namespace fathom
