#include "decode/drafts/grow.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <queue>

namespace fathom {
namespace {

double gumbel(uint64_t bits) { return -std::log(-std::log(uniform_from(bits))); }

/// The position of the children of a node.
int64_t child_position(const GrowthTask& task, const Draft& draft, int node) {
  return task.position + (node < 0 ? 0 : draft.tree.depth(node) + 1);
}

/// A draft that grows, with the distributions of its inner nodes.
class Growing {
 public:
  explicit Growing(const GrowthTask& task) : task_(task) {
    if (!task.random) return;
    draft_.kind = task.replace ? DraftKind::kIndependent : DraftKind::kWithoutReplacement;
  }

  const Draft& draft() const { return draft_; }
  bool full() const { return draft_.size() >= std::min(task_.nodes, DraftTree::kMaxNodes); }
  std::vector<TokenDistribution> expand(std::span<const int> nodes) const { return task_.expand(draft_, nodes); }
  int add(int parent, int32_t token, double estimate) {
    const double least = std::numeric_limits<float>::min();
    return draft_.add(parent, token, static_cast<float>(std::clamp(estimate, least, 1.0)));
  }
  /// Stores the distribution that the children of a node were drawn from.
  void set_distribution(int node, TokenDistribution distribution) {
    if (!task_.random) return;
    if (std::ssize(draft_.distributions) <= node + 1) draft_.distributions.resize(node + 2);
    draft_.distributions[node + 1] = std::move(distribution);
  }
  Draft finish() {
    if (task_.random) draft_.distributions.resize(1 + draft_.size());
    return std::move(draft_);
  }

 private:
  const GrowthTask& task_;
  Draft draft_;
};

/// The children of one node, one by one: drawn from its distribution, or in its order.
class Children {
 public:
  struct Child {
    int32_t token = 0;
    double probability = 0;  // of this token, given that the earlier siblings were not accepted
  };

  /// index: distinguishes the random numbers of nodes at the same position.
  Children(const GrowthTask& task, TokenDistribution distribution, int64_t position, uint64_t index)
      : task_(&task), distribution_(std::move(distribution)), position_(position), index_(index) {
    if (task.random && !task.replace) drawn_.assign(distribution_.size(), false);
  }

  /// Returns the next child; nothing if all tokens with a probability above 0 have been returned.
  std::optional<Child> next() {
    if (!task_->random) return in_order();
    double mass = 0;
    for (size_t i = 0; i < distribution_.size(); ++i)
      if (drawn_.empty() || !drawn_[i]) mass += distribution_[i].probability;
    if (!(mass > 0)) return {};
    const size_t chosen = draw(mass);
    if (!drawn_.empty()) drawn_[chosen] = true;
    return Child{distribution_[chosen].token, distribution_[chosen].probability / mass};
  }
  /// The probability of the next child in order; of random ones it is unknown: 1.
  double next_probability() const {
    if (task_->random) return 1;
    return count_ < distribution_.size() ? distribution_[count_].probability : 0;
  }
  size_t count() const { return count_; }
  TokenDistribution take() { return std::move(distribution_); }

 private:
  std::optional<Child> in_order() {
    if (count_ == distribution_.size() || !(distribution_[count_].probability > 0)) return {};
    const TokenProbability& next = distribution_[count_++];
    return Child{next.token, next.probability};
  }
  /// Draws an entry in proportion to its probability; mass: the sum over the entries that can be drawn.
  size_t draw(double mass) {
    const uint64_t bits = random_bits(task_->seed, RandomStream::kDraft, position_, index_ + count_++);
    double left = uniform_from(bits) * mass;
    size_t last = 0;
    for (size_t i = 0; i < distribution_.size(); ++i) {
      if ((!drawn_.empty() && drawn_[i]) || !(distribution_[i].probability > 0)) continue;
      last = i;
      left -= distribution_[i].probability;
      if (left < 0) break;
    }
    return last;
  }

  const GrowthTask* task_;
  TokenDistribution distribution_;
  std::vector<bool> drawn_;  // empty: tokens can be drawn again
  int64_t position_;
  uint64_t index_;
  size_t count_ = 0;
};

/// Returns the children of a node of a tree, with random numbers of its own.
Children children_of(const GrowthTask& task, const Draft& draft, int node, TokenDistribution distribution) {
  return {task, std::move(distribution), child_position(task, draft, node), static_cast<uint64_t>(node + 2) << 32};
}

}  // namespace

Draft grow_chain(const GrowthTask& task, int length, double confidence) {
  Growing growing(task);
  for (int node = -1; node + 1 < length && !growing.full(); ++node) {
    std::vector<TokenDistribution> distributions = growing.expand({&node, 1});
    if (distributions.empty()) break;
    Children children(task, std::move(distributions[0]), child_position(task, growing.draft(), node), 0);
    const auto child = children.next();
    if (!child) break;
    growing.add(node, child->token, child->probability);
    growing.set_distribution(node, children.take());
    if (child->probability < confidence) break;
  }
  Draft draft = growing.finish();
  if (task.random) draft.kind = DraftKind::kIndependent;  // one child per node: both rules are the same
  return draft;
}

Draft grow_constant(const GrowthTask& task, std::span<const int> branching) {
  Growing growing(task);
  std::vector<int> level{-1};
  for (const int count : branching) {
    if (growing.full() || level.empty()) break;
    std::vector<TokenDistribution> distributions = growing.expand(level);
    std::vector<int> next;
    for (size_t i = 0; i < distributions.size() && !growing.full(); ++i) {
      Children children = children_of(task, growing.draft(), level[i], std::move(distributions[i]));
      double reached = 1;
      for (int c = 0; c < count && !growing.full(); ++c) {
        const auto child = children.next();
        if (!child) break;
        next.push_back(growing.add(level[i], child->token, reached * child->probability));
        if (task.random) reached *= 1 - child->probability;
      }
      growing.set_distribution(level[i], children.take());
    }
    if (distributions.size() < level.size()) break;
    level = std::move(next);
  }
  return growing.finish();
}

namespace {

/// A sequence of tokens that a beam search considers: a child of a node.
struct BeamEntry {
  int node;  // −1 for the roots; of the parent while it is a candidate
  int32_t token;
  double log_probability;  // φ, of the sequence
  double perturbed;        // G, φ plus noise
  double estimate;         // q(token)
};

bool larger(const BeamEntry& a, const BeamEntry& b) {
  return a.perturbed != b.perturbed ? a.perturbed > b.perturbed
                                    : std::pair(a.node, a.token) < std::pair(b.node, b.token);
}

/// Keeps the n largest entries, in descending order.
void keep_largest(std::vector<BeamEntry>& entries, size_t n) {
  n = std::min(n, entries.size());
  std::partial_sort(entries.begin(), entries.begin() + static_cast<int64_t>(n), entries.end(), larger);
  entries.resize(n);
}

/// Returns the `width` children of a beam with the largest perturbed log-probabilities, which are conditioned so
/// that the largest equals that of the beam.
std::vector<BeamEntry> beam_children(const GrowthTask& task, int64_t position, const BeamEntry& beam,
                                     const TokenDistribution& distribution, size_t width) {
  std::vector<BeamEntry> children;
  for (const TokenProbability& entry : distribution) {
    if (!(entry.probability > 0)) continue;
    const double phi = beam.log_probability + std::log(static_cast<double>(entry.probability));
    children.push_back({beam.node, entry.token, phi, phi, entry.probability});
    if (!task.random) continue;
    const uint64_t index = (static_cast<uint64_t>(beam.node + 2) << 32) + static_cast<uint32_t>(entry.token);
    children.back().perturbed += gumbel(random_bits(task.seed, RandomStream::kDraft, position, index));
  }
  keep_largest(children, width);
  if (!task.random || children.empty()) return children;
  const double largest = children[0].perturbed;
  for (BeamEntry& child : children) {
    if (child.perturbed == largest) {
      child.perturbed = beam.perturbed;
      continue;
    }
    // log(1 − e^(g − Z)); its argument is negative
    const double tail = std::log(-std::expm1(child.perturbed - largest));
    const double v = beam.perturbed - child.perturbed + tail;
    child.perturbed = beam.perturbed - std::max(0.0, v) - std::log1p(std::exp(-std::abs(v)));
  }
  return children;
}

}  // namespace

Draft grow_beam(const GrowthTask& task, int width, int depth) {
  return grow_beam(task, std::vector<int>(depth, width));
}

Draft grow_beam(const GrowthTask& task, std::span<const int> widths) {
  Growing growing(task);
  std::vector<BeamEntry> beams{{-1, 0, 0, 0, 1}};
  for (const int width : widths) {
    if (growing.full() || beams.empty()) break;
    std::vector<int> nodes;
    for (const BeamEntry& beam : beams) nodes.push_back(beam.node);
    std::vector<TokenDistribution> distributions = growing.expand(nodes);
    if (distributions.size() < nodes.size()) break;
    std::vector<BeamEntry> candidates;
    for (size_t i = 0; i < beams.size(); ++i) {
      const int64_t position = child_position(task, growing.draft(), beams[i].node);
      const auto children = beam_children(task, position, beams[i], distributions[i], static_cast<size_t>(width));
      candidates.insert(candidates.end(), children.begin(), children.end());
    }
    keep_largest(candidates, static_cast<size_t>(width));
    std::vector<char> is_parent(beams.size());
    size_t added = 0;
    for (BeamEntry& entry : candidates) {
      if (growing.full()) break;
      is_parent[std::ranges::find(nodes, entry.node) - nodes.begin()] = 1;
      entry.node = growing.add(entry.node, entry.token, entry.estimate);
      ++added;
    }
    candidates.resize(added);
    for (size_t i = 0; i < beams.size(); ++i)
      if (is_parent[i]) growing.set_distribution(nodes[i], std::move(distributions[i]));
    beams = std::move(candidates);
  }
  return growing.finish();
}

namespace {

/// A node whose next child may be added.
struct GreedyEntry {
  double value;  // estimated probability that the next child is tested; without random numbers: and accepted
  int node;
  bool operator<(const GreedyEntry& other) const {
    return value != other.value ? value < other.value : node > other.node;
  }
};

/// Grows a tree in the order of the values of its entries.
class GreedyTree {
 public:
  GreedyTree(const GrowthTask& task, const GreedyGrowth& options)
      : task_(task), options_(options), growing_(task), reached_{1}, children_(1) {}

  Draft grow() {
    if (options_.threshold > 0) {
      grow_levels();
    } else {
      queue_.push({1, -1});
      grow_queue({-1});
    }
    for (int node = -1; node < growing_.draft().size(); ++node)
      if (children(node) && children(node)->count() > 0) growing_.set_distribution(node, children(node)->take());
    return growing_.finish();
  }

 private:
  std::optional<Children>& children(int node) { return children_[node + 1]; }

  /// Computes the distributions of nodes. Returns whether all could be computed.
  bool evaluate(const std::vector<int>& nodes) {
    std::vector<TokenDistribution> distributions = growing_.expand(nodes);
    for (size_t i = 0; i < distributions.size(); ++i)
      children(nodes[i]) = children_of(task_, growing_.draft(), nodes[i], std::move(distributions[i]));
    return distributions.size() == nodes.size();
  }

  /// Adds the next child of the entry's node, and the entry for the child after it. Returns the child, or −1.
  int add_child(GreedyEntry entry) {
    double& reached = reached_[entry.node + 1];  // probability that the next child is tested
    const auto child = children(entry.node)->next();
    if (!child) return -1;
    const double parent = entry.node < 0 ? 1 : value_[entry.node];
    const double value = reached * child->probability;
    const int node = growing_.add(entry.node, child->token, parent > 0 ? value / parent : child->probability);
    if (task_.random && !task_.replace) reached *= 1 - child->probability;
    queue_.push({reached_[entry.node + 1] * children(entry.node)->next_probability(), entry.node});
    value_.push_back(value);
    reached_.push_back(value);
    children_.emplace_back();
    return node;
  }

  /// Expands the entry with the largest value until the draft is full. A node is evaluated when it is first taken
  /// from the queue, together with all others that have not been evaluated.
  void grow_queue(std::vector<int> unevaluated) {
    while (!queue_.empty() && !growing_.full()) {
      const GreedyEntry entry = queue_.top();
      queue_.pop();
      if (!(entry.value > 0)) return;
      if (!children(entry.node)) {
        if (!evaluate(unevaluated)) return;
        unevaluated.clear();
        queue_.push({reached_[entry.node + 1] * children(entry.node)->next_probability(), entry.node});
        continue;
      }
      const int node = add_child(entry);
      if (node < 0 || growing_.draft().tree.depth(node) + 1 >= options_.depth) continue;
      queue_.push({value_[node], node});
      unevaluated.push_back(node);
    }
  }

  void grow_levels() {
    std::vector<int> level{-1};
    for (int depth = 0; depth < options_.depth && !level.empty() && !growing_.full(); ++depth) {
      if (!evaluate(level)) return;
      queue_ = {};
      for (const int node : level) queue_.push({reached_[node + 1] * children(node)->next_probability(), node});
      level.clear();
      while (!queue_.empty() && !growing_.full() && queue_.top().value > options_.threshold) {
        const GreedyEntry entry = queue_.top();
        queue_.pop();
        const int node = add_child(entry);
        if (node >= 0 && value_[node] > options_.threshold) level.push_back(node);
      }
    }
  }

  const GrowthTask& task_;
  const GreedyGrowth& options_;
  Growing growing_;
  std::vector<double> value_;                      // [nodes] estimated probability that a node is accepted
  std::vector<double> reached_;                    // [1 + nodes] that the next child of a node is tested
  std::vector<std::optional<Children>> children_;  // [1 + nodes]; nothing: not evaluated
  std::priority_queue<GreedyEntry> queue_;
};

}  // namespace

Draft grow_greedy(const GrowthTask& task, const GreedyGrowth& options) { return GreedyTree(task, options).grow(); }

}  // namespace fathom
