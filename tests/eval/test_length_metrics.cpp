#include "eval/length_metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "models/model.h"
#include "paths.h"

namespace fathom::eval {
namespace {

std::string words(int64_t n) {
  std::string text;
  for (int64_t i = 0; i < n; ++i) text += i % 2 ? "word, " : "another ";
  return text;
}

const LengthTarget& target(const std::string& name) {
  const auto found = std::ranges::find(length_targets(), name, &LengthTarget::name);
  EXPECT_NE(found, length_targets().end()) << name;
  return *found;
}

/// The published ranges: the lower ends are exclusive, the upper ends inclusive. −1: no upper end.
struct PublishedRanges {
  const char* name;
  int level;
  int64_t precise_above, precise_up_to, flexible_above, flexible_up_to;
};
const std::vector<PublishedRanges> kPublished{
    {"10", 0, 0, 20, 0, 20},        {"30", 0, 20, 40, 20, 40},      {"50", 0, 40, 60, 40, 60},
    {"80", 0, 70, 90, 60, 100},     {"150", 1, 130, 170, 100, 200}, {"300", 1, 280, 320, 200, 400},
    {"500", 1, 450, 550, 400, 600}, {"700", 2, 630, 770, 600, 800}, {">800", 2, 800, -1, 800, -1},
};

TEST(LengthMetrics, MatchesAtEveryBoundaryAsPublished) {
  ASSERT_EQ(length_targets().size(), kPublished.size());
  for (const PublishedRanges& published : kPublished) {
    const LengthTarget& t = target(published.name);
    EXPECT_EQ(t.level, published.level) << published.name;
    EXPECT_EQ(t.token, "[MLT:" + std::string(published.name) + "]");
    const auto expect = [&](int64_t count, bool precise, bool flexible) {
      LengthMatches matches;
      matches.add(t, words(count));
      EXPECT_EQ(matches.all().precise, precise) << published.name << ", " << count << " words";
      EXPECT_EQ(matches.all().flexible, flexible) << published.name << ", " << count << " words";
    };
    const auto within = [](int64_t count, int64_t above, int64_t up_to) {
      return count > above && (up_to < 0 || count <= up_to);
    };
    for (const int64_t end : {published.precise_above, published.precise_up_to, published.flexible_above,
                              published.flexible_up_to, int64_t{5000}})
      for (int64_t count = std::max<int64_t>(0, end - 1); count <= end + 1; ++count)
        expect(count, within(count, published.precise_above, published.precise_up_to),
               within(count, published.flexible_above, published.flexible_up_to));
  }
}

TEST(LengthMetrics, WordsAreRunsOfWordCharacters) {
  EXPECT_EQ(count_word_runs(""), 0);
  EXPECT_EQ(count_word_runs(" .,;\n"), 0);
  EXPECT_EQ(count_word_runs("one"), 1);
  EXPECT_EQ(count_word_runs("  one,two;three  "), 3);
  EXPECT_EQ(count_word_runs("don't stop"), 3) << "the apostrophe separates";
  EXPECT_EQ(count_word_runs("3.14 snake_case well-known"), 5);
  EXPECT_EQ(count_word_runs("Größe naïve"), 2);
  EXPECT_EQ(count_word_runs("你好，世界"), 2);
  EXPECT_EQ(count_word_runs(std::string(1000, 'a')), 1);
}

TEST(LengthMetrics, LevelsAndTotalCountTheirAnswers) {
  LengthMatches matches;
  EXPECT_EQ(matches.all().precise_match(), 0) << "no answers";
  matches.add(target("10"), words(5));      // level 0: both
  matches.add(target("80"), words(65));     // level 0: flexible
  matches.add(target("80"), words(101));    // level 0: none
  matches.add(target("30"), words(30));     // level 0: both
  matches.add(target("300"), words(399));   // level 1: flexible
  matches.add(target(">800"), words(801));  // level 2: both
  EXPECT_EQ(matches.of_level(0).answers, 4);
  EXPECT_EQ(matches.of_level(0).precise_match(), 0.5);
  EXPECT_EQ(matches.of_level(0).flexible_match(), 0.75);
  EXPECT_EQ(matches.of_level(1).precise_match(), 0);
  EXPECT_EQ(matches.of_level(1).flexible_match(), 1);
  EXPECT_EQ(matches.of_level(2).precise_match(), 1);
  EXPECT_EQ(matches.all().answers, 6);
  EXPECT_EQ(matches.all().precise_match(), 3.0 / 6);
  EXPECT_EQ(matches.all().flexible_match(), 5.0 / 6);
}

TEST(LengthMetrics, EveryLengthHasOneTarget) {
  int64_t covered = 0;
  for (const LengthTarget& t : length_targets()) {
    EXPECT_EQ(t.flexible.above, covered) << t.name;
    covered = t.flexible.up_to;
  }
  EXPECT_EQ(covered, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(length_target(1).name, "10");
  EXPECT_EQ(length_target(20).name, "10");
  EXPECT_EQ(length_target(21).name, "30");
  EXPECT_EQ(length_target(100).name, "80");
  EXPECT_EQ(length_target(101).name, "150");
  EXPECT_EQ(length_target(800).name, "700");
  EXPECT_EQ(length_target(801).name, ">800");
  EXPECT_EQ(length_target(covered).name, ">800");
  for (const int64_t bad : {int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::min()})
    EXPECT_THROW(length_target(bad), Error) << bad;
}

Tokenizer with_pieces(std::vector<std::string> special) {
  Vocabulary vocabulary;
  vocabulary.pieces = {"<unk>", "a", "b"};
  vocabulary.types = {TokenType::kUnknown, TokenType::kNormal, TokenType::kNormal};
  vocabulary.unknown = 0;
  for (std::string& piece : special) {
    vocabulary.pieces.push_back(std::move(piece));
    vocabulary.types.push_back(TokenType::kControl);
  }
  return Tokenizer(std::move(vocabulary));
}

std::string prefix_error(const Tokenizer& tokenizer, int64_t count) {
  try {
    length_prefix(tokenizer, count);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    return error.what();
  }
  return "no error";
}

TEST(LengthMetrics, PrefixIsTheMetaLengthToken) {
  std::vector<std::string> all;
  for (const LengthTarget& t : length_targets()) all.emplace_back(t.token);
  const Tokenizer tokenizer = with_pieces(all);
  EXPECT_EQ(length_prefix(tokenizer, 12), std::vector<int32_t>{3});
  EXPECT_EQ(length_prefix(tokenizer, 75), std::vector<int32_t>{6});
  EXPECT_EQ(length_prefix(tokenizer, 5000), std::vector<int32_t>{11});
  EXPECT_EQ(prefix_error(tokenizer, 0), "length: expected at least 1 word, found 0");
}

TEST(LengthMetrics, ModelsWithoutMetaLengthTokensAreRefused) {
  EXPECT_EQ(prefix_error(with_pieces({}), 75),
            "length: expected a model trained with the meta length token [MLT:80], found a vocabulary without meta "
            "length tokens");
  EXPECT_EQ(
      prefix_error(with_pieces({"[MLT:10]", "[MLT:>800]"}), 75),
      "length: expected a model trained with the meta length token [MLT:80], found a vocabulary with [MLT:10], "
      "[MLT:>800] only");
  const auto model = Model::open(test::seedling_path());
  EXPECT_THROW(length_prefix(Tokenizer(Vocabulary::read(*model->file())), 100), Error);
}

}  // namespace
}  // namespace fathom::eval
