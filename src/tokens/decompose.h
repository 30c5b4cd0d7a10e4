#pragma once

#include <cstdint>
#include <string>

namespace fathom {

/// Appends the canonical decomposition (Unicode's NFD) of one character: "é" as "e" and an accent, Hangul syllables
/// as their letters. Chinese compatibility characters are left as they are.
void append_decomposed(uint32_t code_point, std::string& text);

}  // namespace fathom
