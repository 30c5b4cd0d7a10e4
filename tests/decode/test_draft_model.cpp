// Drafts of a small model: shapes of trees, exactness, and the cache of the small model.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>

#include "base/error.h"
#include "decode/drafts/draft_model.h"
#include "decode/drafts/grow.h"
#include "drafting.h"
#include "seed.h"
#include "shared_data.h"

namespace fathom {

namespace {

using test::Markov;

/// Grows drafts from a Markov chain; the token before the roots is 0.
struct ToyGrowth {
  Markov q;
  int64_t expansions = 0;

  GrowthTask task(int nodes, uint64_t seed, bool random = true) {
    GrowthTask task{.nodes = nodes, .random = random, .seed = seed, .position = 7};
    task.expand = [this, random](const Draft& draft, std::span<const int> nodes_to_expand) {
      ++expansions;
      std::vector<TokenDistribution> all;
      for (const int node : nodes_to_expand) {
        TokenDistribution& row = all.emplace_back();
        const auto& p = q[node < 0 ? 0 : draft.tokens[node]];
        for (int32_t id = 0; id < 5; ++id) row.push_back({id, static_cast<float>(p[id])});
        if (!random) std::ranges::sort(row, std::greater(), &TokenProbability::probability);
      }
      return all;
    };
    return task;
  }
};

using Grow = std::function<Draft(const GrowthTask&)>;
struct Shape {
  const char* name;
  Grow grow;
};

std::vector<Shape> shapes() {
  static const std::vector<int> branching{2, 2, 2};
  return {{"chain", [](const GrowthTask& t) { return grow_chain(t, 4); }},
          {"chain with confidence", [](const GrowthTask& t) { return grow_chain(t, 4, 0.3); }},
          {"rsd-c", [](const GrowthTask& t) { return grow_constant(t, branching); }},
          {"rsd-c with replacement",
           [](GrowthTask t) {
             t.replace = true;
             return grow_constant(t, branching);
           }},
          {"rsd-s", [](const GrowthTask& t) { return grow_beam(t, 3, 3); }},
          {"dyspec", [](const GrowthTask& t) { return grow_greedy(t, {.depth = 4}); }},
          {"dyspec by levels", [](const GrowthTask& t) { return grow_greedy(t, {.depth = 4, .threshold = 0.1}); }}};
}

/// Verifies a draft with a Markov chain. Appends the emitted tokens and returns the number of accepted nodes.
int64_t verify_toy(const Draft& draft, const Markov& p, Sampler& sampler, std::vector<int32_t>& history,
                   int64_t position) {
  const auto before = history.size();
  std::vector<float> row;
  return std::ssize(verify(
      draft,
      [&](int) {
        row = test::log_of(p[history.size() == before ? history[before - 1] : history.back()]);
        return std::span<const float>(row);
      },
      sampler, history, position, [](int32_t) { return true; }));
}

TEST(DraftGrowth, EmitsTokensWithTheExactDistributionOfTheTarget) {
  std::mt19937 random(test::seed(3));
  const std::vector<std::string> steps{"temperature:t=1"};
  constexpr int64_t kTrials = 6000;
  for (const Shape& shape : shapes()) {
    const Markov p = test::random_markov(random);
    ToyGrowth toy{test::random_markov(random, 1, &p)};
    std::map<std::vector<int32_t>, int64_t> counts;
    std::map<std::vector<int32_t>, double> expected;
    for (int32_t a = 0; a < 5; ++a)
      for (int32_t b = 0; b < 5; ++b) expected[{a, b}] = p[0][a] * p[a][b];
    const uint64_t first = random();
    for (int64_t trial = 0; trial < kTrials; ++trial) {
      Sampler sampler(steps, first + trial);
      std::vector<int32_t> history{0};
      while (history.size() < 3) {
        GrowthTask task = toy.task(9, sampler.seed());
        const int32_t newest = history.back();
        task.position = 7 + std::ssize(history);
        task.expand = [&](const Draft& draft, std::span<const int> nodes) {
          std::vector<TokenDistribution> all;
          for (const int node : nodes) {
            TokenDistribution& row = all.emplace_back();
            for (int32_t id = 0; id < 5; ++id)
              row.push_back({id, static_cast<float>(toy.q[node < 0 ? newest : draft.tokens[node]][id])});
          }
          return all;
        };
        verify_toy(shape.grow(task), p, sampler, history, task.position);
      }
      ++counts[{history[1], history[2]}];
    }
    const double ratio = test::chi_square_ratio(counts, expected, kTrials);
    EXPECT_LT(ratio, 1) << shape.name;
    std::printf("%s: chi-square at %.2f of its limit\n", shape.name, ratio);
  }
}

TEST(DraftGrowth, DistinctSiblingsAreAcceptedMoreOftenThanIndependentOnesAndThanAChain) {
  std::mt19937 random(test::seed(11));
  const std::vector<int> branching{2, 2, 2};
  const std::vector<std::string> steps{"temperature:t=1"};
  double chain = 0, independent = 0, distinct = 0;
  constexpr int kTrials = 5000;
  for (int trial = 0; trial < kTrials; ++trial) {
    static Markov p;
    static ToyGrowth toy;
    if (trial % 50 == 0) {
      p = test::random_markov(random);
      toy.q = test::random_markov(random);
    }
    const auto accepted = [&](const Grow& grow) {
      Sampler sampler(steps, trial);
      std::vector<int32_t> history{0};
      const Draft draft = grow(toy.task(14, trial));
      EXPECT_EQ(draft.size(), 14);
      return static_cast<double>(verify_toy(draft, p, sampler, history, 7)) / kTrials;
    };
    chain += accepted([](const GrowthTask& t) { return grow_chain(t, 14); });
    distinct += accepted([&](const GrowthTask& t) { return grow_constant(t, branching); });
    independent += accepted([&](GrowthTask t) {
      t.replace = true;
      return grow_constant(t, branching);
    });
  }
  std::printf("mean accepted of 14 nodes: chain %.3f, independent siblings %.3f, distinct siblings %.3f\n", chain,
              independent, distinct);
  EXPECT_GT(distinct, independent + 0.05);
  EXPECT_GT(independent, chain + 0.05);
}

TEST(DraftGrowth, BeamOfWidthOneDrawsLikeAChain) {
  std::mt19937 random(test::seed(5));
  ToyGrowth toy{test::random_markov(random)};
  std::map<std::vector<int32_t>, int64_t> counts;
  std::map<std::vector<int32_t>, double> expected;
  for (int32_t a = 0; a < 5; ++a)
    for (int32_t b = 0; b < 5; ++b) expected[{a, b}] = toy.q[0][a] * toy.q[a][b];
  for (int trial = 0; trial < 10000; ++trial) {
    const Draft draft = grow_beam(toy.task(2, trial), 1, 2);
    ASSERT_TRUE(draft.tree.is_chain());
    ++counts[draft.tokens];
  }
  EXPECT_LT(test::chi_square_ratio(counts, expected, 10000), 1);
}

TEST(DraftGrowth, BeamSiblingsAreDrawnInProportionToTheRemainingProbabilities) {
  std::mt19937 random(test::seed(6));
  ToyGrowth toy{test::random_markov(random)};
  std::map<std::vector<int32_t>, int64_t> counts;
  std::map<std::vector<int32_t>, double> expected;
  const std::vector<double>& q = toy.q[0];
  for (int32_t a = 0; a < 5; ++a)
    for (int32_t b = 0; b < 5; ++b)
      if (a != b) expected[{a, b}] = q[a] * q[b] / (1 - q[a]);
  for (int trial = 0; trial < 10000; ++trial) ++counts[grow_beam(toy.task(2, trial), 2, 1).tokens];
  EXPECT_LT(test::chi_square_ratio(counts, expected, 10000), 1);
}

/// Returns the largest sum of products of probabilities along the paths of any tree of at most `nodes` nodes.
/// frontier: values and tokens of nodes that may be added.
double best_tree(const Markov& q, std::vector<std::pair<double, int32_t>> frontier, int nodes) {
  if (nodes == 0 || frontier.empty()) return 0;
  const auto [value, token] = frontier.back();
  frontier.pop_back();
  const double without = best_tree(q, frontier, nodes);
  for (int32_t child = 0; child < 3; ++child) frontier.push_back({value * q[token][child], child});
  return std::max(without, value + best_tree(q, frontier, nodes - 1));
}

TEST(DraftGrowth, GreedyTreeEqualsTheBestTreeByBruteForce) {
  std::mt19937 random(test::seed(8));
  for (int trial = 0; trial < 20; ++trial) {
    ToyGrowth toy{test::random_markov(random, 2)};
    for (auto& row : toy.q) {  // three tokens
      const double sum = row[0] + row[1] + row[2];
      for (int id = 0; id < 5; ++id) row[id] = id < 3 ? row[id] / sum : 0;
    }
    const Draft draft = grow_greedy(toy.task(6, 0, false), {.depth = 6});
    ASSERT_EQ(draft.size(), 6);
    EXPECT_EQ(draft.kind, DraftKind::kFixed);
    double expected_accepted = 0;
    std::vector<double> reach;
    for (int node = 0; node < 6; ++node) {
      const int parent = draft.tree.parent(node);
      reach.push_back((parent < 0 ? 1 : reach[parent]) * draft.estimates[node]);
      expected_accepted += reach.back();
    }
    std::vector<std::pair<double, int32_t>> roots;
    for (int32_t id = 0; id < 3; ++id) roots.push_back({toy.q[0][id], id});
    EXPECT_NEAR(expected_accepted, best_tree(toy.q, roots, 6), 1e-5);
  }
}

/// The probabilities with which the children of a drawn tree are tested, if a token is accepted with its
/// probability.
struct Tested {
  std::vector<double> taken;     // of the nodes
  std::vector<double> possible;  // of the nodes that could be added next
};

Tested tested(const Draft& draft, const Markov& q, int depth) {
  Tested result;
  std::vector<double> accepted(draft.size());
  for (int node = -1; node < draft.size(); ++node) {
    if (node >= 0 && draft.tree.depth(node) + 1 >= depth) continue;
    double reached = node < 0 ? 1 : accepted[node], left = 1;
    const auto& row = q[node < 0 ? 0 : draft.tokens[node]];
    for (int child = node + 1; child < draft.size(); ++child) {
      if (draft.tree.parent(child) != node) continue;
      const double share = row[draft.tokens[child]] / left;
      result.taken.push_back(reached);
      accepted[child] = reached * share;
      reached *= 1 - share;
      left -= row[draft.tokens[child]];
    }
    if (left > 1e-6) result.possible.push_back(reached);
  }
  return result;
}

TEST(DraftGrowth, GreedyTreeOfDrawnTokensHasTheNodesThatAreTestedMostOften) {
  std::mt19937 random(test::seed(9));
  for (int trial = 0; trial < 50; ++trial) {
    ToyGrowth toy{test::random_markov(random)};
    const Draft draft = grow_greedy(toy.task(10, trial), {.depth = 5});
    ASSERT_EQ(draft.size(), 10);
    EXPECT_LT(toy.expansions, 10) << "nodes are evaluated together";
    const Tested found = tested(draft, toy.q, 5);
    EXPECT_GE(std::ranges::min(found.taken) + 1e-6, std::ranges::max(found.possible));
    // level by level: all nodes above the threshold, in one expansion per level
    toy.expansions = 0;
    const Draft levels = grow_greedy(toy.task(63, trial), {.depth = 5, .threshold = 0.1});
    EXPECT_LE(toy.expansions, 5);
    const Tested by_level = tested(levels, toy.q, 5);
    EXPECT_GT(std::ranges::min(by_level.taken), 0.1 - 1e-6);
    EXPECT_LE(std::ranges::max(by_level.possible), 0.1 + 1e-6);
  }
}

TEST(DraftGrowth, ConfidenceKeepsTheTokenThatItStopsAt) {
  std::mt19937 random(test::seed(10));
  ToyGrowth toy{test::random_markov(random)};
  std::map<std::vector<int32_t>, int64_t> counts;
  std::map<std::vector<int32_t>, double> expected;
  for (int32_t id = 0; id < 5; ++id) expected[{id}] = toy.q[0][id];
  for (int trial = 0; trial < 5000; ++trial) {
    const Draft draft = grow_chain(toy.task(8, trial), 8, 0.4);
    ++counts[{draft.tokens[0]}];
    for (int node = 0; node + 1 < draft.size(); ++node) EXPECT_GE(draft.estimates[node], 0.4);
    EXPECT_TRUE(draft.size() == 8 || draft.estimates.back() < 0.4);
  }
  EXPECT_LT(test::chi_square_ratio(counts, expected, 5000), 1) << "the first token is not biased";
}

TEST(DraftGrowth, EndsWhereTheModelCannotContinue) {
  const Markov uniform(5, std::vector<double>(5, 0.2));
  ToyGrowth toy{uniform};
  for (const Shape& shape : shapes()) {
    GrowthTask task = toy.task(20, 1);
    const auto expand = task.expand;
    int calls = 0;
    task.expand = [&](const Draft& draft, std::span<const int> nodes) {
      return ++calls <= 2 ? expand(draft, nodes) : std::vector<TokenDistribution>();
    };
    const Draft draft = shape.grow(task);
    EXPECT_GT(draft.size(), 0) << shape.name;
    EXPECT_LE(draft.size(), 20);
    EXPECT_EQ(draft.distributions.size(), draft.size() + 1u);
    task.expand = [](const Draft&, std::span<const int>) { return std::vector<TokenDistribution>(); };
    EXPECT_EQ(shape.grow(task).size(), 0) << shape.name;
  }
}

/// A target and its setup.
class ModelDraft : public testing::Test {
 protected:
  DraftSetup setup(Session* session = nullptr) const {
    return {.model = test::floats(), .runtime = test::draft_runtime(), .session = session};
  }
  std::unique_ptr<DraftSource> source(const std::string& file, const std::string& options) const {
    return draft_methods().make("model:file=" + file + "," + options, setup());
  }
  static Session target(const std::vector<int32_t>& prompt) {
    Session session(test::floats(), test::draft_runtime(), {.cache = "f32"});
    session.append(prompt);
    return session;
  }
  std::mt19937 random_{test::seed(0)};
  std::vector<int32_t> prompt_ = test::random_tokens(random_, 40);
};

const std::vector<std::string> kTrees{
    "tree=chain,length=5",        "tree=rsd-c,b=2+2+2",           "tree=rsd-c,b=2+2+2,replace=true",
    "tree=rsd-s,width=3,depth=3", "tree=dyspec,nodes=12,depth=5", "tree=dyspec,nodes=12,threshold=0.05"};

TEST_F(ModelDraft, TheTargetItselfAsDrafterIsAlwaysAccepted) {
  for (const std::vector<std::string>& steps : {std::vector<std::string>{}, {"temperature:t=0.9", "top-k:k=5"}}) {
    Session session = target(prompt_);
    Sampler sampler(steps, 5);
    const auto drafter = source(test::floats_path(), "cache=f32,length=5");
    const test::DraftRun run = test::decode_with(session, *drafter, sampler, prompt_, 60);
    EXPECT_EQ(run.accepted, run.drafted);
    EXPECT_EQ(run.drafted, 5 * run.forwards) << "6 tokens per forward";
  }
}

TEST_F(ModelDraft, GreedyTokensEqualPlainDecoding) {
  const std::vector<std::string> penalties{"repetition:penalty=1.3,window=20"};
  for (const std::vector<std::string>& steps : {std::vector<std::string>{}, penalties}) {
    for (const std::string& tree : kTrees) {
      Session session = target(prompt_);
      Sampler sampler(steps);
      const std::vector<int32_t> plain = test::decode_plainly(session, sampler, prompt_, 60);
      const auto drafter = source(test::small_path(), "cache=f32," + tree);
      test::DraftRun run = test::decode_with(session, *drafter, sampler, prompt_, 60);
      run.tokens.resize(60);
      EXPECT_EQ(run.tokens, plain) << tree;
      std::printf("%s: %.2f tokens per forward\n", tree.c_str(),
                  1 + static_cast<double>(run.accepted) / run.forwards);
    }
  }
}

TEST_F(ModelDraft, SampledTokensHaveTheExactDistribution) {
  const std::vector<std::string> steps{"temperature:t=10", "top-k:k=5"};
  // the drafter differs from the target in the feed-forward only
  test::TinyFile shape{.layers = 1, .heads = 2, .kv_heads = 1, .width = 32, .ffn = 64, .vocabulary = 64};
  const std::string file = test::write_model(shape, "wide");
  shape.ffn = 32;
  const DraftSetup setup{.model = test::open_tiny(shape), .runtime = test::draft_runtime()};
  for (int32_t& token : prompt_) token %= 64;
  Session session(setup.model, setup.runtime, {.cache = "f32"});
  session.append(prompt_);
  // the logits of the target after the prompt and further tokens, computed once
  std::map<std::vector<int32_t>, std::vector<float>> known;
  const auto logits = [&](const std::vector<int32_t>& path) -> const std::vector<float>& {
    auto& row = known[path];
    if (!row.empty()) return row;
    Session fork = session.fork();
    if (!path.empty()) fork.append(path);
    return row = {fork.logits().begin(), fork.logits().end()};
  };
  std::map<std::vector<int32_t>, double> expected;
  Sampler exact(steps);
  const auto probabilities = [&](const std::vector<int32_t>& path) {
    const Candidates& c = exact.distribution(logits(path), {});
    std::vector<std::pair<int32_t, double>> all;
    for (const Candidate& candidate : c.all())
      all.push_back({candidate.id, std::exp(candidate.logit - c.log_sum())});
    return all;
  };
  for (const auto& [a, p] : probabilities({}))
    for (const auto& [b, q] : probabilities({a})) expected[{a, b}] = p * q;
  ASSERT_EQ(expected.size(), 25);

  constexpr int64_t kTrials = 500;
  for (const std::string& tree : kTrees) {
    const auto drafter = draft_methods().make("model:rule=reject,cache=f32,file=" + file + "," + tree, setup);
    drafter->start(prompt_);
    std::map<std::vector<int32_t>, int64_t> counts;
    int64_t accepted = 0;
    for (int64_t trial = 0; trial < kTrials; ++trial) {
      Sampler sampler(steps, 1000 + trial);
      std::vector<int32_t> history = prompt_;
      while (history.size() < prompt_.size() + 2) {
        const auto position = std::ssize(history);
        const Draft draft =
            drafter->propose({.tokens = history, .prompt = 40, .sampler = &sampler, .position = position}, 14);
        accepted += std::ssize(verify(
            draft,
            [&](int) {
              return std::span<const float>(logits({history.begin() + 40, history.end()}));
            },
            sampler, history, position, [](int32_t) { return true; }));
      }
      ++counts[{history[40], history[41]}];
    }
    const double ratio = test::chi_square_ratio(counts, expected, kTrials);
    EXPECT_LT(ratio, 1) << tree;
    EXPECT_GT(accepted, kTrials / 10) << tree;
    std::printf("%s: chi-square at %.2f of its limit, %.2f accepted per text\n", tree.c_str(), ratio,
                static_cast<double>(accepted) / kTrials);
  }
}

TEST_F(ModelDraft, CacheAfterRejectionsEqualsAFreshCache) {
  for (const bool tree : {false, true}) {
    DraftModel model(test::floats(), test::draft_runtime(), {.cache = "f32"});
    std::vector<int32_t> text = prompt_;
    Sampler sampler(std::vector<std::string>{"temperature:t=1"}, 3);
    for (int round = 0; round < 25; ++round) {
      ASSERT_TRUE(model.follow(text));
      Session fresh(test::floats(), test::draft_runtime(), {.cache = "f32"});
      fresh.append(text);
      ASSERT_EQ(model.session().length(), std::ssize(text));
      for (size_t i = 0; i < 512; ++i) ASSERT_NEAR(model.session().logits()[i], fresh.logits()[i], 2e-4);
      GrowthTask task{.nodes = 12, .seed = static_cast<uint64_t>(round), .position = std::ssize(text)};
      task.expand = model.expand({.sampler = &sampler, .history = text, .tree = tree});
      const std::vector<int> branching{2, 2, 2};
      const int64_t before = model.forwards();
      const Draft draft = tree ? grow_constant(task, branching) : grow_chain(task, 4);
      EXPECT_EQ(model.forwards() - before, tree ? 2 : 3) << "one pass per level after the first";
      // the text continues with a part of a path, and a token outside the draft
      int node = -1;
      for (int kept = static_cast<int>(random_() % 4); kept > 0; --kept) {
        int child = node + 1;
        while (child < draft.size() && draft.tree.parent(child) != node) ++child;
        if (child == draft.size()) break;
        text.push_back(draft.tokens[node = child]);
      }
      if (random_() % 3 > 0) model.keep(text);
      text.push_back(static_cast<int32_t>(random_() % 512));
      if (round % 7 == 6) text.resize(30 + random_() % 10);  // another text
    }
  }
}

TEST_F(ModelDraft, AcceptedTokensOfATreeAreNotReadAgain) {
  DraftModel model(test::floats(), test::draft_runtime(), {.cache = "f32"});
  Sampler sampler(std::vector<std::string>{"temperature:t=1"}, 3);
  ASSERT_TRUE(model.follow(prompt_));
  GrowthTask task{.nodes = 12, .position = 40};
  task.expand = model.expand({.sampler = &sampler, .history = prompt_, .tree = true});
  const std::vector<int> branching{2, 2};
  const Draft draft = grow_constant(task, branching);
  std::vector<int32_t> text = prompt_;
  text.push_back(draft.tokens[1]);  // the second root, which was read
  model.keep(text);
  EXPECT_EQ(model.session().length(), 41);
  const int64_t before = model.forwards();
  EXPECT_TRUE(model.follow(text));
  EXPECT_EQ(model.forwards(), before);
}

TEST_F(ModelDraft, LongerTextsThanTheContextGiveEmptyDrafts) {
  for (const std::string& tree : kTrees) {
    const auto drafter = source(test::small_path(), "context=45," + tree);
    drafter->start(prompt_);
    Sampler sampler;
    std::vector<int32_t> text = prompt_;
    for (int n = 40; n < 60; ++n) {
      const Draft draft = drafter->propose({.tokens = text, .prompt = 40, .sampler = &sampler, .position = n}, 10);
      EXPECT_EQ(draft.size() > 0, n <= 45) << tree << ", " << n;
      text.push_back(static_cast<int32_t>(random_() % 512));
    }
  }
}

TEST_F(ModelDraft, ReportsMissingFilesOtherVocabulariesAndInvalidOptions) {
  const auto message = [&](const std::string& text, const DraftSetup& for_setup) -> std::string {
    try {
      draft_methods().make(text, for_setup);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const auto contains = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(contains(message("model", setup()), "file=FILE"));
  EXPECT_TRUE(contains(message("model:file=/no/such.gguf", setup()), "/no/such.gguf: cannot open"));
  const std::string other = test::write_model({.layers = 1, .vocabulary = 300}, "other");
  const std::string text = message("model:file=" + other, setup());
  EXPECT_TRUE(contains(text, other) && contains(text, "tiny.gguf") && contains(text, "300") &&
              contains(text, "512"))
      << text;
  // the same number of tokens with other texts
  test::TinyFile named;
  const auto pieces = [](int changed) {
    return [changed](GgufWriter& writer) {
      std::vector<std::string> tokens;
      for (int i = 0; i < 512; ++i) tokens.push_back("t" + std::to_string(i == changed ? 999 : i));
      writer.set_string("tokenizer.ggml.model", "gpt2");
      writer.set_strings("tokenizer.ggml.tokens", tokens);
      writer.set_strings("tokenizer.ggml.merges", {});
    };
  };
  named.extra = pieces(-1);
  const auto model = test::open_tiny(named);
  const Tokenizer tokenizer(Vocabulary::read(*model->file()));
  const DraftSetup with_texts{.model = model, .runtime = test::draft_runtime(), .tokenizer = &tokenizer};
  EXPECT_EQ(message("model:file=" + test::write_model(named, "named"), with_texts), "no error");
  named.extra = pieces(300);
  const std::string renamed = test::write_model(named, "renamed");
  const std::string difference = message("model:file=" + renamed, with_texts);
  EXPECT_TRUE(contains(difference, renamed) && contains(difference, "tiny.gguf") && contains(difference, "t999") &&
              contains(difference, "token 300"))
      << difference;
  for (const char* b : {"b=", "b=0", "b=2+", "b=+2", "b=a", "b=8+8", "b=99999999999", "b=2+-1"})
    EXPECT_NE(message("model:tree=rsd-c,file=" + test::small_path() + "," + b, setup()), "no error") << b;
  EXPECT_TRUE(contains(message("model:tree=rsd-s,attend=tokenselect:budget=64,file=" + test::small_path(), setup()),
                       "expected tree=chain"));
  EXPECT_TRUE(contains(message("model:replace=true,file=" + test::small_path(), setup()), "rsd-c"));
}

/// Allows even tokens only, and fails if it is given others.
class EvenTokens final : public Constraint {
 public:
  struct State final : ConstraintState {
    std::unique_ptr<ConstraintState> fork() const override { return std::make_unique<State>(*this); }
    void restrict(Candidates& candidates) const override {
      for (Candidate& candidate : candidates.all())
        if (candidate.id % 2 != 0) candidate.logit = -std::numeric_limits<float>::infinity();
    }
    void take(int32_t token) override {
      if (token % 2 != 0) fail("token ", token, " breaks the constraint");
    }
  };
  std::unique_ptr<ConstraintState> start() const override { return std::make_unique<State>(); }
};

TEST_F(ModelDraft, DraftsOnlyTokensThatAConstraintAllows) {
  for (const std::vector<std::string>& steps : {std::vector<std::string>{}, {"temperature:t=1", "top-k:k=50"}}) {
    for (const std::string& tree : kTrees) {
      Session session = target(prompt_);
      Sampler sampler(steps, 1);
      sampler.constrain(std::make_shared<EvenTokens>(), 40);
      const auto drafter = source(test::floats_path(), "cache=f32," + tree);
      const test::DraftRun run = test::decode_with(session, *drafter, sampler, prompt_, 20);
      EXPECT_GT(run.accepted, 0) << tree;
      for (const int32_t token : run.tokens) EXPECT_EQ(token % 2, 0);
    }
  }
}

TEST_F(ModelDraft, RecurrentModelsDraftChains) {
  const std::string path = test::golden("architectures/tiny-mamba-f16.gguf");
  FATHOM_NEEDS(path);
  const auto model = Model::open(path);
  const DraftSetup recurrent{.model = model, .runtime = test::draft_runtime()};
  EXPECT_THROW(draft_methods().make("model:tree=rsd-c,file=" + path, recurrent), Error);
  const auto drafter = draft_methods().make("model:length=5,file=" + path, recurrent);
  for (int32_t& token : prompt_) token %= static_cast<int32_t>(model->config().vocabulary);
  Session session(model, test::draft_runtime());
  session.append(prompt_);
  Sampler sampler;
  const std::vector<int32_t> plain = test::decode_plainly(session, sampler, prompt_, 30);
  test::DraftRun run = test::decode_with(session, *drafter, sampler, prompt_, 30);
  EXPECT_EQ(run.drafted, run.accepted);
  run.tokens.resize(30);
  EXPECT_EQ(run.tokens, plain);
}

}  // namespace
}  // namespace fathom
