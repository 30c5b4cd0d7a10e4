#include "base/utf8.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

std::string character(uint32_t code_point) {
  std::string text;
  append_utf8(code_point, text);
  return text;
}

TEST(Utf8, EveryCodePointRoundTrips) {
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    const std::string text = character(code_point);
    if (code_point >= 0xd800 && code_point < 0xe000) {
      ASSERT_EQ(utf8_length(text), 0u) << "surrogate " << code_point;
      continue;
    }
    ASSERT_EQ(utf8_length(text), text.size()) << code_point;
    ASSERT_EQ(utf8_code_point(text), code_point);
    ASSERT_EQ(utf8_unfinished(text), 0u) << code_point;
  }
}

TEST(Utf8, PrefixesOfCharactersAreUnfinished) {
  for (const uint32_t code_point :
       {0x80u, 0x7ffu, 0x800u, 0xfffu, 0xd7ffu, 0xe000u, 0xffffu, 0x10000u, 0x10ffffu}) {
    const std::string text = character(code_point);
    for (size_t bytes = 1; bytes < text.size(); ++bytes) {
      EXPECT_EQ(utf8_length(text.substr(0, bytes)), 0u);
      EXPECT_EQ(utf8_unfinished("ab" + text.substr(0, bytes)), bytes);
    }
  }
}

TEST(Utf8, MalformedBytesAreNeitherCharactersNorUnfinished) {
  for (const char* text :
       {"\x80", "\xc0\xaf", "\xc1", "\xe0\x80", "\xed\xa0", "\xf0\x8f", "\xf4\x90", "\xf5", "\xff"}) {
    EXPECT_EQ(utf8_length(text), 0u);
    EXPECT_EQ(utf8_unfinished(text), 0u);
  }
}

TEST(Utf8, ValidPrefixEndsAtTheFirstMalformedByte) {
  const std::string valid = "twelve bytes \xc3\xa9 and \xf0\x9f\xa6\x99 more";
  EXPECT_EQ(utf8_valid_prefix(valid), valid.size());
  EXPECT_EQ(utf8_valid_prefix(valid + "\xff" + valid), valid.size());
  EXPECT_EQ(utf8_valid_prefix("\x80"), 0u);
  EXPECT_EQ(utf8_valid_prefix("1234567\xe2\x96"), 7u);
}

}  // namespace
}  // namespace fathom
