#include "decode/drafts/merge.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"
#include "decode/drafts/acceptance.h"

namespace fathom {
namespace {

/// A prefix tree of any number of drafts. A node has a higher number than its parent.
class DraftTrie {
 public:
  void add(const Draft& draft, uint8_t source) {
    std::vector<int> numbers(draft.size());
    for (int i = 0; i < draft.size(); ++i) {
      const int parent = draft.tree.parent(i);
      const float estimate = draft.estimates.empty() ? 0.5f : draft.estimates[i];
      numbers[i] = add(parent < 0 ? -1 : numbers[parent], draft.tokens[i], estimate, source);
    }
  }

  Draft best(int count, float min_reach) const {
    std::vector<float> reach(nodes_.size());
    std::vector<int> order;
    for (int i = 0; i < std::ssize(nodes_); ++i) {
      const Node& node = nodes_[i];
      reach[i] = node.estimate * (node.parent < 0 ? 1.0f : reach[node.parent]);
      if (reach[i] >= min_reach) order.push_back(i);
    }
    // A parent has at least the reach of its child and a lower number, so it precedes the child.
    std::ranges::stable_sort(order, [&](int a, int b) { return reach[a] > reach[b]; });
    if (std::ssize(order) > count) order.resize(count);
    std::vector<int> numbers(nodes_.size(), -1);
    Draft draft;
    for (const int i : order) {
      const Node& node = nodes_[i];
      numbers[i] = draft.add(node.parent < 0 ? -1 : numbers[node.parent], node.token, node.estimate);
      draft.sources.push_back(node.source);
    }
    return draft;
  }

 private:
  struct Node {
    int32_t token;
    float estimate;
    int parent, first_child = -1, next_sibling = -1;
    uint8_t source;
  };

  int add(int parent, int32_t token, float estimate, uint8_t source) {
    estimate = estimate > 0 ? std::min(estimate, 1.0f) : 1e-6f;
    int* link = parent < 0 ? &first_root_ : &nodes_[parent].first_child;
    while (*link >= 0 && nodes_[*link].token != token) link = &nodes_[*link].next_sibling;
    if (*link >= 0) {
      Node& node = nodes_[*link];
      if (estimate > node.estimate) node.estimate = estimate, node.source = source;
      return *link;
    }
    const int number = static_cast<int>(nodes_.size());
    *link = number;
    nodes_.push_back({.token = token, .estimate = estimate, .parent = parent, .source = source});
    return number;
  }

  std::vector<Node> nodes_;
  int first_root_ = -1;
};

struct MergedExperience final : DraftExperience {
  struct Member {
    DepthCalibration calibration;
    std::shared_ptr<const DraftExperience> source;  // null: none
  };
  std::vector<Member> members;
};

class MergedSource final : public DraftSource {
 public:
  explicit MergedSource(std::vector<std::unique_ptr<DraftSource>> sources) {
    if (sources.empty() || sources.size() > 255)
      fail_usage("draft: expected 1 to 255 sources, found ", sources.size());
    std::set<int> layers;
    for (std::unique_ptr<DraftSource>& source : sources) {
      const DraftNeeds needs = source->needs();
      needs_.top_k = std::max(needs_.top_k, needs.top_k);
      layers.insert(needs.hidden_layers.begin(), needs.hidden_layers.end());
      members_.push_back({std::move(source), needs.hidden_layers, {}, {}});
    }
    needs_.hidden_layers.assign(layers.begin(), layers.end());
  }

  DraftNeeds needs() const override { return needs_; }

  void start(std::span<const int32_t> prompt) override {
    for (Member& member : members_) member.source->start(prompt);
  }

  Draft propose(const DraftContext& context, int nodes) override {
    std::vector<Draft> drafts;
    for (Member& member : members_) {
      DraftContext own = context;
      own.hidden = hidden_of(member, context.hidden);
      drafts.push_back(member.calibration.apply(member.source->propose(own, nodes), context.tokens.size()));
    }
    return unite(drafts, nodes, kMinReach);
  }

  void observe(const DraftOutcome& outcome) override {
    for (Member& member : members_) {
      member.calibration.observe(outcome);
      DraftOutcome own = outcome;
      own.hidden = hidden_of(member, outcome.hidden);
      member.source->observe(own);
    }
  }

  void finish(std::span<const int32_t> tokens) override {
    for (Member& member : members_) member.source->finish(tokens);
  }

  std::shared_ptr<const DraftExperience> experience() const override {
    auto all = std::make_shared<MergedExperience>();
    for (const Member& member : members_) all->members.push_back({member.calibration, member.source->experience()});
    return all;
  }

  void adopt(const DraftExperience& experience) override {
    const auto& all = dynamic_cast<const MergedExperience&>(experience);
    for (size_t i = 0; i < members_.size(); ++i) {
      members_[i].calibration = all.members.at(i).calibration;
      if (all.members[i].source) members_[i].source->adopt(*all.members[i].source);
    }
  }

 private:
  /// Nodes that are less likely to be accepted cost more time than they save, even where a row costs only this
  /// share of a pass.
  static constexpr float kMinReach = 0.02f;

  struct Member {
    std::unique_ptr<DraftSource> source;
    std::vector<int> hidden_layers;
    DepthCalibration calibration;
    std::vector<float> hidden;  // of its layers
  };

  /// Returns the hidden states of a source's own layers. Valid until the next call for this source.
  std::span<const float> hidden_of(Member& member, std::span<const float> hidden) const {
    return select_hidden(hidden, needs_.hidden_layers, member.hidden_layers, member.hidden);
  }

  std::vector<Member> members_;
  DraftNeeds needs_;
};

}  // namespace

Draft unite(std::span<const Draft> drafts, int nodes, float min_reach) {
  DraftTrie trie;
  for (size_t i = 0; i < drafts.size(); ++i) trie.add(drafts[i], static_cast<uint8_t>(i));
  return trie.best(nodes, min_reach);
}

std::unique_ptr<DraftSource> merge_sources(std::vector<std::unique_ptr<DraftSource>> sources) {
  return std::make_unique<MergedSource>(std::move(sources));
}

}  // namespace fathom
