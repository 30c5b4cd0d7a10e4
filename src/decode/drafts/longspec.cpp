// Drafts of a trained layer that attends to a window of its own and to the keys and values of the model's last
// layer.
#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "base/error.h"
#include "decode/draft.h"
#include "decode/drafts/acceptance.h"
#include "decode/drafts/draft_model.h"
#include "decode/drafts/grow.h"
#include "decode/drafts/long_drafter.h"

namespace fathom {
namespace {

constexpr int kWidths[] = {4, 16, 16, 16, 16};  // of the beam, as in the paper

class LongspecSource final : public DraftSource {
 public:
  LongspecSource(const Values& values, const DraftSetup& setup)
      : session_(expect_session(setup)),
        tokenizer_(setup.tokenizer),
        drafter_(open_draft_file("longspec", values, setup), session_) {
    const int64_t depth = values.integer("depth"), width = values.integer("width");
    for (int64_t level = 0; level < depth; ++level)
      widths_.push_back(static_cast<int>(std::min<int64_t>(kWidths[level], width)));
  }

  Draft propose(const DraftContext& context, int nodes) override {
    if (session_.length() == 0 || session_.length() + 1 != std::ssize(context.tokens)) return {};
    try {
      return draft(context, nodes);
    } catch (const std::bad_alloc&) {
      return {};
    }
  }

  void observe(const DraftOutcome& outcome) override { calibration_.observe(outcome); }

 private:
  static Session& expect_session(const DraftSetup& setup) {
    if (!setup.session)
      fail_usage("--draft longspec: expected a session of the model that is to be continued, found none");
    return *setup.session;
  }

  Draft draft(const DraftContext& context, int nodes) {
    drafter_.begin(context.tokens.first(context.tokens.size() - 1), context.tokens.back());
    GrowthTask task = growth_task(context, nodes, DraftRule::kMatch);
    std::vector<int32_t> text(context.tokens.begin(), context.tokens.end());
    task.expand = [&](const Draft& draft, std::span<const int> parents) {
      const std::span<const float> logits = drafter_.logits(draft, parents);
      const size_t vocabulary = logits.size() / parents.size();
      std::vector<TokenDistribution> distributions(parents.size());
      for (size_t i = 0; i < parents.size(); ++i) {
        const auto row = logits.subspan(i * vocabulary, vocabulary);
        distributions[i] = children(context, draft, parents[i], row, text);
      }
      return distributions;
    };
    const bool chain = session_.draft_shape() == Session::DraftShape::kChain;
    Draft draft = chain ? grow_chain(task, static_cast<int>(widths_.size())) : grow_beam(task, widths_);
    return calibration_.apply(std::move(draft), context.tokens.size());
  }

  /// text: the tokens of the context, to which the path to the node is appended while the sampler reads it.
  TokenDistribution children(const DraftContext& context, const Draft& draft, int node,
                             std::span<const float> logits, std::vector<int32_t>& text) const {
    if (node >= 0 && tokenizer_ && tokenizer_->ends_generation(draft.tokens[node])) return {};
    if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) return {};
    if (node >= 0)
      for (const int step : draft.tree.path(node)) text.push_back(draft.tokens[step]);
    const int64_t position = context.position + (node < 0 ? 0 : draft.tree.depth(node) + 1);
    TokenDistribution distribution =
        child_distribution(*context.sampler, logits, text, position, DraftRule::kMatch, std::ranges::max(widths_));
    text.resize(context.tokens.size());
    return distribution;
  }

  Session& session_;
  const Tokenizer* tokenizer_;
  LongDrafter drafter_;
  std::vector<int> widths_;
  DepthCalibration calibration_;
};

}  // namespace

DraftEntry longspec_method() {
  using Type = Parameter::Type;
  return {
      {.name = "longspec",
       .summary = "a trained layer with a window of its own reads the keys and values of the model's last layer, "
                  "and drafts by beam search",
       .paper = "LongSpec: Long-Context Speculative Decoding with Efficient Drafting and Verification, 2025",
       .exact = true,
       .needs = "a draft file (kind longspec) that was trained for the model; a model with attention",
       .time = "one pass of the layer per level of the draft, which reads the keys of one layer of the model",
       .memory = "weights of the layer and the keys and values of its window, whatever the length of the text",
       .parameters = {draft_file_parameter(),
                      {.name = "width",
                       .type = Type::kInt,
                       .default_value = "16",
                       .summary = "most sequences of a level; the first level has at most 4",
                       .min = 1,
                       .max = 16},
                      {.name = "depth",
                       .type = Type::kInt,
                       .default_value = "5",
                       .summary = "levels; more pays off if most tokens are accepted",
                       .min = 1,
                       .max = static_cast<double>(std::size(kWidths))}}},
      [](const Values& values, const DraftSetup& setup) {
        return std::make_unique<LongspecSource>(values, setup);
      }};
}

}  // namespace fathom
