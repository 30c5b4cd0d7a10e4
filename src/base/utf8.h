#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom {

/// Returns the length in bytes of the character at the start of `text` (RFC 3629); 0 if `text` is empty or starts
/// with malformed bytes.
size_t utf8_length(std::string_view text);

/// Returns the code point of the character at the start of `text`. utf8_length(text) must not be 0.
uint32_t utf8_code_point(std::string_view text);

/// Appends a code point, at most U+10FFFF, as UTF-8.
void append_utf8(uint32_t code_point, std::string& text);

/// Returns the number of bytes (0 to 3) at the end of `text` that are the beginning of an incomplete character.
size_t utf8_unfinished(std::string_view text);

/// Returns the length in bytes of the longest prefix of `text` that is valid UTF-8.
size_t utf8_valid_prefix(std::string_view text);

}  // namespace fathom
