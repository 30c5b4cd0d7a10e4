// Drafts of heads that were trained on the last hidden state of the model.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <vector>

#include "base/error.h"
#include "decode/draft.h"
#include "decode/drafts/acceptance.h"
#include "decode/drafts/draft_heads.h"
#include "decode/drafts/draft_model.h"
#include "decode/drafts/grow.h"

namespace fathom {
namespace {

class HeadsSource final : public DraftSource {
 public:
  HeadsSource(const Values& values, const DraftSetup& setup)
      : topk_(static_cast<int>(values.integer("topk"))),
        tokenizer_(setup.tokenizer),
        runtime_(setup.runtime),
        heads_(open_draft_file("heads", values, setup), setup.model),
        layers_(setup.model->config().layers),
        chain_(setup.session && setup.session->draft_shape() == Session::DraftShape::kChain) {}

  DraftNeeds needs() const override { return {.hidden_layers = {layers_}}; }

  Draft propose(const DraftContext& context, int nodes) override {
    if (context.hidden.empty()) return {};
    GrowthTask task = growth_task(context, nodes, DraftRule::kMatch);
    task.expand = [&](const Draft& draft, std::span<const int> parents) { return expand(context, draft, parents); };
    Draft draft = chain_ ? grow_chain(task, heads_.count()) : grow_greedy(task, {.depth = heads_.count()});
    return calibration_.apply(std::move(draft), context.tokens.size());
  }

  void observe(const DraftOutcome& outcome) override { calibration_.observe(outcome); }

 private:
  /// Returns the distributions of the children of nodes, with one product of each head for all its nodes.
  std::vector<TokenDistribution> expand(const DraftContext& context, const Draft& draft,
                                        std::span<const int> parents) {
    std::vector<TokenDistribution> distributions(parents.size());
    std::map<int, std::vector<size_t>> by_head;  // indices into `parents`
    for (size_t i = 0; i < parents.size(); ++i) {
      const int head = parents[i] < 0 ? 0 : draft.tree.depth(parents[i]) + 1;
      const bool ends = parents[i] >= 0 && tokenizer_ && tokenizer_->ends_generation(draft.tokens[parents[i]]);
      if (!ends && head < heads_.count()) by_head[head].push_back(i);
    }
    for (const auto& [head, members] : by_head) {
      std::vector<int32_t> paths;
      for (const size_t i : members) {
        paths.push_back(context.tokens.back());
        if (parents[i] < 0) continue;
        for (const int node : draft.tree.path(parents[i])) paths.push_back(draft.tokens[node]);
      }
      const auto read = std::span<const int32_t>(paths).first(heads_.sequential() ? paths.size() : head + 1);
      const std::span<const float> logits = heads_.logits(runtime_->work(), head, context.hidden, read);
      const size_t vocabulary = logits.size() * (head + 1) / read.size();
      for (size_t m = 0; m < members.size(); ++m) {
        const auto row = logits.subspan(heads_.sequential() ? m * vocabulary : 0, vocabulary);
        const auto path = std::span<const int32_t>(paths).subspan(m * (head + 1) + 1, head);
        distributions[members[m]] = children(context, row, path);
      }
    }
    return distributions;
  }

  /// path: the tokens between the pending token and the children.
  TokenDistribution children(const DraftContext& context, std::span<const float> logits,
                             std::span<const int32_t> path) const {
    if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) return {};
    std::vector<int32_t> history;  // of the sampler, which needs it only for penalties and constraints
    if (!context.sampler->plain()) history.assign(context.tokens.begin(), context.tokens.end());
    history.insert(history.end(), path.begin(), path.end());
    return child_distribution(*context.sampler, logits, history, context.position + std::ssize(path),
                              DraftRule::kMatch, topk_);
  }

  int topk_;
  const Tokenizer* tokenizer_;
  std::shared_ptr<Runtime> runtime_;
  DraftHeads heads_;
  int layers_;
  bool chain_;
  DepthCalibration calibration_;
};

}  // namespace

DraftEntry heads_method() {
  return {
      {.name = "heads",
       .summary = "heads on the last hidden state of the model draft a tree, each head one level",
       .paper = "Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding, 2024; Medusa, 2024",
       .exact = true,
       .needs = "a draft file (kind heads) that was trained for the model",
       .time = "up to one product of a head per node, and of the model's output matrix unless heads have their own",
       .memory = "weights of the heads",
       .parameters = {draft_file_parameter(),
                      {.name = "topk",
                       .type = Parameter::Type::kInt,
                       .default_value = "8",
                       .summary = "most children of a node; fewer: deeper drafts",
                       .min = 1,
                       .max = DraftTree::kMaxNodes - 1}}},
      [](const Values& values, const DraftSetup& setup) { return std::make_unique<HeadsSource>(values, setup); }};
}

}  // namespace fathom
