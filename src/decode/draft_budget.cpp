#include "decode/draft_budget.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace fathom {
namespace {

// Tuned with the virtual clock of tests/decode/test_draft_budget.cpp.
constexpr double kShare = 0.01;        // of the time of each step, paid into the account
constexpr double kCaution = 0.98;      // of the plain steps saved are paid in: measured costs err by a few percent
constexpr double kInitialAccount = 2;  // plain steps
constexpr double kReserve = 0.5;       // plain steps that trials leave in the account
constexpr double kMaxAccount = 8;      // plain steps
constexpr double kLeastRowCost = 0.001;  // plain steps per row, below which measurements are not precise
constexpr int kPlainSteps = 3;           // measured before the first draft
constexpr double kLeastRate = 1.02;      // of drafts, to be preferred to plain steps
constexpr double kTrialGain = 1.03;      // rate of a size that is tried, relative to the best one
constexpr int64_t kFirstInterval = 4;    // steps between probes
constexpr double kProbeShare = 0.005;    // of the time, spent on probes
constexpr int64_t kFirstTrialInterval = 16;
constexpr int64_t kMaxTrialInterval = 1024;
constexpr double kAverageRate = 1.0 / 16;  // of the averages over drafts

float estimate_of(const Draft& draft, int node) {
  return node < std::ssize(draft.estimates) ? draft.estimates[node] : 1;
}
int source_of(const Draft& draft, int node) { return node < std::ssize(draft.sources) ? draft.sources[node] : 0; }

/// Returns the average of a size from a newer one of the next smaller size, which changed since both were averaged
/// over the same drafts (`own` and `own_below`).
double follow(double below, double own, double own_below) {
  return own_below > 1e-3 ? below * own / own_below : own;
}

double blend(double old, double observed, int64_t count, double rate = kAverageRate) {
  return old + (observed - old) * std::max(rate, 1.0 / static_cast<double>(count + 1));
}

}  // namespace

// --- RobustAverage

void RobustAverage::add(double observed) {
  if (count_++ == 0 || !(value_ > 0)) {
    value_ = observed;
    return;
  }
  const double rate = std::max(1.0 / 8, 1.0 / static_cast<double>(count_));
  const double change = observed / value_ - 1, limit = 3 * std::max(spread_, 0.01);
  if (count_ <= 3) {  // too few to recognise delays: the shortest
    value_ = std::min(value_, observed);
  } else if (change < -std::min(limit, 0.25)) {  // no disturbance makes a pass faster: the conditions have changed
    value_ *= 1 + change / 2;
  } else {
    value_ *= 1 + rate * std::min(change, limit);
  }
  spread_ += (std::min(std::abs(change), limit) - spread_) / 8;
}

// --- ForwardCost

/// Returns the factor between the seconds at two lengths of the context: 1 + slope · (to − from). The slope is the
/// least that the observations support: the regression slope minus two standard errors, 0 before 32 observations.
double ForwardCost::growth(double from, double to) const {
  constexpr double kLeastWeight = 30;  // of the decaying count; fewer observations can agree by chance
  if (weight_ < kLeastWeight || !(context_context_ > 0)) return 1;
  const double slope = context_seconds_ / context_context_;
  const double residual = std::max(0.0, seconds_seconds_ - slope * context_seconds_) / weight_;
  const double error = std::sqrt(residual / context_context_);
  return std::clamp(1 + std::max(0.0, slope - 2 * error) * (to - from), 0.25, 8.0);
}

double ForwardCost::seconds_of(const Size& size, int64_t context) const {
  return size.seconds.value() * growth(size.context, static_cast<double>(context));
}

void ForwardCost::observe(int rows, int64_t context, double seconds) {
  if (rows < 1 || rows > kMaxRows || !(seconds > 0) || !std::isfinite(seconds)) return;
  constexpr double kMemory = 1 - 1.0 / 256;
  Size& size = sizes_[rows];
  const auto length = static_cast<double>(context);
  if (size.seconds.count() == 0) {
    size = {.context = length, .slow_seconds = seconds, .slow_context = length};
  } else {
    // A delayed pass counts at most 1.25 times its estimate.
    const double distance = length - size.slow_context;
    const double ratio = std::min(seconds, 1.25 * seconds_of(size, context)) / size.slow_seconds;
    const double rate = std::max(1.0 / 64, 1.0 / static_cast<double>(size.seconds.count() + 1));
    weight_ = kMemory * weight_ + 1;
    context_context_ = kMemory * context_context_ + distance * distance;
    context_seconds_ = kMemory * context_seconds_ + distance * (ratio - 1);
    seconds_seconds_ = kMemory * seconds_seconds_ + (ratio - 1) * (ratio - 1);
    size.slow_seconds *= 1 + rate * (ratio - 1);
    size.slow_context += rate * distance;
  }
  size.seconds.scale(growth(size.context, length));
  size.seconds.add(seconds);
  size.context = length;
}

double ForwardCost::seconds(int rows, int64_t context) const {
  rows = std::clamp(rows, 1, kMaxRows);
  int low = rows, high = rows;
  while (low > 0 && count(low) == 0) --low;
  while (high <= kMaxRows && count(high) == 0) ++high;
  if (low == rows) return seconds_of(sizes_[rows], context);
  if (low == 0) return high > kMaxRows ? 0 : seconds_of(sizes_[high], context);
  const double below = seconds_of(sizes_[low], context);
  if (high > kMaxRows) return below * rows / low;
  const double above = seconds_of(sizes_[high], context);
  return below + (above - below) * (rows - low) / (high - low);
}

// --- EstimateCorrection

size_t EstimateCorrection::index(int source, int depth, float estimate) {
  const int row = std::clamp(source, 0, kSources - 1) * kDepths + std::clamp(depth, 0, kDepths - 1);
  return static_cast<size_t>(row * kEstimates + std::min(static_cast<int>(estimate * kEstimates), kEstimates - 1));
}

double EstimateCorrection::probability(int source, int depth, float estimate) const {
  constexpr double kPrior = 0.5;  // accepted nodes: the weight of the source's own estimate
  estimate = estimate > 0 ? std::min(estimate, 1.0f) : 0;
  const Bucket& bucket = buckets_[index(source, depth, estimate)];
  return std::min(1.0, estimate * (bucket.accepted + kPrior) / (bucket.expected + kPrior));
}

void EstimateCorrection::observe(int source, int depth, float estimate, bool accepted) {
  constexpr double kMemory = 1 - 1.0 / 48;
  estimate = estimate > 0 ? std::min(estimate, 1.0f) : 0;
  Bucket& bucket = buckets_[index(source, depth, estimate)];
  bucket.accepted = kMemory * bucket.accepted + (accepted ? 1 : 0);
  bucket.expected = kMemory * bucket.expected + estimate;
}

// --- DraftBudget: estimates

DraftBudget::DraftBudget(int max_nodes) : account_(kInitialAccount), probe_interval_(kFirstInterval) {
  if (max_nodes < 1 || max_nodes >= DraftTree::kMaxNodes)
    fail("draft budget: expected 1 to ", DraftTree::kMaxNodes - 1, " nodes, found ", max_nodes);
  for (int nodes = 1; nodes < max_nodes; nodes = 2 * nodes + 1) sizes_.push_back({.nodes = nodes});
  sizes_.push_back({.nodes = max_nodes});
  restart_trials();
}

double DraftBudget::pass_cost(int rows) const {
  return std::max(1 + kLeastRowCost * (rows - 1), cost_.seconds(rows, context_) / plain());
}

/// Returns the cost of the next smaller observed number of rows if `rows` is the middle of a gap between observed
/// ones, so that each gap is bisected while it could contain the best number.
double DraftBudget::optimistic_cost(int rows) const {
  int low = rows, high = rows;
  while (low > 1 && cost_.count(low) == 0) --low;
  while (high <= ForwardCost::kMaxRows && cost_.count(high) == 0) ++high;
  const bool middle = high <= ForwardCost::kMaxRows && rows == (low + high) / 2;
  return pass_cost(middle ? low : rows);
}

/// Returns the expected accepted nodes of a draft of this size without pruning.
double DraftBudget::reach(int size) const {
  double reach = sizes_[0].reach;
  for (int i = 1; i <= size; ++i) reach = follow(reach, sizes_[i].reach, sizes_[i].reach_below);
  return reach;
}

DraftBudget::Expected DraftBudget::expected(int size) const {
  double gain = sizes_[0].gain, cost = sizes_[0].cost;
  for (int i = 1; i <= size; ++i) {
    gain = follow(gain, sizes_[i].gain, sizes_[i].gain_below);
    cost = follow(cost, sizes_[i].cost, sizes_[i].cost_below);
  }
  return {gain, cost + sizes_[size].draft_seconds.value() / plain()};
}

/// Returns the best that a size could reach: as many accepted nodes as if further nodes were as good as the newest
/// ones of the smaller size, at the cost of the smaller size if its own is not known well.
DraftBudget::Expected DraftBudget::optimistic(int size) const {
  if (size == 0) return {1, 1};
  const Size &own = sizes_[size], &below = sizes_[size - 1];
  const double slope = size == 1 ? reach(0) / below.nodes
                                 : (reach(size - 1) - reach(size - 2)) / (below.nodes - sizes_[size - 2].nodes);
  const double gain = reach(size - 1) + std::max(0.0, slope) * (own.nodes - below.nodes);
  const double cost_below = pass_cost(1 + below.nodes) + below.draft_seconds.value() / plain();
  if (own.measured < 3) return {gain, cost_below};
  return {gain, std::max(cost_below, 0.8 * (pass_cost(1 + own.nodes) + own.draft_seconds.value() / plain()))};
}

/// Returns how many plain steps a step with all nodes of this size costs more than a plain step, which are lost if
/// no node is accepted. Costs that are not known well are limited by those of fewer rows and nodes in proportion.
double DraftBudget::possible_loss(int size) const {
  const int rows = 1 + sizes_[size].nodes;
  int low = rows;
  while (low > 1 && cost_.count(low) < 3) --low;
  const double pass = std::min(pass_cost(rows), pass_cost(low) * rows / low);
  int known = size;
  while (known > 0 && sizes_[known].tried == 0) --known;
  const double draft_seconds = sizes_[known].draft_seconds.value() * sizes_[size].nodes / sizes_[known].nodes;
  return pass + draft_seconds / plain() - 1;
}

int DraftBudget::best_size() const {
  int best = -1;
  double rate = kLeastRate;
  for (int i = 0; i < std::ssize(sizes_) && sizes_[i].tried > 0; ++i) {
    const double own = expected(i).rate();
    if (own > rate && expected(i).cost - 1 <= account_) rate = own, best = i;
  }
  return best;
}

// --- DraftBudget: decisions

void DraftBudget::restart_trials() {
  for (Size& size : sizes_) {
    size.next_trial = step_;
    size.trial_interval = kFirstTrialInterval;
  }
}

/// Returns the smallest size to be tried that the account can pay for, else the smallest that it could pay for
/// later, else −1.
int DraftBudget::due_trial(int best, double best_rate) const {
  int later = -1;
  for (int i = 0; i < std::ssize(sizes_); ++i) {
    const bool known = i == best || (i == 0 && sizes_[0].tried > 0);  // measured by other steps
    if (!known && step_ >= sizes_[i].next_trial && optimistic(i).rate() > kTrialGain * best_rate) {
      const double needed = possible_loss(i) + kReserve;
      if (needed <= account_) return i;
      if (needed <= kMaxAccount && later < 0) later = i;
    }
    if (sizes_[i].tried == 0) break;
  }
  return later;
}

void DraftBudget::choose(int size, Purpose purpose) {
  size_ = size;
  purpose_ = purpose;
}

int DraftBudget::nodes(int64_t context) {
  context_ = context;
  proposed_.reset();
  choose(-1, Purpose::kPlain);
  if (cost_.count(1) < kPlainSteps) return 0;
  const int best = best_size();
  const double rate = best < 0 ? 1 : expected(best).rate();
  if (rate > 1.33 * trial_rate_ || rate < 0.75 * trial_rate_) {
    trial_rate_ = rate;
    restart_trials();
  }
  const int trial = due_trial(best, rate);
  if (trial >= 0 && possible_loss(trial) + kReserve <= account_) {
    choose(trial, Purpose::kTrial);
    sizes_[trial].next_trial = step_ + sizes_[trial].trial_interval;
    sizes_[trial].trial_interval = std::min(2 * sizes_[trial].trial_interval, kMaxTrialInterval);
  } else if (best >= 0) {
    // Plain steps measure what drafts are compared with. They cost kProbeShare of the time.
    const double interval = std::clamp((1 - 1 / rate) / kProbeShare, 8.0, 256.0);
    if (static_cast<double>(step_ - last_plain_) < interval) choose(best, Purpose::kBest);
  } else if (step_ >= next_probe_ && sizes_[0].tried > 0) {  // also while a larger trial is saved for
    int probe = 0;
    for (int i = 1; i < std::ssize(sizes_) && sizes_[i].tried > 0; ++i)
      if (expected(i).rate() > expected(probe).rate()) probe = i;
    if (possible_loss(probe) <= account_) choose(probe, Purpose::kProbe);
  }
  return size_ < 0 ? 0 : sizes_[size_].nodes;
}

DraftBudget::Profile DraftBudget::profile(const Draft& draft) const {
  const int nodes = draft.size();
  std::vector<double> reach(nodes);
  for (int i = 0; i < nodes; ++i) {
    const int parent = draft.tree.parent(i);
    const double estimate = draft.is_probe(i) ? estimate_of(draft, i)
                                              : correction_.probability(source_of(draft, i), draft.tree.depth(i),
                                                                        estimate_of(draft, i));
    reach[i] = (parent < 0 ? 1 : reach[parent]) * estimate;
  }
  // With probes, an accepted token takes two rows: one that predicts it and one that holds it. Each counts half.
  const double value = draft.probes.empty() ? 1 : 0.5;
  Profile result;
  result.order.resize(nodes);
  std::iota(result.order.begin(), result.order.end(), 0);
  std::ranges::stable_sort(result.order, [&](int a, int b) { return reach[a] > reach[b]; });
  result.gains.push_back(0);
  for (const int node : result.order) result.gains.push_back(result.gains.back() + value * reach[node]);
  return result;
}

int DraftBudget::best_count(const Profile& profile, int limit, double draft_cost, bool explores) const {
  int best = 0;
  double rate = 0;
  for (int n = 0; n <= limit; ++n) {
    const double own =
        (1 + profile.gains[n]) / (draft_cost + (explores ? optimistic_cost(1 + n) : pass_cost(1 + n)));
    if (own > rate) rate = own, best = n;
  }
  return best;
}

void DraftBudget::prune(Draft& draft) {
  if (purpose_ != Purpose::kBest || draft.kind != DraftKind::kFixed || draft.pull.strength > 0) return;
  proposed_ = draft;
  const Profile nodes = profile(draft);
  const int keep = best_count(nodes, draft.size(), sizes_[size_].draft_seconds.value() / plain(), true);
  if (keep == draft.size()) return;
  std::vector<bool> kept(draft.size());
  for (int i = 0; i < keep; ++i) kept[nodes.order[i]] = true;
  Draft pruned;
  std::vector<int> number(draft.size());
  for (int i = 0; i < draft.size(); ++i) {
    if (!kept[i]) continue;
    const int parent = draft.tree.parent(i);
    const int kept_parent = parent < 0 ? -1 : number[parent];
    number[i] = draft.is_probe(i) ? pruned.add_probe(kept_parent, draft.tokens[i], estimate_of(draft, i))
                                  : pruned.add(kept_parent, draft.tokens[i], estimate_of(draft, i));
    if (!draft.sources.empty()) pruned.sources.push_back(static_cast<uint8_t>(source_of(draft, i)));
  }
  if (draft.estimates.empty()) pruned.estimates.clear();
  pruned.transfer = draft.transfer;
  draft = std::move(pruned);
}

// --- DraftBudget: observations

void DraftBudget::correct_estimates(const Draft& draft, const Step& step) {
  const bool fixed = draft.kind == DraftKind::kFixed;
  int node = -1;
  for (size_t depth = 0; depth < step.emitted.size(); ++depth) {
    int next = -1;
    for (int child = node + 1; child < draft.size(); ++child) {
      if (draft.tree.parent(child) != node || draft.is_probe(child)) continue;
      // Removed nodes are known, too: they hold the emitted token or not.
      const bool accepted = fixed ? next < 0 && draft.tokens[child] == step.emitted[depth]
                                  : depth < step.accepted.size() && step.accepted[depth] == child;
      if (accepted) next = child;
      correction_.observe(source_of(draft, child), static_cast<int>(depth), estimate_of(draft, child), accepted);
    }
    if (next < 0) return;
    node = next;
  }
}

void DraftBudget::evaluate(const Draft& draft) {
  const Profile nodes = profile(draft);
  const bool complete = draft.size() < sizes_[size_].nodes;  // more nodes would have been allowed
  double gain_below = 0, reach_below = 0, cost_below = 1;
  for (int i = 0; i < std::ssize(sizes_) && (i <= size_ || complete); ++i) {
    Size& size = sizes_[i];
    const int limit = std::min(size.nodes, draft.size());
    const int count = draft.kind == DraftKind::kFixed
                          ? best_count(nodes, limit, size.draft_seconds.value() / plain(), false)
                          : limit;
    const double gain = nodes.gains[count], reach = nodes.gains[limit], cost = pass_cost(1 + count);
    size.gain = blend(size.gain, gain, size.evaluated);
    size.gain_below = blend(size.gain_below, gain_below, size.evaluated);
    size.reach = blend(size.reach, reach, size.evaluated);
    size.reach_below = blend(size.reach_below, reach_below, size.evaluated);
    size.cost = blend(size.cost, cost, size.evaluated);
    size.cost_below = blend(size.cost_below, cost_below, size.evaluated);
    ++size.evaluated;
    gain_below = gain;
    reach_below = reach;
    cost_below = cost;
  }
}

void DraftBudget::update_account(const Step& step, int rows) {
  const double plain_seconds = plain();
  if (!(plain_seconds > 0)) return;
  // A delay of the machine is not a loss of the draft.
  const double longest = 1.25 * cost_.seconds(rows, step.context);
  const double pass = std::min(step.verify_seconds, longest) / plain_seconds;
  account_ += kShare * pass;
  if (size_ >= 0) {
    const RobustAverage& known = sizes_[size_].draft_seconds;
    const double draft_seconds =
        known.count() > 2 ? std::min(step.draft_seconds, 3 * known.value()) : step.draft_seconds;
    account_ += kCaution * static_cast<double>(step.emitted.size()) - pass - draft_seconds / plain_seconds;
  }
  account_ = std::min(account_, kMaxAccount);
}

void DraftBudget::observe(const Step& observed) {
  Step step = observed;
  for (double* seconds : {&step.draft_seconds, &step.verify_seconds})
    if (!(*seconds >= 0) || !std::isfinite(*seconds)) *seconds = 0;
  const int rows = std::min(1 + (step.draft ? step.draft->size() : 0), ForwardCost::kMaxRows);
  context_ = step.context;
  update_account(step, rows);
  ++step_;
  // A surprising measurement is repeated in the next step.
  if (rows == 1 && std::abs(step.verify_seconds - plain()) <= 0.2 * plain()) last_plain_ = step_;
  cost_.observe(rows, step.context, step.verify_seconds);
  if (size_ < 0) return;
  const Draft none;
  const Draft& draft = proposed_ ? *proposed_ : step.draft ? *step.draft : none;
  correct_estimates(draft, step);
  Size& size = sizes_[size_];
  ++size.tried;
  if (rows > 1) ++size.measured;
  if (purpose_ == Purpose::kTrial && draft.size() == 0) {  // tells nothing: the trial is repeated
    size.next_trial = step_;
    size.trial_interval = std::max(size.trial_interval / 2, kFirstTrialInterval);
  }
  size.draft_seconds.add(step.draft_seconds);
  evaluate(draft);
  if (purpose_ == Purpose::kBest) {
    probe_interval_ = kFirstInterval;
  } else {
    const double loss =
        (step.draft_seconds + step.verify_seconds) / plain() - static_cast<double>(step.emitted.size());
    const auto longest = static_cast<int64_t>(std::clamp(loss / kProbeShare, 8.0, 128.0));
    probe_interval_ = step.emitted.size() > 1 ? 1 : std::min(2 * probe_interval_, longest);
    next_probe_ = step_ + probe_interval_;
  }
  proposed_.reset();
  choose(-1, Purpose::kPlain);
}

}  // namespace fathom
