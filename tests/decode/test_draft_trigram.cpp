#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <tuple>

#include "decode/draft_simulation.h"
#include "decode/drafts/trigram_search.h"
#include "decode/drafts/trigram_table.h"
#include "paths.h"

namespace fathom {
namespace {

using test::simulate;
using Tokens = std::vector<int32_t>;
using Successor = TrigramTable::Successor;

std::vector<Successor> find(const TrigramTable& table, int32_t a, int32_t b) {
  std::vector<Successor> found;
  table.find(a, b, found);
  return found;
}

TEST(TrigramTable, WeightsEqualThoseOfAMap) {
  std::mt19937 random(test::seed(1));
  TrigramTable table(100000);
  std::map<std::tuple<int, int, int>, float> expected;
  for (int i = 0; i < 20000; ++i) {
    const auto [a, b, c] = std::tuple<int, int, int>(random() % 12, random() % 12, random() % 12);
    table.add(a, b, c, 0.04f, 3);
    float& weight = expected[{a, b, c}];
    weight = std::min(weight + 0.04f, 3.0f);
  }
  EXPECT_EQ(table.size(), std::ssize(expected));
  for (int a = 0; a < 12; ++a) {
    for (int b = 0; b < 12; ++b) {
      float sum = 0;
      for (int c = 0; c < 12; ++c) sum += expected[{a, b, c}];
      const auto found = find(table, a, b);
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_NEAR(found[i].probability, (expected[{a, b, found[i].token}] / sum), 1e-5);
        if (i > 0) {
          EXPECT_GE(found[i - 1].probability, found[i].probability);
        }
      }
    }
  }
  EXPECT_TRUE(find(table, 12, 0).empty());
}

TEST(TrigramTable, WeightsAreCappedAndTheThirteenthSuccessorReplacesTheLightest) {
  TrigramTable table(100);
  for (int i = 0; i < 500; ++i) table.add(1, 2, 3, 0.04f, 3);
  table.add(1, 2, 4, 1, 3);
  EXPECT_NEAR(find(table, 1, 2)[0].probability, 0.75, 1e-4);
  for (int32_t c = 5; c < 15; ++c) table.add(1, 2, c, c == 9 ? 0.1f : 0.5f, 3);
  table.add(1, 2, 50, 0.2f, 3);
  const auto found = find(table, 1, 2);
  ASSERT_EQ(found.size(), 12u);
  EXPECT_EQ(std::ranges::count(found, 9, &Successor::token), 0);
  EXPECT_EQ(std::ranges::count(found, 50, &Successor::token), 1);
  TrigramTable counts(100);
  counts.add(7, 8, 1, 3, 1e9f);
  counts.add(7, 8, 2, 1, 1e9f);
  counts.normalise();
  counts.add(7, 8, 2, 0.5f, 3);  // 0.75 and 0.25 + 0.5
  EXPECT_NEAR(find(counts, 7, 8)[0].probability, 0.5, 1e-6);
}

TEST(TrigramTable, SizeIsBoundedAndHeavyTrigramsStay) {
  std::mt19937 random(test::seed(2));
  TrigramTable table(1000);
  for (int32_t i = 0; i < 100; ++i) table.add(i, i + 1, i + 2, 2, 3);
  for (int i = 0; i < 50000; ++i) {
    table.add(1000 + random() % 5000, random() % 5000, random() % 5000, 0.04f, 3);
    ASSERT_LE(table.size(), 1000);
  }
  for (int32_t i = 0; i < 100; ++i) ASSERT_EQ(find(table, i, i + 1).size(), 1u);
}

/// Returns the path of kDepth tokens after (a, b) with the largest Σ P(next | pair), that sum, and in `second` the
/// largest sum of a path that starts with another token.
std::pair<double, Tokens> best_path(const TrigramTable& table, int32_t a, int32_t b, int depth, double* second) {
  std::pair<double, Tokens> best{0, {}};
  double other = 0;
  if (depth == 0) return best;
  for (const Successor& successor : find(table, a, b)) {
    auto [sum, path] = best_path(table, b, successor.token, depth - 1, nullptr);
    sum += successor.probability;
    path.insert(path.begin(), successor.token);
    if (sum > best.first) {
      other = best.first;
      best = {sum, path};
    } else {
      other = std::max(other, sum);
    }
  }
  if (second) *second = other;
  return best;
}

TEST(TrigramSearch, ManyVisitsOfAFrozenTableFindTheBestPath) {
  std::mt19937 random(test::seed(3));
  int compared = 0;
  for (int repeat = 0; repeat < 60; ++repeat) {
    TrigramTable table(10000);
    for (int i = 0; i < 60; ++i)
      table.add(random() % 4, random() % 4, random() % 4, static_cast<float>(1 + random() % 100), 1e9f);
    // Near-ties at any level are left out: the search tells them apart only after many more visits.
    double second = 0;
    auto best = best_path(table, 0, 1, TrigramSearch::kDepth, &second);
    bool clear = best.first - second > 0.3;
    for (size_t i = 0; i + 1 < best.second.size() && clear; ++i) {
      const int32_t a = i == 0 ? 1 : best.second[i - 1];
      const int depth = TrigramSearch::kDepth - 1 - static_cast<int>(i);
      clear = best_path(table, a, best.second[i], depth, &second).first - second > 0.3;
    }
    if (!clear) continue;
    ++compared;
    TrigramSearch search;
    const auto nodes = search.run(table, 0, 1, 100000, 7);
    Tokens path;
    for (int node = 0; nodes[node].children > 0;) {
      const auto children = nodes.subspan(nodes[node].first_child, nodes[node].children);
      node = static_cast<int>(std::ranges::max_element(children, {}, &TrigramSearch::Node::visits) -
                              children.begin() + nodes[node].first_child);
      path.push_back(nodes[node].token);
    }
    ASSERT_EQ(path, best.second) << repeat;
    ASSERT_EQ(nodes[0].visits, 100000);
  }
  RecordProperty("compared", compared);
  EXPECT_GE(compared, 3);
}

TEST(TrigramSearch, RollOutsEstimateTheMeanValueAndDependOnTheSeedAlone) {
  TrigramTable table(100);
  table.add(0, 0, 0, 3, 9);
  table.add(0, 0, 1, 1, 9);
  TrigramSearch search, again;
  // One visit: 0 (0.75), then a random path of at most three tokens that ends after a 1.
  double sum = 0;
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    const auto nodes = search.run(table, 0, 0, 1, seed * 1000003);
    sum += nodes[0].value;
    ASSERT_EQ(nodes[0].value, again.run(table, 0, 0, 1, seed * 1000003)[0].value);
  }
  double expected = 0;
  for (int left = 0; left < 3; ++left) expected = 0.75 * (0.75 + expected) + 0.25 * 0.25;
  EXPECT_NEAR(sum / 20000, 1.75 + expected, 0.02);
}

TEST(DraftTrigram, DraftsAreLosslessAndAdaptToTheText) {
  std::mt19937 random(test::seed(4));
  const Tokens output = test::templated_tokens(random, 1000, 56, 100);
  const auto second_half = [&](const char* spec) {
    const auto source = test::make_source(spec);
    const auto text = simulate(*source, test::writes(output, 2), {1, 2}, output.size(), 12);
    int tokens = 0, forwards = 0, before = 0;
    for (const int count : text.emitted) {
      if (before >= 500) tokens += count, ++forwards;
      before += count;
    }
    return static_cast<double>(tokens) / forwards;
  };
  const double adaptive = second_half("trigram"), frozen = second_half("trigram:rate=0");
  RecordProperty("tokens_per_forward", std::to_string(adaptive));
  EXPECT_EQ(frozen, 1);  // an empty table
  EXPECT_GT(adaptive, 2);
}

TEST(DraftTrigram, DraftsAreDeterministicAndKeepTheBudget) {
  std::mt19937 random(test::seed(5));
  const Tokens prompt = test::random_tokens(random, 2000, 12);
  const auto one = test::make_source("trigram"), two = test::make_source("trigram");
  one->start(prompt);
  two->start(prompt);
  for (const int nodes : {1, 2, 8, 16, 40, 63}) {
    const Draft a = one->propose({prompt, 2000, nullptr, 2000}, nodes);
    const Draft b = two->propose({prompt, 2000, nullptr, 2000}, nodes);
    test::check_draft(a, nodes);
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.size(), std::min(nodes, a.size()));
    EXPECT_GE(a.size(), std::min(nodes, 24));
  }
  const auto empty = test::make_source("trigram");
  const Tokens single{5};
  empty->start({});
  EXPECT_EQ(empty->propose({single, 0, nullptr, 1}, 8).size(), 0);
}

TEST(DraftTrigram, CorpusFillsTheTable) {
  const auto model = Model::open(test::seedling_path());
  const Tokenizer tokenizer(Vocabulary::read(*model->file()));
  DraftSetup setup;
  setup.model = model;
  setup.tokenizer = &tokenizer;
  const MethodTable<DraftMethod>& table = draft_methods();
  const std::string path = ::testing::TempDir() + "draft_trigram.txt";
  const std::string text = "The river rises in spring, and the ships leave the harbour early.";
  std::ofstream(path) << text;
  const auto source = table.make("trigram:rate=0,file=" + path, setup);
  source->start({});
  const Tokens tokens = tokenizer.encode(text, {.add_bos_eos = false});
  const Tokens begin(tokens.begin(), tokens.begin() + 2);
  const Draft draft = source->propose({begin, 0, nullptr, 2}, 8);
  ASSERT_GE(draft.size(), 4);
  EXPECT_EQ(Tokens(draft.tokens.begin(), draft.tokens.begin() + 4), Tokens(tokens.begin() + 2, tokens.begin() + 6));
  EXPECT_THROW(table.make("trigram:file=/nonexistent/text", setup), Error);
  EXPECT_THROW(table.make("trigram:visits=0", setup), Error);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace fathom
