#include "tokens/pretokenizer.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace fathom {
namespace {

/// Returns the words of `text`, joined by "|".
std::string words(std::string_view name, std::string_view text) {
  std::string joined;
  Pretokenizer(find_pretokenizer(name, "test").steps).split(text, [&](std::string_view word) {
    if (!joined.empty()) joined += '|';
    joined += word;
  });
  return joined;
}

TEST(Pretokenizer, Gpt2KeepsSpacesWithWordsAndNumbersWhole) {
  EXPECT_EQ(words("gpt-2", "I'm 1234 years  old!\n"), "I|'m| 1234| years| | old|!|\n");
  EXPECT_EQ(words("gpt-2", "I'M"), "I|'|M");
}

TEST(Pretokenizer, Llama3SplitsNumbersIntoThreesAndIgnoresCaseInContractions) {
  EXPECT_EQ(words("llama-bpe", "I'M 12345 ok...\n\nso"), "I|'M| |123|45| ok|...\n\n|so");
}

TEST(Pretokenizer, Qwen2SplitsNumbersIntoDigits) { EXPECT_EQ(words("qwen2", "a 123"), "a| |1|2|3"); }

TEST(Pretokenizer, Qwen35KeepsMarksWithLetters) {
  EXPECT_EQ(words("qwen2", "e\u0301t"), "e|\u0301t");
  EXPECT_EQ(words("qwen35", "e\u0301t"), "e\u0301t");
}

TEST(Pretokenizer, Gpt4oSplitsAtCaseAndKeepsContractions) {
  EXPECT_EQ(words("gpt-4o", "HelloWorld don't"), "Hello|World| don't");
}

TEST(Pretokenizer, StarcoderSplitsDigitsBeforeWords) { EXPECT_EQ(words("starcoder", "a12 3"), "a|1|2| |3"); }

TEST(Pretokenizer, DeepseekLlmSplitsLineEndsAndScripts) {
  EXPECT_EQ(words("deepseek-llm", "ab 12\n你好  "), "ab| |12|\n|你好|  ");
}

TEST(Pretokenizer, KimiSplitsChineseFromLetters) {
  EXPECT_EQ(words("kimi-k2", "ab你好cd 1234"), "ab|你好|cd| |123|4");
  EXPECT_EQ(words("kimi-k2", "  你"), " | |你");
}

TEST(Pretokenizer, ThousandsAreCountedFromTheRight) {
  EXPECT_EQ(words("superbpe", "a 1234567 b"), "a |1|234|567| b");
  EXPECT_EQ(words("tiny_aya", "123"), "123");
  EXPECT_EQ(words("tiny_aya", "12345"), "12|345");
}

TEST(Pretokenizer, Jais2SplitsSpacesIntoPowersOfTwo) {
  EXPECT_EQ(words("jais-2", "a" + std::string(14, ' ') + "b"), "a|        |    | | b");
  EXPECT_EQ(words("jais-2", "a   \n   \nb"), "a|   \n   \n|b");
}

TEST(Pretokenizer, BytesThatAreNotUtf8AreSeparateWords) {
  EXPECT_EQ(words("gpt-2", "ab\xff\xfe cd\xc3"), "ab|\xff\xfe| cd|\xc3");
}

TEST(Pretokenizer, ThePatternsOfEveryNameCompile) {
  size_t names = 0;
  for (const PretokenizerInfo& info : pretokenizers()) {
    for (const std::string_view name : info.names) {
      EXPECT_EQ(&find_pretokenizer(name, "test"), &info) << name << " is listed twice";
      ++names;
    }
    EXPECT_NO_THROW(Pretokenizer{info.steps}) << info.names[0];
  }
  EXPECT_GE(names, 60u);
}

}  // namespace
}  // namespace fathom
