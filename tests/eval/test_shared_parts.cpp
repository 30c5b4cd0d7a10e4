// Tests of the parts that all tasks use: random numbers, fitting to a length, haystacks, words.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include "text_match.h"

#include "base/error.h"
#include "eval/fit.h"
#include "eval/haystack.h"
#include "eval/json_lines.h"
#include "eval/tasks/hiding.h"
#include "eval/words.h"
#include "task_bench.h"

namespace fathom::eval {
namespace {

TEST(Rng, ReturnsFixedNumbers) {
  Rng rng(1, "task", 1024, 0);
  EXPECT_EQ(rng.bits(), 1272976250118950650u);  // SplitMix64, computed by another program
  EXPECT_EQ(rng.below(1000), 647);
}

TEST(Rng, IsUniformAndIndependentAcrossIndices) {
  std::vector<int> counts(10);
  for (int64_t index = 0; index < 10000; ++index) ++counts[Rng(1, "task", 1024, index).below(10)];
  for (const int count : counts) EXPECT_NEAR(count, 1000, 100);  // 3.3 standard deviations
}

TEST(Rng, DistinctReturnsAPermutation) {
  Rng rng(7, "", 0, 0);
  for (int64_t n : {1, 2, 10, 1000}) {
    std::vector<int64_t> all = rng.distinct(n, n);
    std::ranges::sort(all);
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(all[i], i);
  }
  const std::vector<int64_t> drawn = rng.distinct(int64_t{1} << 40, 100);
  EXPECT_EQ(std::set<int64_t>(drawn.begin(), drawn.end()).size(), 100u);
}

TEST(LargestFit, FindsTheLargestInFewCalls) {
  for (const int64_t budget : {5, 99, 1000, 777777}) {
    int calls = 0;
    const auto size = [&](int64_t units) {
      ++calls;
      return 5 + 7 * units + units % 3;
    };
    const int64_t units = largest_fit(1000000, budget, size);
    EXPECT_LE(size(units), budget);
    EXPECT_GT(size(units + 1), budget - 3);
    EXPECT_LT(calls, 25) << budget;
  }
  EXPECT_EQ(largest_fit(10, 3, [](int64_t) { return 4; }), -1);
  EXPECT_EQ(largest_fit(10, 4, [](int64_t) { return 4; }), 10);
  EXPECT_EQ(largest_fit(0, 4, [](int64_t) { return 4; }), 0);
}

TEST(LargestFit, HandlesSizesThatJump) {
  for (int64_t jump = 1; jump < 1000; jump += 37) {
    const auto size = [&](int64_t units) { return units < jump ? 1 : 1000000; };
    EXPECT_EQ(largest_fit(1000, 10, size), jump - 1);
  }
}

TEST(Prose, HasTheRequestedWordsAndNoHiddenStatements) {
  const auto prose = prose_haystack();
  for (const int64_t words : {0, 1, 37, 20000}) {
    Rng rng(1, "prose", 0, words);
    EXPECT_EQ(static_cast<int64_t>(word_ends(prose->text(rng, words)).size()), words);
  }
  Rng rng(2, "prose", 0, 0);
  const std::string text = prose->text(rng, 50000);
  EXPECT_FALSE(std::regex_search(text, std::regex("[0-9\"{}]|magic|secret code|pass key| a [aeiou]")));
  const std::vector<std::string_view> sentences = split_sentences(text);
  EXPECT_GT(std::set<std::string_view>(sentences.begin(), sentences.end()).size(), sentences.size() * 9 / 10);
}

TEST(Sentences, AreSplitAfterFullStopsAndLines) {
  EXPECT_EQ(split_sentences("One. Two! Three\nfour?  Five"),
            (std::vector<std::string_view>{"One. ", "Two! ", "Three\n", "four? ", " Five"}));
  EXPECT_TRUE(split_sentences("").empty());
  std::string joined;
  const std::string text = "A. B.\n\nC\n\n\nD";
  for (const std::string_view sentence : split_sentences(text)) joined += sentence;
  EXPECT_EQ(joined, text);
}

TEST(Hiding, InsertsTextsAtBoundariesNearTheirDepths) {
  const std::string text = "Aaaa aaa. Bbbb bbb. Cccc ccc. Dddd ddd.";
  EXPECT_EQ(hide_in_prose(text, {{"X."}, {0}}), "X. " + text);
  EXPECT_EQ(hide_in_prose(text, {{"X."}, {1}}), text + " X.");
  EXPECT_EQ(hide_in_prose(text, {{"X.", "Y."}, {0.5, 0.5}}), "Aaaa aaa. Bbbb bbb. X. Y. Cccc ccc. Dddd ddd.");
  EXPECT_EQ(hide_in_prose("", {{"X."}, {0.3}}), "X.");
  const std::string noise = std::string(kNoiseLine) + "\n";
  EXPECT_EQ(hide_in_noise(2, {{"X", "Y"}, {0.5, 1}}), noise + "X\n" + noise + "Y\n");
}

TEST(Words, AreDistinctAndSorted) {
  for (const WordList* list : {&adjectives(), &nouns(), &first_names(), &towns(), &common_words()}) {
    EXPECT_TRUE(std::ranges::is_sorted(*list));
    EXPECT_EQ(std::ranges::adjacent_find(*list), list->end());
  }
  EXPECT_GT(common_words().size(), 3000u);
  for (const std::string_view adjective : adjectives())
    EXPECT_FALSE(std::ranges::binary_search(nouns(), adjective)) << adjective;
}

class HaystackFiles : public ::testing::Test {
 protected:
  HaystackFiles()
      : folder_(std::filesystem::temp_directory_path() / ("fathom-ground-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_ / "sub");
  }
  ~HaystackFiles() override { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  template <class Call>
  static std::string error_of(Call call) {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::filesystem::path folder_;
};

TEST_F(HaystackFiles, FolderIsReadInOrderOfFileNames) {
  write("b.txt", "three four\n");
  write("sub/c.md", "five");
  write("a.txt", "one  two");
  write("ignored.bin", "\xff\xfe");
  Rng rng(1, "", 0, 0);
  EXPECT_EQ(file_haystack(folder_)->text(rng, 100), "one  two\n\nthree four\n\n\nfive");
  EXPECT_EQ(word_ends(file_haystack(folder_, {.repeat = true})->text(rng, 12)).size(), 12u);
  EXPECT_EQ(file_haystack(folder_, {.repeat = true})->text(rng, 6), "one  two\n\nthree four\n\n\nfive\n\none");
}

TEST_F(HaystackFiles, StartsAtParagraphsWithEnoughTextAfterThem) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "start" + std::to_string(i) + " and more words\n\n";
  const auto haystack = file_haystack(write("a.txt", text));
  std::set<std::string> starts;
  for (int64_t index = 0; index < 200; ++index) {
    Rng rng(1, "", 0, index);
    const std::string passage = haystack->text(rng, 40);
    EXPECT_EQ(word_ends(passage).size(), 40u);
    EXPECT_TRUE(passage.starts_with("start")) << passage;
    starts.insert(passage.substr(0, passage.find(' ')));
  }
  EXPECT_GT(starts.size(), 30u);
}

TEST_F(HaystackFiles, FromStartEverySampleBeginsWithTheFirstWord) {
  const auto haystack = text_haystack("a text", "one two\n\nthree\n\nfour five", {.from_start = true});
  EXPECT_EQ(haystack->name(), "a text");
  for (int64_t index = 0; index < 20; ++index) {
    Rng rng(1, "", 0, index);
    EXPECT_EQ(haystack->text(rng, 3), "one two\n\nthree");
  }
}

TEST_F(HaystackFiles, InvalidHaystacksAreErrorsThatNameTheProblem) {
  const auto open = [](const std::string& path) { return error_of([&] { file_haystack(path); }); };
  EXPECT_NE(open("/no/such/file").find("/no/such/file"), std::string::npos);
  EXPECT_NE(open(write("empty.txt", "")).find("contains no words"), std::string::npos);
  EXPECT_NE(open(write("blank.txt", " \n\t ")).find("contains no words"), std::string::npos);
  EXPECT_NE(open(write("binary.txt", std::string("text\0more", 9))).find("byte 4"), std::string::npos);
  EXPECT_NE(open(write("latin.txt", "caf\xe9 noir")).find("byte 3"), std::string::npos);
  EXPECT_NE(open(folder_ / "sub").find("contains no .txt or .md file"), std::string::npos);
}

TEST_F(HaystackFiles, TooShortIsAnErrorUnlessRepeated) {
  const std::string path = write("short.txt", "Only a few words stand here. And some more.");
  const std::unique_ptr<Haystack> single = file_haystack(path), repeated = file_haystack(path, {.repeat = true});
  TaskInput input = bytes_input();
  for (const char* name : {"needle", "niah_single_2", "perplexity"}) {
    input.haystack = single.get();
    const std::string error = error_of([&] { task_of(name)->make(input, 2048, 0); });
    EXPECT_NE(error.find("short.txt"), std::string::npos) << error;
    EXPECT_NE(error.find("--repeat-haystack"), std::string::npos) << error;
    input.haystack = repeated.get();
    EXPECT_GE(tokens_of(input, task_of(name)->make(input, 2048, 0)), 1940);
  }
}

TEST_F(HaystackFiles, JsonLinesErrorsNameTheLine) {
  int64_t last_line = 0;
  const auto read = [&](const std::string& text) {
    return error_of(
        [&] { read_json_lines(write("a.jsonl", text), [&](int64_t line, const auto&) { last_line = line; }); });
  };
  EXPECT_EQ(read("{\"a\":1}\n\n{\"b\":2}"), "no error");
  EXPECT_EQ(last_line, 3);
  EXPECT_NE(read("{\"a\":1}\n{\"b\":").find("a.jsonl: line 2: invalid JSON"), std::string::npos);
  EXPECT_NE(read("{}\n[1]\n").find("line 2: expected an object"), std::string::npos);
  EXPECT_NE(read(std::string("{}\n\xff\0\n", 6)).find("line 2"), std::string::npos);
  EXPECT_EQ(read(""), "no error");
}

}  // namespace
}  // namespace fathom::eval
