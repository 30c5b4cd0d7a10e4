#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "program.h"
#include "seed.h"

namespace fathom::test {
namespace {

TEST(CliTokens, RandomBytesRoundTrip) {
  std::mt19937 random(test::seed(1));
  for (const size_t size : {1, 7, 1000, 200000}) {
    std::string bytes(size, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    EXPECT_EQ(output({"tokens", "--decode"}, output({"tokens"}, bytes)), bytes) << size;
  }
}

TEST(CliTokens, SpecialTokenTextRoundTrips) {
  for (const std::string text : {"<s>", " </s> x", "\n", "  ", "\xe2\x96\x81", "a\xff\xfe", "\xc3"}) {
    EXPECT_EQ(output({"tokens", "--decode"}, output({"tokens"}, text)), text);
  }
}

TEST(CliTokens, IdsAreOnOneLineSeparatedBySpaces) {
  const std::string ids = output({"tokens"}, "Call me Ishmael.\nSome years ago");
  EXPECT_EQ(ids.find_first_not_of("0123456789 \n"), std::string::npos);
  EXPECT_EQ(ids.find('\n'), ids.size() - 1);
  EXPECT_NE(ids[0], ' ');
  EXPECT_EQ(ids.find("  "), std::string::npos);
}

TEST(CliTokens, BosIsAddedOnlyWithTheOption) {
  const std::string plain = output({"tokens"}, "word");
  EXPECT_EQ(output({"tokens", "--bos"}, "word"), "1 " + plain);
}

TEST(CliTokens, SpecialTokensAreParsedOnlyWithTheOption) {
  EXPECT_EQ(output({"tokens", "--special"}, "</s>"), "2\n");
  const std::string plain = output({"tokens"}, "</s>");
  EXPECT_GT(std::ranges::count(plain, ' '), 0);
  EXPECT_EQ(output({"tokens", "--decode", "--special"}, "2"), "</s>");
  EXPECT_EQ(output({"tokens", "--decode"}, "2"), "");
}

TEST(CliTokens, EmptyTextHasNoTokens) {
  EXPECT_EQ(output({"tokens"}, ""), "\n");
  EXPECT_EQ(output({"tokens", "--decode"}, " \n"), "");
}

TEST(CliTokens, InvalidIdsAreNamed) {
  expect_error(run({"tokens", "--decode"}, "1 2 x3 4"), 1, {"standard input", "byte 4", "'x3'"});
  expect_error(run({"tokens", "--decode"}, "1 4096"), 1, {"4096"});
  expect_error(run({"tokens", "--decode"}, "-1"), 1, {"-1"});
  expect_error(run({"tokens", "--decode"}, "99999999999999999999"), 1, {"'99999999999999999999'"});
}

}  // namespace
}  // namespace fathom::test
