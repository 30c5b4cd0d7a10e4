#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "decode/draft_simulation.h"
#include "decode/drafts/ngram_table.h"
#include "paths.h"

namespace fathom {
namespace {

using test::propose_after;
using test::simulate;
using Tokens = std::vector<int32_t>;

TEST(NgramTable, FindsTheLatestOccurrenceAndWhetherThereAreSeveral) {
  std::mt19937 random(test::seed(1));
  for (int n = 1; n <= 4; ++n) {
    NgramTable table(n);
    const Tokens text = test::random_tokens(random, 400, 4);
    EXPECT_EQ(table.find(text, Tokens(n)).end, 0u);
    std::map<Tokens, std::pair<size_t, int>> expected;
    for (size_t end = 0; end <= text.size(); ++end) {
      table.add(text, end);
      if (end < static_cast<size_t>(n)) continue;
      auto& [latest, count] = expected[Tokens(text.begin() + end - n, text.begin() + end)];
      latest = end;
      ++count;
    }
    for (const auto& [gram, found] : expected) {
      EXPECT_EQ(table.find(text, gram).end, found.first);
      EXPECT_EQ(table.find(text, gram).several, found.second > 1);
    }
    EXPECT_EQ(table.find(text, Tokens(n, 9)).end, 0u);
  }
}

TEST(DraftNgram, CopiesAfterTheLatestOccurrenceOfTheLongestMatch) {
  const auto source = test::make_source("ngram");
  // 7 8 occurs twice, 6 7 8 once.
  EXPECT_EQ(propose_after(*source, {5, 6, 7, 8, 1, 2, 7, 8, 3, 4, 6, 7, 8}, 3).tokens, (Tokens{1, 2, 7}));
  const auto latest = test::make_source("ngram");
  EXPECT_EQ(propose_after(*latest, {5, 7, 8, 1, 2, 7, 8, 3, 4, 6, 7, 8}, 3).tokens, (Tokens{3, 4, 6}));
  const auto short_one = test::make_source("ngram");
  EXPECT_EQ(propose_after(*short_one, {5, 8, 1, 2, 8}, 3).size(), 0);
  const auto unigram = test::make_source("ngram:min=1");
  EXPECT_EQ(propose_after(*unigram, {5, 8, 1, 2, 8}, 3).tokens, (Tokens{1, 2, 8}));
}

TEST(DraftNgram, EqualsASearchOfTheWholeText) {
  std::mt19937 random(test::seed(2));
  const auto source = test::make_source("ngram:max=4,min=2");
  const Tokens text = test::random_tokens(random, 500, 5);
  int drafts = 0;
  for (size_t size = 1; size <= text.size(); size += 1 + random() % 3) {
    Tokens expected;
    for (size_t n = 4; n >= 2 && expected.empty(); --n) {
      for (size_t end = size - 1; n < size && end >= n && expected.empty(); --end) {
        if (!std::equal(text.begin() + size - n, text.begin() + size, text.begin() + end - n)) continue;
        for (size_t i = end; expected.size() < 8; ++i)
          expected.push_back(i < size ? text[i] : expected[i - size]);  // periodic beyond the end
      }
    }
    const Draft draft = propose_after(*source, Tokens(text.begin(), text.begin() + size), 8);
    ASSERT_EQ(draft.tokens, expected) << size;
    drafts += draft.size() > 0;
  }
  EXPECT_GT(drafts, 100);
}

TEST(DraftNgram, EstimatesFollowTheAcceptanceByMatchLength) {
  std::mt19937 random(test::seed(3));
  // After 1 2 comes a random token, three times as often as the form starts with 10 11.
  const Tokens form = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
  const auto any = [&] { return static_cast<int32_t>(100 + random() % 1000000); };
  Tokens output;
  while (output.size() < 3000) {
    for (int i = 0; i < 3; ++i) output.insert(output.end(), {any(), 1, 2});
    output.push_back(any());
    output.insert(output.end(), form.begin(), form.end());
  }
  const auto source = test::make_source("ngram");
  simulate(*source, test::writes(output, 1), {1}, 2000, 4);
  Tokens text{1};
  text.insert(text.end(), output.begin(), output.begin() + 2000);
  text.insert(text.end(), {500, 1, 2});
  const Draft weak = propose_after(*source, text, 4);
  ASSERT_GT(weak.size(), 0);
  EXPECT_LT(weak.estimates[0], 0.5f);
  text.push_back(511);
  text.insert(text.end(), form.begin(), form.begin() + 3);
  const Draft strong = propose_after(*source, text, 4);
  ASSERT_GT(strong.size(), 0);
  EXPECT_GT(strong.estimates[0], 0.85f);
}

TEST(DraftNgram, DraftsAreLosslessAndRepeatedTextIsCopied) {
  std::mt19937 random(test::seed(4));
  const Tokens output = test::random_tokens(random, 200, 512);
  const auto source = test::make_source("ngram");
  const auto text = simulate(*source, test::writes(output, 1), {1}, 1000, 15);
  // The first 200 tokens are new; each later pass gives 16.
  EXPECT_LE(text.forwards(), 200 + 3 + 800 / 16 + 1);
}

TEST(DraftNgram, RejectsContradictoryParameters) {
  EXPECT_THROW(test::make_source("ngram:min=6"), Error);
  EXPECT_THROW(test::make_source("ngram:max=17"), Error);
  EXPECT_THROW(test::make_source("ngram:min=0"), Error);
}

TEST(DraftCopy, IdenticalOutputTakesOneForwardPerDraft) {
  std::mt19937 random(test::seed(5));
  for (const size_t size : {5u, 40u, 63u, 64u}) {
    const Tokens prompt = test::random_tokens(random, size, 512);
    const auto source = test::make_source("copy");
    const auto text = simulate(*source, test::writes(prompt, size), prompt, size, 63);
    EXPECT_EQ(text.forwards(), 1) << size;
  }
  const Tokens prompt = test::random_tokens(random, 640, 512);
  const auto source = test::make_source("copy");
  EXPECT_LE(simulate(*source, test::writes(prompt, 640), prompt, 640, 63).forwards(), 10);
}

TEST(DraftCopy, ForwardsAreBoundedByTheNumberOfEdits) {
  std::mt19937 random(test::seed(6));
  for (int repeat = 0; repeat < 20; ++repeat) {
    // Distinct tokens, so that every token is found; edits put in tokens that do not occur in the source.
    Tokens prompt(200);
    for (int32_t i = 0; i < 200; ++i) prompt[i] = i;
    std::ranges::shuffle(prompt, random);
    Tokens output;
    int edits = 0, unmatched = 0;
    for (size_t i = 0; i < prompt.size(); ++i) {
      if (i % 10 != 9) {
        output.push_back(prompt[i]);
        continue;
      }
      ++edits;
      const int kind = static_cast<int>(random() % 3);  // replaced, deleted, inserted before
      if (kind != 1) output.push_back(static_cast<int32_t>(300 + random() % 200)), ++unmatched;
      if (kind == 2) output.push_back(prompt[i]);
    }
    const auto source = test::make_source("copy");
    const auto text = simulate(*source, test::writes(output, prompt.size()), prompt, output.size(), 63);
    EXPECT_LE(text.forwards(), 2 * (edits + 1) + unmatched);
    EXPECT_GT(text.tokens_per_forward(), 3);
  }
}

TEST(DraftCopy, TakesTheShortestSuffixThatOccursOnce) {
  const Tokens prompt{9, 1, 2, 3, 4, 1, 2, 5, 6, 3, 2, 7};
  const auto after = [&](Tokens output) {
    const auto source = test::make_source("copy");
    source->start(prompt);
    Tokens text = prompt;
    text.insert(text.end(), output.begin(), output.end());
    return propose_after(*source, text, 3, std::ssize(prompt)).tokens;
  };
  EXPECT_EQ(after({4}), (Tokens{1, 2, 5}));        // 4 occurs once
  EXPECT_EQ(after({2}), Tokens{});                 // 2 occurs three times, and there is no more output
  EXPECT_EQ(after({3, 2}), (Tokens{7}));           // 3 2 occurs once
  EXPECT_EQ(after({1, 2}), Tokens{});              // 1 2 occurs twice
  EXPECT_EQ(after({4, 50, 1, 2}), Tokens{});       // 50 1 2 does not occur
  EXPECT_EQ(after({4, 1, 2}), (Tokens{5, 6, 3}));  // the copy continues
  EXPECT_EQ(after({8, 50}), Tokens{});             // neither occurs
  EXPECT_EQ(after({9}), (Tokens{1, 2, 3}));        // the start of the source
  EXPECT_EQ(after({6, 3, 2, 7}), Tokens{});        // the end of the source
  EXPECT_EQ(after({6, 3, 2, 7, 5}), (Tokens{6, 3, 2}));
}

TEST(DraftCopy, CopiesFilesAndReportsThoseItCannotRead) {
  const auto model = Model::open(test::seedling_path());
  DraftSetup setup;
  setup.model = model;
  const Tokenizer tokenizer(Vocabulary::read(*model->file()));
  setup.tokenizer = &tokenizer;
  const MethodTable<DraftMethod>& table = draft_methods();
  const std::string folder = ::testing::TempDir();
  const std::string first = folder + "draft_copy_1.txt", second = folder + "draft_copy_2.txt";
  std::ofstream(first) << "The first file says that the river rises in spring.";
  std::ofstream(second) << "Another file tells of ships with seven masts.";
  const Tokens expected =
      setup.tokenizer->encode("Another file tells of ships with seven masts.", {.add_bos_eos = false});
  const auto source = table.make("copy:file=" + first + "+" + second, setup);
  const Tokens prompt{1, 2, 3};
  source->start(prompt);
  Tokens text = prompt;
  text.push_back(expected[0]);
  Tokens begin(expected.begin() + 1, expected.begin() + 5);
  EXPECT_EQ(propose_after(*source, text, 4, 3).tokens, begin);

  EXPECT_THROW(table.make("copy:file=" + folder + "missing.txt", setup), Error);
  EXPECT_THROW(table.make("copy:file=" + folder, setup), Error);
  EXPECT_THROW(table.make("copy:file=" + first + "++" + second, setup), Error);
  setup.tokenizer = nullptr;
  EXPECT_THROW(table.make("copy:file=" + first, setup), Error);
  std::filesystem::resize_file(second, (uint64_t{256} << 20) + 1);
  setup.tokenizer = &tokenizer;
  EXPECT_THROW(table.make("copy:file=" + second, setup), Error);
  std::filesystem::remove(first);
  std::filesystem::remove(second);
}

}  // namespace
}  // namespace fathom
