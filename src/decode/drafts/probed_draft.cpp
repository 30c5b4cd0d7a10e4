#include "decode/drafts/probed_draft.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "decode/drafts/draft_model.h"
#include "decode/drafts/grow.h"

namespace fathom {

Draft ProbedDrafts::propose(const DraftContext& context, int nodes) {
  Draft draft;
  if (tokens_ == context.tokens.size()) draft = candidates(context, std::min(nodes, options_.candidates));
  return with_probes(calibration_.apply(std::move(draft), context.tokens.size()), nodes);
}

/// Returns the most likely candidates, if the predictions of a node depend on its depth alone.
Draft ProbedDrafts::candidates(const DraftContext& context, int nodes) const {
  GrowthTask task = growth_task(context, nodes, DraftRule::kMatch);
  std::vector<int32_t> text(context.tokens.begin(), context.tokens.end());
  task.expand = [&](const Draft& draft, std::span<const int> parents) {
    std::vector<TokenDistribution> distributions(parents.size());
    for (size_t i = 0; i < parents.size(); ++i) {
      const int parent = parents[i], depth = parent < 0 ? 0 : draft.tree.depth(parent) + 1;
      const bool ends =
          parent >= 0 && options_.tokenizer && options_.tokenizer->ends_generation(draft.tokens[parent]);
      if (ends || depth >= std::ssize(logits_)) continue;
      if (parent >= 0)
        for (const int node : draft.tree.path(parent)) text.push_back(draft.tokens[node]);
      distributions[i] = child_distribution(*context.sampler, logits_[depth], text, context.position + depth,
                                            DraftRule::kMatch, options_.topk);
      text.resize(context.tokens.size());
      std::erase_if(distributions[i],
                    [&](const TokenProbability& entry) { return !(entry.probability > options_.threshold); });
    }
    return distributions;
  };
  const auto depth = static_cast<int>(logits_.size());
  return options_.chain ? grow_chain(task, depth) : grow_greedy(task, {.depth = depth});
}

/// Returns the `nodes` most valuable nodes among the candidates and the probes after each of them. The value of a
/// candidate is the probability that it is accepted; that of a probe the probability that the accepted path ends at
/// its candidate and that the probe predicts an emitted token. It is at most that of the parent.
Draft ProbedDrafts::with_probes(const Draft& candidates, int nodes) const {
  struct Item {
    int candidate;  // −1: the root
    int step;       // 0: the candidate itself
    float estimate;
    double value;
  };
  std::vector<double> reach(1, 1), ends(1 + candidates.size(), 1);  // [1 + candidates], first of the root
  std::vector<char> inner(1 + candidates.size());
  std::vector<Item> items;
  for (int i = 0; i < candidates.size(); ++i) {
    const int parent = candidates.tree.parent(i);
    reach.push_back(reach[parent + 1] * candidates.estimates[i]);
    ends[parent + 1] -= candidates.estimates[i];
    inner[parent + 1] = true;
    items.push_back({i, 0, candidates.estimates[i], reach.back()});
  }
  for (int i = -1; i < candidates.size(); ++i) {
    if (options_.chain && inner[i + 1]) continue;
    double value = reach[i + 1];
    for (int step = 1; step <= options_.steps; ++step) {
      const double end = step == 1 ? std::clamp(ends[i + 1], 1e-3, 1.0) : 1;
      const double estimate = end * rates_[step - 1].value();
      items.push_back({i, step, static_cast<float>(estimate), value *= estimate});
    }
  }
  std::ranges::stable_sort(items, std::greater(), &Item::value);  // parents precede their children
  if (std::ssize(items) > nodes) items.resize(nodes);
  Draft draft;
  std::vector<int> number(1 + candidates.size(), -1), last_probe(1 + candidates.size(), -1);
  for (const Item& item : items) {
    const int at = item.candidate + 1;
    if (item.step == 0) {
      number[at] = draft.add(number[candidates.tree.parent(item.candidate) + 1], candidates.tokens[item.candidate],
                             item.estimate);
    } else {
      last_probe[at] = draft.add_probe(item.step == 1 ? number[at] : last_probe[at], options_.token, item.estimate);
    }
  }
  draft.transfer = options_.transfer;
  return draft;
}

void ProbedDrafts::observe(const DraftOutcome& outcome) {
  int depth = 0;
  calibration_.observe(outcome, [&](int, int child) { rates_[depth++].add(child >= 0); });
  logits_.clear();
  tokens_ = outcome.tokens.size();
  if (!outcome.logits || !outcome.draft) return;
  int node = outcome.accepted.empty() ? -1 : outcome.accepted.back();
  while ((node = outcome.draft->find_probe(node)) >= 0) {
    const std::span<const float> row = outcome.logits(node);
    if (!std::ranges::all_of(row, [](float logit) { return std::isfinite(logit); })) return;
    logits_.emplace_back(row.begin(), row.end());
  }
}

}  // namespace fathom
