// When tokens are dropped, and how many: the same for all scorers.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "attend/key_scores.h"
#include "attend/state_as.h"
#include "base/common_parameters.h"
#include "evict/token_scoring.h"
#include "evict/value_norms.h"

namespace fathom {
namespace {

/// Tokens that packing may write anew for each one that it gains: where tokens go one by one from everywhere, a
/// table is compacted when the gaps are an eighth of it; where they go from one end, each time. Keys of 4 bits lose
/// much with each rounding, and are moved less often.
constexpr int64_t most_rewritten(PageFormat format) { return format == PageFormat::kQ4 ? 2 : 8; }

struct KeepState final : SequenceState {
  std::unique_ptr<SequenceState> scorer;  // null: it keeps none
  int64_t read = 0;                       // tokens there were when the last text ended
  std::vector<ValueNorms> norms;          // [layers] for critical=true

  std::unique_ptr<SequenceState> fork() const override {
    auto copy = std::make_unique<KeepState>();
    if (scorer) copy->scorer = scorer->fork();
    copy->read = read;
    copy->norms = norms;
    return copy;
  }
  void rewind(int64_t tokens) override {
    if (scorer) scorer->rewind(tokens);
    read = std::min(read, tokens);
    for (ValueNorms& layer : norms) layer.rewind(tokens);
  }
};

class Keeping final : public Evictor {
 public:
  Keeping(const Values& values, const KeepDefaults& defaults, std::unique_ptr<Scorer> scorer)
      : scorer_(std::move(scorer)),
        slack_(values.integer("slack")),
        compacted_(values.string("positions") == "compacted"),
        critical_(values.string("critical") == "true") {
    if (values.has("budget")) {
      budget_ = values.integer("budget");
    } else if (values.has("share")) {
      share_ = values.number("share");
    } else {
      budget_ = defaults.budget;
    }
    rule_.sink = values.integer("sink");
    rule_.window = values.integer("window");
    rule_.block = values.integer("block");
    rule_.by_layer = values.string("heads") == "ada";
    if (values.has("budget") && values.has("share"))
      fail_usage("evict method: expected a budget or a share, found both: ", budget_, " and ",
                 values.number("share"));
    if (critical_ && !scorer_->has_weights()) {
      fail_usage(
          "evict method: critical=true: expected a method whose scores are never negative, such as snapkv or tova: "
          "they are multiplied");
    }
    if (budget_ > 0 && budget_ <= rule_.sink + rule_.window) {
      fail_usage("evict method: expected a budget of more than sink + window = ", rule_.sink + rule_.window,
                 " tokens, which always stay, found ", budget_);
    }
  }

  void attach(const AttendContext& context) override {
    context_ = context;
    if (critical_ && !context.output_norms)
      fail_usage(
          "evict method: critical=true: this model has no output projection of its heads to judge values by");
    scorer_->attach(context);
  }
  std::unique_ptr<SequenceState> new_state() const override {
    auto state = std::make_unique<KeepState>();
    state->scorer = scorer_->new_state();
    if (critical_) state->norms.resize(context_.layers);
    return state;
  }
  void listen(const LayerQueries& queries, ThreadPool& pool) const override {
    LayerQueries own = queries;
    own.state = state_as<KeepState>(*queries.state).scorer.get();
    scorer_->listen(own, pool);
  }
  bool moves_tokens() const override { return compacted_; }
  bool needs_surprisal() const override { return scorer_->needs_surprisal(); }
  void surprisal(const Surprisal& surprisal, SequenceState* state) const override {
    scorer_->surprisal(surprisal, state_as<KeepState>(*state).scorer.get());
  }

  void evict(Sequence& sequence, bool end, const EvictResources& work) const override {
    auto& state = state_as<KeepState>(*sequence.state(Sequence::StateOf::kEvictor));
    const bool text = end && sequence.tokens() > state.read + 1;
    if (text) scorer_->end_text(state.scorer.get(), state.read);
    if (end) state.read = sequence.tokens();
    if (budget_ == 0 && !text) return;
    const int64_t tokens = budget_ > 0 ? budget_ : std::llround(share_ * static_cast<double>(sequence.tokens()));
    for (int layer = 0; layer < sequence.layers(); ++layer) {
      PagedKv* kv = sequence.paged(layer);
      if (!kv) continue;
      const int64_t budget = layer_budget(tokens, layer, sequence.layers());
      if (visible(*kv) > kv->heads() * (budget + (budget_ > 0 ? slack_ : 0))) cut(*kv, layer, budget, state, work);
    }
  }

 private:
  /// What is always kept is the same in all layers; they differ in the rest. Of a text no layer can keep more than
  /// it has: where the first one would, all layers' shares differ the less.
  int64_t layer_budget(int64_t tokens, int layer, int layers) const {
    const auto rest = static_cast<double>(std::max<int64_t>(0, tokens - rule_.sink - rule_.window));
    const double most = (scorer_->layer_share(0, layers) - 1) * rest;
    const double left = static_cast<double>(tokens) / share_ - static_cast<double>(tokens);
    const double flatter = budget_ == 0 && most > left ? left / most : 1;
    return tokens + std::llround((scorer_->layer_share(layer, layers) - 1) * rest * flatter);
  }

  /// Of all heads together.
  static int64_t visible(const PagedKv& kv) {
    int64_t count = 0;
    for (int h = 0; h < kv.heads(); ++h)
      for (const PageEntry& entry : kv.table(h)) count += std::popcount(entry.mask);
    return count;
  }

  void cut(PagedKv& kv, int layer, int64_t budget, KeepState& state, const EvictResources& work) const {
    const int64_t tokens = kv.tokens();
    const int kv_heads = kv.heads();
    std::vector<float> scores(kv_heads * tokens);
    scorer_->score({kv, layer, context_.attention[layer].heads, work, state.scorer.get()}, scores);
    for (float& score : scores)  // what is not a number goes first; −∞ is left to what is not there
      score = std::isnan(score) ? std::numeric_limits<float>::lowest()
                                : std::max(score, std::numeric_limits<float>::lowest());
    const auto of_head = [&](auto& all, int h) { return std::span(all).subspan(h * tokens, tokens); };
    for (int h = 0; h < kv_heads; ++h) {
      mask_scores(kv.table(h), 0, of_head(scores, h));
      order_as_read(kv.compacted(h), of_head(scores, h));
    }
    std::vector<char> keep = critical_ ? choose_critical(kv, layer, budget, scores, state.norms[layer], work.pool)
                                       : keep_best(scores, kv_heads, budget, rule_);
    for (int h = 0; h < kv_heads; ++h) {
      order_as_stored(kv.compacted(h), of_head(keep, h));
      kv.evict(h, of_head(keep, h));
    }
    if (compacted_) compact(kv, work);
  }

  std::vector<char> choose_critical(const PagedKv& kv, int layer, int64_t budget, std::span<float> scores,
                                    ValueNorms& norms, ThreadPool& pool) const {
    norms.add(kv, layer, context_.output_norms, pool);
    const int64_t tokens = kv.tokens();
    std::vector<float> weights(scores.size());
    for (size_t i = 0; i < weights.size(); ++i)
      weights[i] = norms.of(static_cast<int>(i / tokens), static_cast<int64_t>(i % tokens));
    return keep_critical(scores, weights, kv.heads(), budget, rule_);
  }

  /// Once a page's worth is to be gained, and writing anew costs little beside it.
  static void compact(PagedKv& kv, const EvictResources& work) {
    work.pool.parallel_for(kv.heads(), [&](size_t head, int) {
      const int h = static_cast<int>(head);
      const TableGaps gaps = gaps_of(kv.table(h));
      if (gaps.masked >= kPageTokens && gaps.rewritten <= most_rewritten(kv.shape().format) * gaps.masked)
        kv.compact(work.kernels, h);
    });
  }

  std::unique_ptr<Scorer> scorer_;
  int64_t slack_;
  bool compacted_, critical_;
  int64_t budget_ = 0;  // 0: a share
  double share_ = 0.25;
  KeepRule rule_;
  AttendContext context_;
};

}  // namespace

std::vector<Parameter> keep_parameters(const KeepDefaults& defaults) {
  using Type = Parameter::Type;
  const std::string otherwise = defaults.budget > 0
                                    ? "; budget=" + std::to_string(defaults.budget) + " if neither is given"
                                    : "; 0.25 if neither is given";
  return {
      budget_parameter(
          {.value = "", .min = 1, .summary = "tokens that a head keeps, while it reads and generates"}),
      {"share",
       Type::kFloat,
       "",
       "instead: share of all tokens read that a head keeps, cut once a text has been read" + otherwise,
       0.0001,
       1,
       {}},
      sink_parameter({.value = std::to_string(defaults.sink), .summary = "first tokens, always kept"}),
      window_parameter({.value = std::to_string(defaults.window),
                        .summary = "newest tokens, always kept",
                        .old_names = {"recent"}}),
      {"slack", Type::kInt, "64", "tokens above the budget before it is cut back to it", 0, 1e12, {}},
      block_parameter({.value = "1",
                       .min = 1,
                       .max = 64,
                       .summary = "neighbours that are kept or evicted together, by their mean score (ChunkKV: 20)",
                       .old_names = {"chunk"}}),
      {"heads",
       Type::kChoice,
       "even",
       "even: each head keeps as many; ada: what scores highest in all heads of a layer (AdaKV)",
       {},
       {},
       {"even", "ada"}},
      positions_parameter(
          "original", {"original", "compacted"},
          "positions of kept tokens: original, or compacted, so that distances stay within the budget "
          "and pages are full again"),
      {"critical",
       Type::kChoice,
       "false",
       "true: half the budget by the scores, the rest by scores + 1e-4 times the norm of what a value gives to the "
       "model (CriticalKV)",
       {},
       {},
       {"false", "true"}}};
}

std::unique_ptr<Evictor> make_keeping(const Values& values, const KeepDefaults& defaults,
                                      std::unique_ptr<Scorer> scorer) {
  return std::make_unique<Keeping>(values, defaults, std::move(scorer));
}

}  // namespace fathom
