#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "decode/draft.h"

namespace fathom {

/// An exponential average of a positive quantity. A single observation far above it has a bounded effect, because a
/// shared machine delays some passes; a lasting change is followed within about ten observations.
class RobustAverage {
 public:
  void add(double observed);
  /// Multiplies the average, when the conditions of the observations changed in a known way.
  void scale(double factor) { value_ *= factor; }
  double value() const { return value_; }
  int64_t count() const { return count_; }

 private:
  double value_ = 0;
  double spread_ = 0.1;  // average of |observed / value − 1|
  int64_t count_ = 0;
};

/// Seconds of a forward pass by its number of rows and the length of the context, from observed passes.
class ForwardCost {
 public:
  static constexpr int kMaxRows = DraftTree::kMaxNodes + 1;

  /// Ignores durations that are not positive and finite, and numbers of rows outside 1 to kMaxRows.
  void observe(int rows, int64_t context, double seconds);
  /// Returns the estimate for this number of rows (1 to kMaxRows): interpolated between observed numbers, below
  /// them that of the smallest, above them proportional to the rows, which is an upper bound. 0: nothing observed.
  double seconds(int rows, int64_t context) const;
  /// Number of observed passes with this number of rows.
  int64_t count(int rows) const { return sizes_[rows].seconds.count(); }

 private:
  struct Size {
    RobustAverage seconds{};
    double context = 0;                         // that the average applies to
    double slow_seconds = 0, slow_context = 0;  // slow averages, for the growth
  };
  double seconds_of(const Size& size, int64_t context) const;
  double growth(double from, double to) const;

  std::array<Size, kMaxRows + 1> sizes_;
  // Decaying sums of the regression of relative seconds on tokens of context.
  double weight_ = 0, context_context_ = 0, context_seconds_ = 0, seconds_seconds_ = 0;
};

/// Corrects the estimates of drafts by the observed acceptance of earlier nodes with the same source, a similar
/// estimate and a similar depth.
class EstimateCorrection {
 public:
  /// Returns the probability that a node is accepted if its parent is, in [0, 1].
  double probability(int source, int depth, float estimate) const;
  /// Adds a node whose parent was accepted.
  void observe(int source, int depth, float estimate, bool accepted);

 private:
  struct Bucket {
    double accepted = 0, expected = 0;  // decaying sums
  };
  static constexpr int kSources = 16, kDepths = 3, kEstimates = 10;  // later sources share the last row
  static size_t index(int source, int depth, float estimate);
  std::array<Bucket, kSources * kDepths * kEstimates> buckets_{};
};

/// Chooses how many nodes of drafts are proposed and verified, so that drafts save time and never cost much more
/// than they save. It measures passes, proposals and acceptance while a text is decoded, and has no clock of its
/// own. For one text at a time; it may be kept for later texts of the same model and sources.
///
/// For each step: n = nodes(context); if n > 0, propose at most n nodes and prune() them; read and verify them;
/// observe() the step, whether it had a draft or not. The unit of comparison is a plain step, which reads one
/// token.
/// - The next draft has the size with the largest estimated rate (1 + expected accepted nodes) / cost. If no size
/// is
///   faster than a plain step, nothing is proposed, except by probes at intervals that double up to 8 to 128 steps,
///   the longer the more a probe costs.
/// - Sizes double from 1 node to the limit. A larger one is tried if it could be the best, given that further nodes
///   are accepted at most as often as those before them. Trials are repeated at doubling intervals, from the
///   beginning if the best rate changes by a third.
/// - Plain steps between drafts measure what drafts are compared with.
/// - An account holds the time that drafts have saved. All steps pay 1 % of their time into it, steps with drafts
///   also what they saved or lost. A draft whose loss, if no node is accepted, exceeds the account is not proposed,
///   so all losses together stay below about 1 % of the time and two plain steps, as far as costs are known before.
///   The account is bounded, so that earlier savings do not pay for later losses.
class DraftBudget {
 public:
  /// max_nodes: 1 to DraftTree::kMaxNodes − 1.
  explicit DraftBudget(int max_nodes = DraftTree::kMaxNodes - 1);

  /// A step that has been verified.
  struct Step {
    int64_t context = 0;           // tokens read before it
    double draft_seconds = 0;      // for proposing and pruning
    double verify_seconds = 0;     // for the forward pass and the verification
    const Draft* draft = nullptr;  // after prune(); null or empty: a plain step
    std::span<const int> accepted{};
    std::span<const int32_t> emitted{};
  };

  /// Returns how many nodes may be proposed in the next step; 0: none. context: tokens read so far.
  int nodes(int64_t context);
  /// Removes the nodes beyond the best size: nodes are taken in order of their estimated probability of being
  /// reached, and the number with the largest rate is kept. Drawn drafts (DraftKind) are not changed, because
  /// pruning after drawing would bias the text, nor are drafts that serve to measure a size.
  void prune(Draft& draft);
  void observe(const Step& observed);

  const ForwardCost& cost() const { return cost_; }

 private:
  /// What is known about drafts of at most `nodes` nodes. Costs are in plain steps.
  struct Size {
    int nodes;
    int64_t tried = 0;      // steps in which this many nodes were allowed
    int64_t measured = 0;   // of them, steps with a draft
    int64_t evaluated = 0;  // drafts that the averages cover
    // Averages over the same drafts, of this size and of the next smaller one.
    double gain = 0, gain_below = 0;    // expected accepted nodes after pruning
    double reach = 0, reach_below = 0;  // without pruning
    double cost = 0, cost_below = 0;    // of the pass after pruning
    RobustAverage draft_seconds{};
    int64_t next_trial = 0, trial_interval = 0;
  };
  enum class Purpose { kPlain, kBest, kTrial, kProbe };
  struct Expected {
    double gain, cost;  // expected accepted nodes; cost of the step in plain steps, including the proposal
    double rate() const { return (1 + gain) / cost; }
  };
  struct Profile {
    std::vector<int> order;     // nodes by descending probability of being reached
    std::vector<double> gains;  // [1 + nodes] expected accepted nodes of the first n of them
  };

  double plain() const { return cost_.seconds(1, context_); }
  double pass_cost(int rows) const;  // in plain steps, at least 1
  double optimistic_cost(int rows) const;
  double reach(int size) const;
  Expected expected(int size) const;
  Expected optimistic(int size) const;
  double possible_loss(int size) const;
  int best_size() const;
  int due_trial(int best, double best_rate) const;
  void restart_trials();
  void choose(int size, Purpose purpose);
  Profile profile(const Draft& draft) const;
  int best_count(const Profile& profile, int limit, double draft_cost, bool explores) const;
  void correct_estimates(const Draft& draft, const Step& step);
  void evaluate(const Draft& draft);
  void update_account(const Step& step, int rows);

  ForwardCost cost_;
  EstimateCorrection correction_;
  std::vector<Size> sizes_;
  double account_;  // in plain steps
  int64_t step_ = 0, next_probe_ = 0, probe_interval_, last_plain_ = 0;
  double trial_rate_ = 1;  // best rate when the trials were restarted

  // Of the current step.
  int64_t context_ = 0;
  int size_ = -1;  // index of the allowed size; −1: none
  Purpose purpose_ = Purpose::kPlain;
  std::optional<Draft> proposed_;  // before pruning
};

}  // namespace fathom
