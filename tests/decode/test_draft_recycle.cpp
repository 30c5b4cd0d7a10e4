#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "decode/draft_simulation.h"
#include "decode/drafts/recycle_table.h"

namespace fathom {
namespace {

using test::simulate;

std::vector<TokenLogit> row_of(std::initializer_list<int32_t> tokens) {
  std::vector<TokenLogit> row;
  for (const int32_t token : tokens) row.push_back({token, 0});
  return row;
}

RecycleTable::Successors successors(std::initializer_list<int32_t> tokens) {
  RecycleTable::Successors all;
  all.fill(RecycleTable::kAbsent);
  std::ranges::copy(tokens, all.begin());
  return all;
}

TEST(DraftRecycle, TemplateIsThatOfThePaper) {
  const auto shape = recycle_template();
  ASSERT_EQ(shape.size(), 80u);
  std::map<int, int> levels, children;
  std::vector<std::vector<int>> paths;
  for (size_t i = 0; i < shape.size(); ++i) {
    const RecycleNode& node = shape[i];
    ASSERT_LT(node.parent, static_cast<int>(i));
    ASSERT_EQ(node.depth, node.parent < 0 ? 0 : shape[node.parent].depth + 1);
    ASSERT_EQ(node.rank, children[node.parent]++);
    ++levels[node.depth];
    paths.push_back(node.parent < 0 ? std::vector<int>{} : paths[node.parent]);
    paths.back().push_back(node.rank);
  }
  EXPECT_EQ(levels, (std::map<int, int>{{0, 8}, {1, 21}, {2, 25}, {3, 15}, {4, 8}, {5, 3}}));
  const std::map<std::vector<int>, int> expected = {{{0}, 8},
                                                    {{1}, 4},
                                                    {{2}, 3},
                                                    {{3}, 2},
                                                    {{4}, 1},
                                                    {{5}, 1},
                                                    {{6}, 1},
                                                    {{7}, 1},
                                                    {{0, 0}, 8},
                                                    {{0, 1}, 3},
                                                    {{0, 2}, 2},
                                                    {{0, 3}, 1},
                                                    {{0, 4}, 1},
                                                    {{0, 5}, 1},
                                                    {{0, 6}, 1},
                                                    {{0, 7}, 1},
                                                    {{1, 0}, 2},
                                                    {{1, 1}, 1},
                                                    {{2, 0}, 1},
                                                    {{3, 0}, 1},
                                                    {{4, 0}, 1},
                                                    {{5, 0}, 1},
                                                    {{0, 0, 0}, 5},
                                                    {{0, 0, 1}, 2},
                                                    {{0, 0, 2}, 1},
                                                    {{0, 0, 3}, 1},
                                                    {{0, 0, 4}, 1},
                                                    {{0, 1, 0}, 1},
                                                    {{0, 2, 0}, 1},
                                                    {{1, 0, 0}, 1},
                                                    {{2, 0, 0}, 1},
                                                    {{3, 0, 0}, 1},
                                                    {{0, 0, 0, 0}, 3},
                                                    {{0, 0, 0, 1}, 1},
                                                    {{0, 0, 0, 2}, 1},
                                                    {{0, 0, 1, 0}, 1},
                                                    {{0, 1, 0, 0}, 1},
                                                    {{1, 0, 0, 0}, 1},
                                                    {{0, 0, 0, 0, 0}, 2},
                                                    {{0, 0, 0, 1, 0}, 1}};
  std::map<std::vector<int>, int> found;
  for (const auto& [node, count] : children)
    if (node >= 0) found[paths[node]] = count;
  EXPECT_EQ(found, expected);
}

TEST(DraftRecycle, TableKeepsTheLatestSuccessorsFirstAndIgnoresForeignTokens) {
  RecycleTable table(100);
  EXPECT_EQ(table.after(5), successors({}));
  table.add(5, 9);
  table.add(5, 8);
  table.add(5, 9);
  EXPECT_EQ(table.after(5), successors({9, 8}));
  table.add(5, row_of({1, 2, 8, 3}));
  EXPECT_EQ(table.after(5), successors({1, 2, 8, 3, 9}));
  table.add(5, row_of({10, 11, 12, 13, 14, 15, 16, 17, 18}));
  EXPECT_EQ(table.after(5), successors({10, 11, 12, 13, 14, 15, 16, 17}));
  table.add(-1, 5);
  table.add(100, 5);
  table.add(5, 100);
  table.add(5, row_of({-7, 100, 1 << 30}));
  EXPECT_EQ(table.after(5), successors({10, 11, 12, 13, 14, 15, 16, 17}));
  EXPECT_EQ(table.after(100), successors({}));
  EXPECT_EQ(table.after(-5), successors({}));
}

/// Observes one step: the draft of `tokens` with parents, its accepted nodes and rows of the next tokens.
void observe(DraftSource& source, int32_t root, const Draft& draft, std::vector<int> accepted, int32_t emitted_last,
             const std::vector<TokenLogit>& top, int top_k) {
  std::vector<int32_t> text{root};
  for (const int node : accepted) text.push_back(draft.tokens[node]);
  text.push_back(emitted_last);
  source.observe({.tokens = text,
                  .emitted = std::span(text).subspan(1),
                  .draft = &draft,
                  .accepted = accepted,
                  .root = root,
                  .top = top,
                  .top_k = top_k});
}

std::vector<int32_t> roots_after(DraftSource& source, int32_t token) {
  const std::vector<int32_t> text{token};
  const Draft draft = source.propose({text, 0, nullptr, 1}, 63);
  std::vector<int32_t> roots;
  for (int i = 0; i < draft.size(); ++i)
    if (draft.tree.parent(i) < 0) roots.push_back(draft.tokens[i]);
  std::ranges::sort(roots);
  return roots;
}

TEST(DraftRecycle, DeepestCommittedRowReplacesRejectedRowsOfTheSameToken) {
  const auto source = test::make_source("recycle");
  // Root 1, then accepted 1 (node 0), accepted 2 (node 1); nodes 2 and 3 hold 1 and 2 and are rejected.
  Draft draft;
  draft.add(-1, 1);
  draft.add(0, 2);
  draft.add(1, 1);
  draft.add(-1, 2);
  std::vector<TokenLogit> top;
  for (const int32_t first : {100, 110, 120, 130, 140})
    for (int32_t k = 0; k < 8; ++k) top.push_back({first + k, 0});
  observe(*source, 1, draft, {0, 1}, 120, top, 8);
  EXPECT_EQ(roots_after(*source, 1), (std::vector<int32_t>{110, 111, 112, 113, 114, 115, 116, 117}));
  EXPECT_EQ(roots_after(*source, 2), (std::vector<int32_t>{120, 121, 122, 123, 124, 125, 126, 127}));
}

TEST(DraftRecycle, SuccessorsDependOnTheRowsOnly) {
  std::mt19937 random(test::seed(1));
  const auto in_drafts = test::make_source("recycle");
  const auto one_by_one = test::make_source("recycle");
  for (int step = 0; step < 50; ++step) {
    Draft draft;
    const int32_t root = static_cast<int32_t>(random() % 40);
    for (int i = 0; i < 6; ++i) draft.add(i == 3 ? -1 : i - 1, static_cast<int32_t>(random() % 40));
    std::vector<TokenLogit> top;
    for (int row = 0; row < 7; ++row)
      for (int k = 0; k < 10; ++k) top.push_back({static_cast<int32_t>((31 * random() + k) % 512), 0});
    observe(*in_drafts, root, draft, {0, 1}, 3, top, 10);
    const Draft none;
    const auto row = [&](int node) {
      return std::vector<TokenLogit>(top.begin() + (node + 1) * 10, top.begin() + (node + 2) * 10);
    };
    for (const int node : {2, 3, 4, 5}) observe(*one_by_one, draft.tokens[node], none, {}, 3, row(node), 10);
    observe(*one_by_one, root, none, {}, 3, row(-1), 10);
    for (const int node : {0, 1}) observe(*one_by_one, draft.tokens[node], none, {}, 3, row(node), 10);
  }
  for (int32_t token = 0; token < 40; ++token)
    ASSERT_EQ(roots_after(*in_drafts, token), roots_after(*one_by_one, token)) << token;
}

TEST(DraftRecycle, AbsentSuccessorsAreLeftOutAndTheBudgetKeepsTheLikeliestNodes) {
  const auto source = test::make_source("recycle");
  const std::vector<int32_t> prompt{1, 2, 3, 4, 5, 1};
  source->start(prompt);
  const Draft chain = source->propose({prompt, 6, nullptr, 6}, 63);
  EXPECT_EQ(chain.tokens, (std::vector<int32_t>{2, 3, 4, 5, 1, 2}));
  EXPECT_TRUE(chain.tree.is_chain());
  const std::vector<int32_t> unknown{77};
  EXPECT_EQ(source->propose({unknown, 0, nullptr, 1}, 63).size(), 0);

  std::mt19937 random(test::seed(2));
  const std::vector<int32_t> text = test::random_tokens(random, 4000, 20);
  const auto full = test::make_source("recycle");
  full->start(text);
  double kept = 0;
  for (int nodes = 1; nodes < 64; ++nodes) {
    const Draft draft = full->propose({text, 4000, nullptr, 4000}, nodes);
    test::check_draft(draft, nodes);
    EXPECT_EQ(draft.size(), nodes);
    // Every node is at least as likely as each one that a larger budget adds.
    std::vector<double> reach;
    for (int i = 0; i < draft.size(); ++i)
      reach.push_back(draft.estimates[i] * (draft.tree.parent(i) < 0 ? 1 : reach[draft.tree.parent(i)]));
    if (nodes > 1) {
      EXPECT_LE(reach.back(), kept);
    }
    kept = *std::ranges::min_element(reach);
  }
}

TEST(DraftRecycle, EstimatesFollowTheRanksThatWereAccepted) {
  const auto source = test::make_source("recycle");
  // The target always takes the successor of rank 2.
  for (int step = 0; step < 200; ++step) {
    std::vector<TokenLogit> top;
    for (int32_t k = 0; k < 8; ++k) top.push_back({10 + k, 0});
    observe(*source, 1, {}, {}, 12, top, 8);
  }
  const std::vector<int32_t> text{1};
  const Draft draft = source->propose({text, 0, nullptr, 1}, 1);
  ASSERT_EQ(draft.tokens, (std::vector<int32_t>{12}));
  EXPECT_GT(draft.estimates[0], 0.9f);
}

TEST(DraftRecycle, DraftsAreLosslessAndPredictableTextNeedsFewForwards) {
  // The next token is one of two that depend on the last one, mostly the first.
  const auto target = [](std::span<const int32_t> text) {
    const uint32_t last = text.back(), before = text.size() > 1 ? text[text.size() - 2] : 0;
    return static_cast<int32_t>((last * 37 + 11 + (before % 5 == 0 ? 101 : 0)) % 512);
  };
  const auto source = test::make_source("recycle");
  const auto text = simulate(*source, target, {1, 2, 3}, 1500, 16);
  RecordProperty("tokens_per_forward", std::to_string(text.tokens_per_forward()));
  EXPECT_GT(text.tokens_per_forward(), 2);
  std::mt19937 random(test::seed(3));
  const auto noise = test::make_source("recycle");
  const auto alone = simulate(*noise, test::writes(test::random_tokens(random, 300, 512), 1), {1}, 300, 16);
  EXPECT_LT(alone.tokens_per_forward(), 1.2);
}

}  // namespace
}  // namespace fathom
