#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "decode/draft_simulation.h"
#include "decode/drafts/merge.h"

namespace fathom {
namespace {

using test::simulate;
using Tokens = std::vector<int32_t>;

/// Proposes a chain of the tokens that `next` returns for each depth, with one estimate.
class FakeSource final : public DraftSource {
 public:
  using Next = std::function<int32_t(const DraftContext& context, int depth)>;
  FakeSource(Next next, float estimate, DraftNeeds needs = {})
      : next_(std::move(next)), estimate_(estimate), needs_(std::move(needs)) {}
  DraftNeeds needs() const override { return needs_; }
  void start(std::span<const int32_t> prompt) override { started = std::ssize(prompt); }
  Draft propose(const DraftContext& context, int nodes) override {
    context_hidden.assign(context.hidden.begin(), context.hidden.end());
    Draft draft;
    for (int i = 0; i < std::min(nodes, 6); ++i) draft.add(i - 1, next_(context, i), estimate_);
    if (estimate_ == 0) draft.estimates.clear();
    return draft;
  }
  void observe(const DraftOutcome& outcome) override {
    hidden.assign(outcome.hidden.begin(), outcome.hidden.end());
  }
  void finish(std::span<const int32_t> tokens) override { finished = std::ssize(tokens); }

  int64_t started = -1, finished = -1;
  std::vector<float> hidden, context_hidden;

 private:
  Next next_;
  float estimate_;
  DraftNeeds needs_;
};

template <class... Sources>
std::unique_ptr<DraftSource> merged(Sources... sources) {
  std::vector<std::unique_ptr<DraftSource>> all;
  (all.push_back(std::move(sources)), ...);
  return merge_sources(std::move(all));
}

TEST(DraftMerge, UnionKeepsTheLikeliestNodesWithTheirParents) {
  std::mt19937 random(test::seed(1));
  for (int repeat = 0; repeat < 300; ++repeat) {
    std::vector<Draft> drafts(1 + random() % 3);
    struct Known {
      float estimate;
      uint8_t source;
    };
    std::map<Tokens, Known> best;  // by path
    for (size_t s = 0; s < drafts.size(); ++s) {
      std::vector<Tokens> paths;
      for (int i = static_cast<int>(random() % 30); i > 0; --i) {
        const int parent = static_cast<int>(random() % (paths.size() + 1)) - 1;
        const int32_t token = static_cast<int32_t>(random() % 4);
        if (drafts[s].find_child(parent, token) >= 0) continue;
        const float estimate = static_cast<float>(1 + random() % 1000) / 1000;
        drafts[s].add(parent, token, estimate);
        paths.push_back(parent < 0 ? Tokens{} : paths[parent]);
        paths.back().push_back(token);
        const auto [it, added] = best.insert({paths.back(), {estimate, static_cast<uint8_t>(s)}});
        if (!added && estimate > it->second.estimate) it->second = {estimate, static_cast<uint8_t>(s)};
      }
    }
    const auto reach_of = [&](Tokens path) {
      double reach = 1;
      for (; !path.empty(); path.pop_back()) reach *= best.at(path).estimate;
      return reach;
    };
    const int nodes = 1 + static_cast<int>(random() % 40);
    const float min_reach = repeat % 2 == 0 ? 0 : 0.05f;
    const Draft draft = unite(drafts, nodes, min_reach);
    test::check_draft(draft, nodes);
    std::map<Tokens, int> kept;
    std::vector<Tokens> paths;
    double least = 1;
    for (int i = 0; i < draft.size(); ++i) {
      paths.push_back(draft.tree.parent(i) < 0 ? Tokens{} : paths[draft.tree.parent(i)]);
      paths.back().push_back(draft.tokens[i]);
      kept[paths.back()] = i;
      ASSERT_EQ(draft.estimates[i], best.at(paths.back()).estimate);
      ASSERT_EQ(draft.sources[i], best.at(paths.back()).source);
      least = std::min(least, reach_of(paths.back()));
    }
    size_t possible = 0;
    for (const auto& [path, known] : best) {
      const double reach = reach_of(path);
      if (reach < min_reach * 0.9999) {
        ASSERT_EQ(kept.count(path), 0u);
      }
      possible += reach > min_reach * 1.0001;
      if (kept.count(path) == 0 && reach > min_reach * 1.0001) {
        ASSERT_EQ(draft.size(), nodes);
        ASSERT_LE(reach, least * 1.0001);
      }
    }
    ASSERT_GE(draft.size(), std::min<int>(nodes, static_cast<int>(possible)));
  }
}

TEST(DraftMerge, OtherKindsAreUnitedAsFixedAndMissingEstimatesCountAsHalf) {
  Draft drawn;
  drawn.add(-1, 5, 0.9f);
  drawn.add(-1, 5, 0.9f);
  drawn.add(1, 6, 0.9f);
  drawn.kind = DraftKind::kIndependent;
  drawn.distributions.resize(4);
  Draft plain;
  plain.add(-1, 7);
  plain.estimates.clear();
  const Draft drafts[] = {drawn, plain};
  const Draft draft = unite(drafts, 63);
  EXPECT_EQ(draft.kind, DraftKind::kFixed);
  EXPECT_TRUE(draft.distributions.empty());
  EXPECT_EQ(draft.tokens, (Tokens{5, 6, 7}));
  EXPECT_EQ(draft.tree.parent(1), 0);
  EXPECT_EQ(draft.estimates, (std::vector<float>{0.9f, 0.9f, 0.5f}));
  EXPECT_EQ(draft.sources, (std::vector<uint8_t>{0, 0, 1}));
}

TEST(DraftMerge, ASourceThatIsAlwaysWrongGetsNoNodes) {
  std::mt19937 random(test::seed(2));
  const Tokens output = test::random_tokens(random, 400, 400);
  const auto target = test::writes(output, 1);
  const auto right = [&](const DraftContext& context, int depth) {
    return output[(context.tokens.size() - 1 + depth) % output.size()];
  };
  const auto wrong = [](const DraftContext&, int) { return 500; };
  const auto source = merged(std::make_unique<FakeSource>(wrong, 0.99f), std::make_unique<FakeSource>(right, 0.3f));
  const auto text = simulate(*source, target, {1}, 400, 6);
  // At first the wrong one fills the budget, later the right one does: 7 tokens in each pass.
  EXPECT_LT(text.emitted[0], 7);
  EXPECT_EQ(text.emitted[text.forwards() - 2], 7);
  Tokens prefix{1};
  prefix.insert(prefix.end(), output.begin(), output.end());
  const Draft draft = source->propose({prefix, 1, nullptr, std::ssize(prefix)}, 12);
  EXPECT_EQ(draft.size(), 6);
  EXPECT_EQ(std::ranges::count(draft.sources, 0), 0);
  EXPECT_GT(draft.estimates[0], 0.9f);

  // Alone, it gets no nodes either, and each pass gives one token.
  const auto alone = merged(std::make_unique<FakeSource>(wrong, 0.99f));
  const auto slow = simulate(*alone, target, {1}, 100, 6);
  EXPECT_EQ(slow.forwards(), 99);
  EXPECT_EQ(alone->propose({prefix, 1, nullptr, std::ssize(prefix)}, 12).size(), 0);
}

TEST(DraftMerge, ASourceThatImprovesIsUsedAgain) {
  std::mt19937 random(test::seed(3));
  const Tokens output = test::random_tokens(random, 600, 400);
  const auto late = [&](const DraftContext& context, int depth) {
    return context.tokens.size() < 200 ? 500 : output[(context.tokens.size() - 1 + depth) % output.size()];
  };
  const auto source = merged(std::make_unique<FakeSource>(late, 0.8f));
  const auto text = simulate(*source, test::writes(output, 1), {1}, 600, 6);
  EXPECT_EQ(text.emitted[150], 1);
  EXPECT_EQ(text.emitted[text.forwards() - 2], 7);
}

TEST(DraftMerge, EstimatesAreCorrectedAtEachDepth) {
  std::mt19937 random(test::seed(4));
  const Tokens output = test::random_tokens(random, 900, 400);
  // Right at the first two depths only.
  const auto source = merged(std::make_unique<FakeSource>(
      [&](const DraftContext& context, int depth) {
        return depth < 2 ? output[(context.tokens.size() - 1 + depth) % output.size()] : 500;
      },
      0.6f));
  simulate(*source, test::writes(output, 1), {1}, 900, 6);
  Tokens prefix{1};
  prefix.insert(prefix.end(), output.begin(), output.begin() + 500);
  const Draft draft = source->propose({prefix, 1, nullptr, std::ssize(prefix)}, 6);
  EXPECT_EQ(draft.size(), 2);
  EXPECT_GT(draft.estimates[0], 0.9f);
}

TEST(DraftMerge, PassesOnCallsAndTheHiddenStatesOfEachSource) {
  const auto none = [](const DraftContext&, int) { return 1; };
  auto first = std::make_unique<FakeSource>(none, 0.5f, DraftNeeds{.top_k = 3, .hidden_layers = {2, 7}});
  auto second = std::make_unique<FakeSource>(none, 0.5f, DraftNeeds{.top_k = 8, .hidden_layers = {4}});
  auto third = std::make_unique<FakeSource>(none, 0.5f);
  FakeSource *a = first.get(), *b = second.get(), *c = third.get();
  const auto source = merged(std::move(first), std::move(second), std::move(third));
  EXPECT_EQ(source->needs().top_k, 8);
  EXPECT_EQ(source->needs().hidden_layers, (std::vector<int>{2, 4, 7}));
  const Tokens text{1, 2, 3};
  source->start(text);
  const std::vector<float> hidden{20, 21, 40, 41, 70, 71};  // [3 layers, 1 row, 2]
  DraftOutcome outcome;
  outcome.tokens = text;
  outcome.emitted = std::span(text).last(1);
  outcome.root = 2;
  outcome.hidden = hidden;
  source->propose({.tokens = text, .hidden = hidden}, 3);
  source->observe(outcome);
  source->finish(text);
  EXPECT_EQ(a->hidden, (std::vector<float>{20, 21, 70, 71}));
  EXPECT_EQ(b->hidden, (std::vector<float>{40, 41}));
  EXPECT_TRUE(c->hidden.empty());
  for (const FakeSource* one : {a, b, c}) EXPECT_EQ(one->context_hidden, one->hidden);
  for (const FakeSource* one : {a, b, c}) {
    EXPECT_EQ(one->started, 3);
    EXPECT_EQ(one->finished, 3);
  }
  EXPECT_THROW(merge_sources({}), Error);
  std::vector<std::unique_ptr<DraftSource>> many;
  for (int i = 0; i < 256; ++i) many.push_back(std::make_unique<FakeSource>(none, 0.5f));
  EXPECT_THROW(merge_sources(std::move(many)), Error);
}

TEST(DraftMerge, AllSourcesTogetherAreLosslessAndNearlyAsGoodAsTheBest) {
  std::mt19937 random(test::seed(5));
  const Tokens prompt = test::random_tokens(random, 300, 400);
  // Half of the output repeats the prompt with edits, half fills a template.
  Tokens output = prompt;
  for (size_t i = 5; i < output.size(); i += 12) output[i] = static_cast<int32_t>(400 + random() % 100);
  const Tokens form = test::templated_tokens(random, 600, 60, 400);
  output.insert(output.end(), form.begin(), form.end());
  const auto tokens_per_forward = [&](std::unique_ptr<DraftSource> source) {
    return simulate(*source, test::writes(output, prompt.size()), prompt, output.size(), 12).tokens_per_forward();
  };
  double best = 0;
  for (const std::string name : {"copy", "ngram", "recycle", "suffix", "trigram"}) {
    const double alone = tokens_per_forward(test::make_source(name));
    RecordProperty(name, std::to_string(alone));
    best = std::max(best, alone);
  }
  const double together =
      tokens_per_forward(merged(test::make_source("copy"), test::make_source("ngram"), test::make_source("recycle"),
                                test::make_source("suffix"), test::make_source("trigram")));
  RecordProperty("together", std::to_string(together));
  EXPECT_GT(together, 0.9 * best);
  EXPECT_GT(together, 2.5);
}

}  // namespace
}  // namespace fathom
