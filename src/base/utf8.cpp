#include "base/utf8.h"

#include <algorithm>
#include <cstring>

namespace fathom {
namespace {

/// The range of the second byte of a character. It excludes overlong forms, surrogates and code points above
/// U+10FFFF.
struct SecondByteRange {
  unsigned char low, high;
};

SecondByteRange second_byte_range(unsigned char first) {
  switch (first) {
    case 0xe0:
      return {0xa0, 0xbf};
    case 0xed:
      return {0x80, 0x9f};
    case 0xf0:
      return {0x90, 0xbf};
    case 0xf4:
      return {0x80, 0x8f};
    default:
      return {0x80, 0xbf};
  }
}

/// Returns the length in bytes of a character with this first byte; 0 if it cannot start a character.
size_t length_by_first_byte(unsigned char first) {
  if (first < 0x80) return 1;
  if (first < 0xc2) return 0;
  if (first < 0xe0) return 2;
  if (first < 0xf0) return 3;
  return first < 0xf5 ? 4 : 0;
}

/// Returns whether all bytes of `text` after the first are valid in a character with that first byte.
bool has_valid_continuation(std::string_view text) {
  const SecondByteRange second = second_byte_range(text[0]);
  for (size_t i = 1; i < text.size(); ++i) {
    const unsigned char byte = text[i];
    if (i == 1 ? byte < second.low || byte > second.high : (byte & 0xc0) != 0x80) return false;
  }
  return true;
}

}  // namespace

size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const size_t length = length_by_first_byte(text[0]);
  if (length <= 1) return length;
  return length <= text.size() && has_valid_continuation(text.substr(0, length)) ? length : 0;
}

uint32_t utf8_code_point(std::string_view text) {
  const size_t length = utf8_length(text);
  const unsigned char first = text[0];
  if (length == 1) return first;
  uint32_t code_point = first & (0xff >> (length + 1));
  for (size_t i = 1; i < length; ++i) code_point = code_point << 6 | (text[i] & 0x3f);
  return code_point;
}

void append_utf8(uint32_t code_point, std::string& text) {
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | ((code_point >> shift) & 0x3f)); };
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    text += static_cast<char>(0xc0 | code_point >> 6);
    tail(0);
  } else if (code_point < 0x10000) {
    text += static_cast<char>(0xe0 | code_point >> 12);
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xf0 | code_point >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

size_t utf8_unfinished(std::string_view text) {
  for (size_t count = 1; count <= std::min<size_t>(3, text.size()); ++count) {
    const std::string_view end = text.substr(text.size() - count);
    if ((end[0] & 0xc0) == 0x80) continue;
    return length_by_first_byte(end[0]) > count && has_valid_continuation(end) ? count : 0;
  }
  return 0;
}

size_t utf8_valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t word;
    if (at + sizeof word <= text.size()) {
      std::memcpy(&word, text.data() + at, sizeof word);
      if ((word & 0x8080808080808080) == 0) {
        at += sizeof word;
        continue;
      }
    }
    const size_t length = utf8_length(text.substr(at));
    if (length == 0) break;
    at += length;
  }
  return at;
}

}  // namespace fathom
