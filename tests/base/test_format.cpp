#include "base/format.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/spec.h"

namespace fathom {
namespace {

TEST(Format, SizesHaveThreeDigits) {
  EXPECT_EQ(format_size(0), "0");
  EXPECT_EQ(format_size(0.354), "0.35");
  EXPECT_EQ(format_size(999), "999");
  EXPECT_EQ(format_size(1023), "1023");
  EXPECT_EQ(format_size(1024), "1k");
  EXPECT_EQ(format_size(1536), "1.5k");
  EXPECT_EQ(format_size(12595), "12.3k");
  EXPECT_EQ(format_size(102400), "100k");
  EXPECT_EQ(format_size(1048575), "1m");
  EXPECT_EQ(format_size(-2048), "-2k");
  EXPECT_EQ(format_size(3LL << 40), "3t");
}

TEST(Format, WholeSizesRoundTrip) {
  for (int64_t unit : {int64_t{1}, int64_t{1} << 10, int64_t{1} << 20, int64_t{1} << 30}) {
    for (const int64_t count : {1, 2, 10, 64, 100, 512, 1000, 1023}) {
      EXPECT_EQ(parse_size(format_size(static_cast<double>(count * unit))), count * unit);
    }
  }
}

TEST(Format, BytesHaveAUnit) {
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(12.34 * (1 << 30)), "12.3 GiB");
}

TEST(Format, DurationsHaveUnits) {
  EXPECT_EQ(format_seconds(0), "0 s");
  EXPECT_EQ(format_seconds(0.0015), "1.5 ms");
  EXPECT_EQ(format_seconds(0.42), "0.42 s");
  EXPECT_EQ(format_seconds(5), "5 s");
  EXPECT_EQ(format_seconds(59.4), "59 s");
  EXPECT_EQ(format_seconds(59.9), "1 min 00 s");
  EXPECT_EQ(format_seconds(125), "2 min 05 s");
  EXPECT_EQ(format_seconds(3780), "1 h 03 min");
}

TEST(Format, ExtremeNumbersAreFormatted) {
  for (const double value :
       {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN(), 1e308, -1e308, 5e-324}) {
    EXPECT_FALSE(format_size(value).empty());
    EXPECT_FALSE(format_bytes(value).empty());
    EXPECT_FALSE(format_seconds(value).empty());
  }
}

TEST(Format, EscapedTextHasNoControlCharacters) {
  EXPECT_EQ(escape("größe €'"), "größe €'");
  EXPECT_EQ(escape(std::string_view("a\0\n\x1b[2J\x7f", 8)), "a\\x00\\x0a\\x1b[2J\\x7f");
  EXPECT_EQ(escape("\xff\xc2\x9b"), "\\xff\\xc2\\x9b") << "an invalid byte and a control character of two bytes";
  EXPECT_EQ(escape(std::string(100, 'x')), std::string(100, 'x'));
}

TEST(Format, QuotedTextIsOneShortLineOfUtf8) {
  EXPECT_EQ(quote("topk"), "'topk'");
  EXPECT_EQ(quote("größe €"), "'größe €'");
  EXPECT_EQ(quote(std::string_view("a\0\n\x7f", 4)), "'a\\x00\\x0a\\x7f'");
  EXPECT_EQ(quote("\xff\xc3"), "'\\xff\\xc3'");
  EXPECT_EQ(quote("\xc0\x80"), "'\\xc0\\x80'");
  EXPECT_EQ(quote("\xed\xa0\x80"), "'\\xed\\xa0\\x80'");
  EXPECT_EQ(quote(std::string(61, 'x')), "'" + std::string(60, 'x') + "…'");
  EXPECT_EQ(quote(std::string(60, 'x')), "'" + std::string(60, 'x') + "'");
  EXPECT_EQ(quote(std::string(59, 'x') + "€y"), "'" + std::string(59, 'x') + "€…'");
}

TEST(Format, ListsAreJoinedByCommas) {
  EXPECT_EQ(comma_list(std::vector<std::string>{}), "");
  EXPECT_EQ(comma_list(std::vector<std::string>{"a"}), "a");
  EXPECT_EQ(comma_list(std::vector<std::string>{"a", "b"}), "a, b");
}

}  // namespace
}  // namespace fathom
