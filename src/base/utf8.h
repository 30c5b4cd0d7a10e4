#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom {

/// Bytes of the character that `text` begins with (RFC 3629); 0 when it is empty or does not begin with one.
size_t utf8_length(std::string_view text);

/// The code point of the character that `text` begins with; utf8_length(text) must not be 0.
uint32_t utf8_code_point(std::string_view text);

/// Appends the character of a code point up to U+10FFFF.
void append_utf8(uint32_t code_point, std::string& text);

/// Bytes at the end of `text` (0 to 3) that more bytes could still make a character.
size_t utf8_unfinished(std::string_view text);

/// Bytes from the start of `text` that are UTF-8 throughout.
size_t utf8_valid_prefix(std::string_view text);

}  // namespace fathom
