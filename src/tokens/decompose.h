#pragma once

#include <cstdint>
#include <string>

namespace fathom {

/// Appends the canonical decomposition (Unicode's NFD) of one character: "é" as "e" and an accent, a Hangul
/// syllable as its letters. CJK compatibility characters are appended unchanged.
void append_decomposed(uint32_t code_point, std::string& text);

}  // namespace fathom
