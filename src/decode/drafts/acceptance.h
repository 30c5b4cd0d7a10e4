#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "decode/draft.h"

namespace fathom {

/// The share of accepted tokens: the mean of the first observations, then an exponential average over about kWindow
/// of them, so that it follows changes of the text.
class AcceptanceRate {
 public:
  /// initial: the value before the first observation, with the weight of two observations.
  explicit AcceptanceRate(float initial = 0.5f) : value_(initial) {}

  void add(bool accepted) {
    weight_ = std::min(weight_ + 1, kWindow);
    value_ += ((accepted ? 1.0f : 0.0f) - value_) / weight_;
  }
  /// Returns the rate, in [0.001, 0.999].
  float value() const { return std::clamp(value_, 0.001f, 0.999f); }

 private:
  static constexpr float kWindow = 32;
  float value_, weight_ = 2;
};

/// The ratio of accepted to predicted tokens of estimates that are systematically too high or too low, as two
/// exponential averages.
class Calibration {
 public:
  /// predicted: sum of the estimates of the children of a node whose parent was accepted.
  void add(bool accepted, float predicted) {
    constexpr float kRate = 1.0f / 12;
    accepted_ += kRate * ((accepted ? 1.0f : 0.0f) - accepted_);
    predicted_ += kRate * (std::min(predicted, 1.0f) - predicted_);
  }
  /// Returns the corrected estimate, in [0, 0.999].
  float apply(float estimate) const {
    return std::clamp(estimate * accepted_ / std::max(predicted_, 1e-3f), 0.0f, 0.999f);
  }

 private:
  float accepted_ = 0.5f, predicted_ = 0.5f;
};

/// The latest draft of a source, to be compared with the tokens that were emitted instead. The comparison does not
/// depend on which draft was verified.
class ProposedDraft {
 public:
  /// tokens: number of tokens of the text when the draft was proposed.
  void set(Draft draft, size_t tokens) {
    draft_ = std::move(draft);
    tokens_ = tokens;
  }
  const Draft& draft() const { return draft_; }

  /// Calls visit(parent, child) for each node with children on the path of the emitted tokens, and for the root
  /// (−1). child: the node that holds the next token, or −1. Then forgets the draft. Does nothing if the outcome
  /// does not follow the text that the draft continues.
  template <class Visit>
  void compare(const DraftOutcome& outcome, Visit&& visit) {
    if (draft_.size() > 0 && outcome.tokens.size() == tokens_ + outcome.emitted.size()) {
      int node = -1;
      for (const int32_t token : outcome.emitted) {
        if (!has_children(node)) break;
        const int child = draft_.find_child(node, token);
        visit(node, child);
        if (child < 0) break;
        node = child;
      }
    }
    draft_ = {};
  }

 private:
  bool has_children(int node) const {
    for (int i = node + 1; i < draft_.size(); ++i)
      if (draft_.tree.parent(i) == node) return true;
    return false;
  }
  Draft draft_;
  size_t tokens_ = 0;
};

/// Corrects the estimates of a source's drafts, at each depth by the share of them that would have been accepted.
class DepthCalibration {
 public:
  /// Returns the draft with corrected estimates; missing ones count as 0.5. tokens: as in ProposedDraft.
  Draft apply(Draft draft, size_t tokens) {
    if (draft.estimates.empty()) draft.estimates.assign(draft.size(), 0.5f);
    proposed_.set(draft, tokens);
    for (int i = 0; i < draft.size(); ++i)
      draft.estimates[i] = std::max(at(draft.tree.depth(i)).apply(draft.estimates[i]), 1e-6f);
    return draft;
  }
  /// Compares the latest draft with the emitted tokens. It may be another one than the verified draft.
  void observe(const DraftOutcome& outcome) {
    observe(outcome, [](int, int) {});
  }
  /// Also calls visit(parent, child) as ProposedDraft::compare.
  template <class Visit>
  void observe(const DraftOutcome& outcome, Visit&& visit) {
    const Draft& draft = proposed_.draft();
    proposed_.compare(outcome, [&](int parent, int child) {
      float predicted = 0;
      for (int i = parent + 1; i < draft.size(); ++i)
        if (draft.tree.parent(i) == parent) predicted += draft.estimates[i];
      at(parent < 0 ? 0 : draft.tree.depth(parent) + 1).add(child >= 0, predicted);
      visit(parent, child);
    });
  }

 private:
  Calibration& at(int depth) { return calibrations_[std::min<size_t>(depth, calibrations_.size() - 1)]; }
  ProposedDraft proposed_;
  std::array<Calibration, 16> calibrations_;  // by depth; the last one: all greater depths
};

}  // namespace fathom
