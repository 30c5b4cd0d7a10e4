#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/draft_budget.h"
#include "seed.h"

namespace fathom {
namespace {

// --- A virtual clock: one model, one source of chains, no computation.

struct World {
  std::function<double(int rows)> pass;       // seconds of a forward pass
  std::function<double(int nodes)> propose;   // seconds of a proposal
  std::function<double(int64_t token)> rate;  // probability that a node is accepted if its parent is
  double noise = 0;                           // relative deviation of measured seconds
  double delays = 0;                          // share of passes that are measured five times too long
  double growth = 0;                          // relative increase of a pass per token
  double misses = 0;                          // share of proposals that are empty
  int64_t slow_phase = 0;  // > 0: every second phase of this length in tokens takes twice as long
  DraftKind kind = DraftKind::kFixed;

  double seconds(int rows, int64_t token) const {
    const double slow = slow_phase > 0 && token / slow_phase % 2 == 1 ? 2 : 1;
    return slow * pass(rows) * (1 + growth * static_cast<double>(token));
  }
  /// Seconds of plain decoding.
  double plain(int64_t tokens) const {
    double sum = 0;
    for (int64_t i = 0; i < tokens; ++i) sum += seconds(1, i);
    return sum;
  }
  /// Seconds per token with the best fixed number of nodes at this acceptance rate, without growth and phases.
  double best_fixed(double acceptance) const {
    double best = 0, gain = 1, reach = 1;
    for (int n = 0; n < DraftTree::kMaxNodes; ++n) {
      if (n > 0) gain += (1 - misses) * (reach *= acceptance);
      const double cost = n == 0 ? pass(1) : propose(n) + misses * pass(1) + (1 - misses) * pass(1 + n);
      best = std::max(best, gain / cost);
    }
    return 1 / best;
  }
};

/// What happened in a simulated text.
struct Simulated {
  double seconds = 0;  // without noise and delays, which the drafts do not cause
  double ideal = 0;    // of the best fixed numbers of nodes, for as many tokens as the steps give on average
  std::vector<int> proposed, verified;  // nodes per step
};

Simulated simulate(const World& world, int64_t tokens, uint32_t number) {
  std::mt19937 random(test::seed(number));
  std::uniform_real_distribution<double> uniform(0, 1);
  std::normal_distribution<double> normal(0, 1);
  DraftBudget budget;
  Simulated run;
  std::map<double, double> best_fixed;
  for (int64_t done = 0; done < tokens;) {
    const int allowed = budget.nodes(done);
    Draft draft;
    draft.kind = world.kind;
    int correct = 0;  // length of the correct prefix
    double draft_seconds = 0;
    if (allowed > 0) {
      draft_seconds = world.propose(allowed);
      if (uniform(random) >= world.misses)
        for (int i = 0; i < allowed; ++i) draft.add(i - 1, i, 0.8f);
      while (correct < draft.size() && uniform(random) < world.rate(done)) ++correct;
    }
    run.proposed.push_back(draft.size());
    budget.prune(draft);
    run.verified.push_back(draft.size());
    std::vector<int> accepted;
    std::vector<int32_t> emitted;
    for (int i = 0; i < std::min(correct, draft.size()); ++i) accepted.push_back(i), emitted.push_back(i);
    const auto next = static_cast<int32_t>(emitted.size());
    emitted.push_back(next < correct ? next : -1);  // a removed node can be correct
    const double pass = world.seconds(1 + draft.size(), done);
    const double measured =
        pass * std::exp(world.noise * normal(random)) * (uniform(random) < world.delays ? 5 : 1);
    budget.observe({.context = done,
                    .draft_seconds = draft_seconds,
                    .verify_seconds = measured,
                    .draft = &draft,
                    .accepted = accepted,
                    .emitted = emitted});
    run.seconds += draft_seconds + pass;
    const double rate = world.rate(done);
    if (!best_fixed.contains(rate)) best_fixed[rate] = world.best_fixed(rate);
    for (int i = 0; i <= draft.size(); ++i) run.ideal += std::pow(rate, i) * best_fixed[rate];
    done += static_cast<int64_t>(emitted.size());
  }
  return run;
}

struct Curve {
  const char* name;
  std::function<double(int rows)> pass;
};
const std::vector<Curve> kCurves = {
    {"memory-bound", [](int rows) { return 1 + 0.002 * rows; }},
    {"compute-bound", [](int rows) { return 1.0 * rows; }},
    {"roofline", [](int rows) { return std::max(1.0, rows / 12.0); }},
    {"mixed", [](int rows) { return 0.8 + 0.2 * rows; }},
    {"tiles of 8", [](int rows) { return std::ceil(rows / 8.0); }},
    {"steps at 8 and 16", [](int rows) { return rows <= 8    ? 1
                                                : rows <= 16 ? 1.6
                                                             : 1.6 + 0.1 * (rows - 16); }},
};
const std::vector<std::pair<const char*, std::function<double(int nodes)>>> kSources = {
    {"table", [](int) { return 0.001; }},
    {"slow table", [](int) { return 0.1; }},
    {"model", [](int nodes) { return 0.1 * nodes; }},
};
constexpr int kSeeds = 2;

TEST(DraftBudget, NeverCostsMoreThanThreePercent) {
  for (const Curve& curve : kCurves) {
    for (const auto& [source, propose] : kSources) {
      for (const double rate : {0.0, 0.3, 0.6, 0.9}) {
        for (const double noise : {0.0, 0.05}) {
          for (int i = 0; i < kSeeds; ++i) {
            const World world{.pass = curve.pass,
                              .propose = propose,
                              .rate = [rate](int64_t) { return rate; },
                              .noise = noise,
                              .delays = noise > 0 ? 0.03 : 0};
            for (const int64_t tokens : {300, 1500}) {
              EXPECT_LE(simulate(world, tokens, i).seconds, 1.03 * world.plain(tokens))
                  << curve.name << ", " << source << ", acceptance " << rate << ", noise " << noise;
            }
          }
        }
      }
    }
  }
}

/// Seconds relative to the best fixed sizes, of several runs.
struct Ratios {
  double sum = 0, largest = 0;
  int count = 0;
  void add(const Simulated& run) {
    const double ratio = run.seconds / run.ideal;
    sum += ratio;
    largest = std::max(largest, ratio);
    ++count;
  }
  double mean() const { return sum / count; }
};

TEST(DraftBudget, IsWithinTenPercentOfTheBestFixedSize) {
  constexpr int64_t kTokens = 3000;
  for (const Curve& curve : kCurves) {
    for (const double rate : {0.3, 0.6, 0.9}) {
      Ratios ratios;
      for (const auto& [source, propose] : kSources) {
        for (const double noise : {0.0, 0.05}) {
          const World world{.pass = curve.pass,
                            .propose = propose,
                            .rate = [rate](int64_t) { return rate; },
                            .noise = noise,
                            .delays = noise > 0 ? 0.03 : 0};
          for (int i = 0; i < kSeeds; ++i) ratios.add(simulate(world, kTokens, 100 + i));
        }
      }
      EXPECT_LE(ratios.mean(), 1.10) << curve.name << ", acceptance " << rate;
      EXPECT_LE(ratios.largest, 1.30) << curve.name << ", acceptance " << rate;
    }
  }
}

TEST(DraftBudget, FollowsAChangeOfTheAcceptance) {
  constexpr int64_t kTokens = 4000;
  const std::vector<std::pair<double, double>> changes = {{0, 0.9}, {0.9, 0}, {0.3, 0.9}, {0.6, 0}};
  for (const Curve& curve : kCurves) {
    Ratios ratios;
    for (const auto& [first, second] : changes) {
      const World world{
          .pass = curve.pass,
          .propose = [](int) { return 0.02; },
          .rate = [first = first, second = second](int64_t i) { return i < kTokens / 2 ? first : second; },
          .noise = 0.05,
          .delays = 0.03};
      for (int i = 0; i < kSeeds; ++i) {
        const Simulated run = simulate(world, kTokens, 200 + i);
        EXPECT_LE(run.seconds, 1.03 * world.plain(kTokens)) << curve.name << " " << first << " to " << second;
        ratios.add(run);
      }
    }
    EXPECT_LE(ratios.mean(), 1.10) << curve.name;
    EXPECT_LE(ratios.largest, 1.30) << curve.name;
  }
}

TEST(DraftBudget, AlternatingTextsAndMachinesCostLittle) {
  constexpr int64_t kTokens = 3000;
  for (const Curve& curve : kCurves) {
    for (int i = 0; i < kSeeds; ++i) {
      World world{.pass = curve.pass,
                  .propose = [](int) { return 0.05; },
                  .rate = [](int64_t token) { return token / 60 % 2 ? 0.0 : 0.9; },
                  .noise = 0.05,
                  .delays = 0.03};
      EXPECT_LE(simulate(world, kTokens, 300 + i).seconds, 1.03 * world.plain(kTokens)) << curve.name;
      world.slow_phase = 150;
      for (const double rate : {0.0, 0.3, 0.6}) {
        world.rate = [rate](int64_t) { return rate; };
        EXPECT_LE(simulate(world, kTokens, 310 + i).seconds, 1.03 * world.plain(kTokens)) << curve.name << rate;
      }
    }
  }
}

TEST(DraftBudget, LossesOfAnUnforeseenCostAreBounded) {
  const auto zero = [](int64_t) { return 0.0; };
  const World slow_source{.pass = [](int) { return 1.0; }, .propose = [](int) { return 5.0; }, .rate = zero};
  EXPECT_LE(simulate(slow_source, 500, 1).seconds, 1.03 * slow_source.plain(500));
  const World quadratic{
      .pass = [](int rows) { return 1.0 * rows * rows; }, .propose = [](int) { return 0.1; }, .rate = zero};
  EXPECT_LE(simulate(quadratic, 500, 1).seconds, 1.03 * quadratic.plain(500));
}

TEST(DraftBudget, RareGoodDraftsAreUsed) {
  const World world{.pass = kCurves[0].pass,
                    .propose = [](int) { return 0.01; },
                    .rate = [](int64_t) { return 0.9; },
                    .noise = 0.05,
                    .misses = 0.8};
  EXPECT_LE(simulate(world, 4000, 1).seconds, 1.2 * 4000 * world.best_fixed(0.9));
}

TEST(DraftBudget, SmallDraftsAreTriedAgainWhileALargerTrialIsSavedFor) {
  // The first draft of a short text is wrong, the others are right.
  const World world{.pass = [](int rows) { return rows <= 2 ? 0.55 + 0.45 * rows : 1.45 + 0.15 * (rows - 2); },
                    .propose = [](int) { return 0.1; },
                    .rate = [](int64_t token) { return token < 8 ? 0 : 0.95; }};
  EXPECT_LE(simulate(world, 256, 1).seconds, 0.6 * world.plain(256));
}

TEST(DraftBudget, DrawnDraftsAreNotPrunedButTheirSizeIsChosen) {
  for (const DraftKind kind : {DraftKind::kIndependent, DraftKind::kWithoutReplacement}) {
    const World world{.pass = kCurves[5].pass,
                      .propose = [](int) { return 0.05; },
                      .rate = [](int64_t) { return 0.6; },
                      .noise = 0.05,
                      .kind = kind};
    const Simulated run = simulate(world, 3000, 1);
    EXPECT_EQ(run.proposed, run.verified);
    EXPECT_LE(run.seconds, 1.10 * run.ideal);
  }
}

TEST(DraftBudget, ProbesOfUselessDraftsAreRare) {
  const World world{.pass = kCurves[1].pass, .propose = [](int) { return 0.2; }, .rate = [](int64_t) { return 0; }};
  const Simulated run = simulate(world, 4000, 1);
  const auto drafts = [&](size_t begin, size_t end) {
    return std::count_if(run.proposed.begin() + begin, run.proposed.begin() + end, [](int n) { return n > 0; });
  };
  EXPECT_GT(drafts(0, 4000), 5);
  EXPECT_LE(drafts(3000, 4000), 1000 / 100);
}

TEST(DraftBudget, FollowsTheGrowthOfTheContext) {
  World world{.pass = kCurves[5].pass,
              .propose = [](int) { return 0.02; },
              .rate = [](int64_t) { return 0.6; },
              .noise = 0.05};
  const double share = world.best_fixed(0.6);  // of a plain step
  world.growth = 1.0 / 1000;
  EXPECT_LE(simulate(world, 4000, 1).seconds, 1.1 * share * world.plain(4000));
}

// --- Parts.

TEST(DraftBudget, RobustAverageIgnoresDelaysAndFollowsChanges) {
  RobustAverage average;
  for (int i = 0; i < 50; ++i) average.add(i % 2 ? 1.02 : 0.98);
  EXPECT_NEAR(average.value(), 1, 0.02);
  average.add(100);
  EXPECT_LT(average.value(), 1.03);
  for (int i = 0; i < 30; ++i) average.add(2);
  EXPECT_NEAR(average.value(), 2, 0.1);
  for (int i = 0; i < 12; ++i) average.add(1);
  EXPECT_NEAR(average.value(), 1, 0.1);
  RobustAverage delayed;
  for (const double seconds : {50.0, 1.0, 1.1}) delayed.add(seconds);
  EXPECT_DOUBLE_EQ(delayed.value(), 1);
}

TEST(DraftBudget, ForwardCostInterpolatesAndExtrapolates) {
  ForwardCost cost;
  EXPECT_EQ(cost.seconds(4, 0), 0);
  cost.observe(4, 0, 2);
  EXPECT_DOUBLE_EQ(cost.seconds(1, 0), 2);
  EXPECT_DOUBLE_EQ(cost.seconds(8, 0), 4) << "in proportion to the rows";
  cost.observe(8, 0, 3);
  EXPECT_DOUBLE_EQ(cost.seconds(6, 0), 2.5);
  EXPECT_DOUBLE_EQ(cost.seconds(4, 0), 2);
  EXPECT_DOUBLE_EQ(cost.seconds(64, 0), 24);
}

TEST(DraftBudget, ForwardCostScalesWithTheContext) {
  ForwardCost cost;
  cost.observe(8, 0, 2);  // before the growth is known
  for (int64_t context = 0; context <= 2000; ++context)
    cost.observe(1, context, 1 + 0.001 * static_cast<double>(context));
  EXPECT_NEAR(cost.seconds(1, 2000), 3, 0.1);
  EXPECT_NEAR(cost.seconds(1, 4000), 5, 0.5);
  EXPECT_GT(cost.seconds(8, 2000), 3) << "of 6; other numbers of rows follow";
  // Few observations that happen to rise are not extrapolated.
  ForwardCost few;
  for (int64_t context = 0; context < 4; ++context)
    few.observe(1, context, 1 + 0.05 * static_cast<double>(context));
  EXPECT_LT(few.seconds(1, 1000), 1.2);
  // Noise without growth is not extrapolated.
  ForwardCost noisy;
  std::mt19937 random(test::seed(1));
  std::normal_distribution<double> normal(1, 0.05);
  for (int64_t context = 0; context < 500; ++context) noisy.observe(1, context, normal(random));
  EXPECT_NEAR(noisy.seconds(1, 5000), 1, 0.25);
}

TEST(DraftBudget, InvalidObservationsAreIgnored) {
  ForwardCost cost;
  cost.observe(0, 0, 1);
  cost.observe(ForwardCost::kMaxRows + 1, 0, 1);
  for (const double seconds :
       {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    cost.observe(1, 0, seconds);
  EXPECT_EQ(cost.seconds(1, 0), 0);
  DraftBudget budget;
  const std::vector<int32_t> emitted = {1};
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(budget.nodes(i), 0) << "nothing is known about plain steps";
    budget.observe({.context = i,
                    .draft_seconds = std::numeric_limits<double>::quiet_NaN(),
                    .verify_seconds = i % 2 ? 0.0 : std::numeric_limits<double>::quiet_NaN(),
                    .emitted = emitted});
  }
  EXPECT_THROW(DraftBudget(0), Error);
  EXPECT_THROW(DraftBudget(DraftTree::kMaxNodes), Error);
}

TEST(DraftBudget, CorrectedEstimatesMatchObservedAcceptance) {
  std::mt19937 random(test::seed(2));
  std::uniform_real_distribution<double> uniform(0, 1);
  EstimateCorrection correction;
  EXPECT_FLOAT_EQ(correction.probability(0, 0, 0.7f), 0.7f) << "without observations";
  // Source 0 is too sure of itself, source 1 too careful.
  double found[2] = {0, 0};
  constexpr int kNodes = 4000;
  for (int i = 0; i < kNodes; ++i) {
    correction.observe(0, 0, 0.95f, uniform(random) < 0.3);
    correction.observe(1, 2, 0.2f, uniform(random) < 0.6);
    found[0] += correction.probability(0, 0, 0.95f) / kNodes;
    found[1] += correction.probability(1, 5, 0.2f) / kNodes;
  }
  EXPECT_NEAR(found[0], 0.3, 0.04);
  EXPECT_NEAR(found[1], 0.6, 0.06);
  EXPECT_FLOAT_EQ(correction.probability(0, 0, 0.45f), 0.45f) << "another estimate";
  EXPECT_FLOAT_EQ(correction.probability(0, 1, 0.95f), 0.95f) << "another depth";
  for (const float estimate : {-1.0f, 0.0f, 2.0f, std::numeric_limits<float>::quiet_NaN()}) {
    const double p = correction.probability(300, 100, estimate);
    EXPECT_TRUE(p >= 0 && p <= 1) << estimate;
  }
}

/// Returns a budget that knows the cost of every number of rows, allows drafts, and has no estimate to correct.
DraftBudget trained(const std::function<double(int rows)>& pass, int max_nodes) {
  DraftBudget budget(max_nodes);
  for (int i = 0; i < 400; ++i) {
    const int allowed = budget.nodes(0);
    Draft draft;
    std::vector<int> accepted;
    std::vector<int32_t> emitted;
    // All shorter drafts, one after the other, so that every number of rows is measured. All nodes are accepted, as
    // estimated.
    for (int n = 0; n < (i % 4 ? allowed : std::min(allowed, i / 4 % (max_nodes + 1))); ++n) draft.add(n - 1, n);
    budget.prune(draft);
    for (int n = 0; n < draft.size(); ++n) accepted.push_back(n), emitted.push_back(n);
    emitted.push_back(-1);
    budget.observe(
        {.verify_seconds = pass(1 + draft.size()), .draft = &draft, .accepted = accepted, .emitted = emitted});
  }
  return budget;
}

TEST(DraftBudget, PruningKeepsTheSubtreeWithTheBestRate) {
  const auto pass = [](int rows) { return rows <= 3 ? 1.0 : rows <= 6 ? 1.3 : 1.2 + 0.1 * rows; };
  constexpr int kNodes = 9;
  DraftBudget budget = trained(pass, kNodes);
  std::mt19937 random(test::seed(3));
  constexpr int kDrafts = 100;
  int pruned = 0;
  for (int i = 0; i < kDrafts; ++i) {
    Draft draft;
    std::vector<double> reach;
    for (int n = 0; n < kNodes; ++n) {
      const int parent = std::uniform_int_distribution<int>(-1, n - 1)(random);
      // Estimates in buckets that were not observed.
      const float estimate = std::uniform_real_distribution<float>(0.05f, 0.89f)(random);
      draft.add(parent, 100 + n, estimate);
      draft.sources.push_back(static_cast<uint8_t>(n % 3));
      reach.push_back((parent < 0 ? 1 : reach[parent]) * estimate);
    }
    DraftBudget copy = budget;
    while (copy.nodes(0) == 0) copy.observe({.verify_seconds = pass(1), .emitted = std::vector<int32_t>{1}});
    double best = 0;
    for (int subset = 0; subset < 1 << kNodes; ++subset) {
      double gain = 1;
      bool closed = true;
      int count = 0;
      for (int n = 0; n < kNodes; ++n) {
        if (!(subset >> n & 1)) continue;
        const int parent = draft.tree.parent(n);
        closed &= parent < 0 || (subset >> parent & 1);
        gain += reach[n];
        ++count;
      }
      if (closed) best = std::max(best, gain / std::max(1 + 0.001 * count, pass(1 + count)));
    }
    const Draft whole = draft;
    copy.prune(draft);
    double gain = 1;
    for (int n = 0; n < draft.size(); ++n) {
      const int original = draft.tokens[n] - 100;
      gain += reach[original];
      EXPECT_EQ(draft.estimates[n], whole.estimates[original]);
      EXPECT_EQ(draft.sources[n], whole.sources[original]);
      const int parent = whole.tree.parent(original);
      EXPECT_EQ(draft.tree.parent(n) < 0 ? -1 : draft.tokens[draft.tree.parent(n)] - 100, parent);
    }
    EXPECT_NEAR(gain / std::max(1 + 0.001 * draft.size(), pass(1 + draft.size())), best, 1e-4);
    pruned += draft.size() < kNodes;
  }
  EXPECT_GT(pruned, kDrafts / 2);
}

TEST(DraftBudget, DecisionsAreDeterministic) {
  const World world{.pass = kCurves[4].pass,
                    .propose = [](int) { return 0.05; },
                    .rate = [](int64_t) { return 0.6; },
                    .noise = 0.05};
  EXPECT_EQ(simulate(world, 500, 5).verified, simulate(world, 500, 5).verified);
}

}  // namespace
}  // namespace fathom
