// The evictor that all scorers share: decides when tokens are evicted and how many.
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

/// Returns how many tokens compaction may rewrite for each masked token that it removes. With 8, a page table whose
/// evicted tokens are scattered is compacted when gaps make up an eighth of it; a table that loses tokens at one
/// end is compacted each time. 4-bit keys lose much accuracy with each rounding and are rewritten less often.
constexpr int64_t max_rewritten_per_gap(PageFormat format) { return format == PageFormat::kQ4 ? 2 : 8; }

struct BudgetEvictorState final : SequenceState {
  std::unique_ptr<SequenceState> scorer;  // null for a scorer without state
  int64_t read = 0;                       // tokens of the sequence when the last text ended
  std::vector<ValueNorms> norms;          // [layers] with critical=true, else empty

  std::unique_ptr<SequenceState> fork() const override {
    auto copy = std::make_unique<BudgetEvictorState>();
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
  size_t bytes() const override {
    size_t bytes = scorer ? scorer->bytes() : 0;
    for (const ValueNorms& layer : norms) bytes += layer.bytes();
    return bytes;
  }
  void save(ByteWriter& out, const Sequence& sequence) const override {
    if (scorer) scorer->save(out, sequence);
    out.add(read);
    for (const ValueNorms& layer : norms) layer.save(out);
  }
  void load(ByteReader& in, const Sequence& sequence) override {
    if (scorer) scorer->load(in, sequence);
    read = in.take_int("tokens at the end of the last text", 0, sequence.tokens());
    for (int layer = 0; layer < std::ssize(norms); ++layer) norms[layer].load(in, {sequence, layer, 0});
  }
};

class BudgetEvictor final : public Evictor {
 public:
  BudgetEvictor(const Values& values, const KeepDefaults& defaults, std::unique_ptr<Scorer> scorer)
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
      fail_usage("evict method: expected budget or share, found both: budget=", budget_,
                 " and share=", values.number("share"));
    if (critical_ && !scorer_->accepts_weights()) {
      fail_usage(
          "evict method: critical=true multiplies scores, which must not be negative: use a method such as snapkv "
          "or tova");
    }
    if (budget_ > 0 && budget_ <= rule_.sink + rule_.window) {
      fail_usage("evict method: budget: expected more than sink + window = ", rule_.sink + rule_.window,
                 " tokens, which are always kept, found ", budget_);
    }
  }

  void attach(const AttendContext& context) override {
    context_ = context;
    if (critical_ && !context.output_norms)
      fail_usage(
          "evict method: critical=true needs a model whose attention layers have an output projection; this model "
          "has none");
    scorer_->attach(context);
  }
  std::unique_ptr<SequenceState> new_state() const override {
    auto state = std::make_unique<BudgetEvictorState>();
    state->scorer = scorer_->new_state();
    if (critical_) state->norms.resize(context_.layers);
    return state;
  }
  void listen(const LayerQueries& queries, ThreadPool& pool) const override {
    LayerQueries scorer_queries = queries;
    scorer_queries.state = state_as<BudgetEvictorState>(*queries.state).scorer.get();
    scorer_->listen(scorer_queries, pool);
  }
  bool moves_tokens() const override { return compacted_; }
  bool needs_surprisal() const override { return scorer_->needs_surprisal(); }
  void surprisal(const Surprisal& surprisal, SequenceState* state) const override {
    scorer_->surprisal(surprisal, state_as<BudgetEvictorState>(*state).scorer.get());
  }

  void evict(Sequence& sequence, bool end, const EvictResources& work) const override {
    auto& state = state_as<BudgetEvictorState>(*sequence.state(Sequence::StateOf::kEvictor));
    const bool text = end && sequence.tokens() > state.read + 1;
    if (text) scorer_->end_text(state.scorer.get(), state.read);
    if (end) state.read = sequence.tokens();
    if (budget_ == 0 && !text) return;
    const int64_t tokens = budget_ > 0 ? budget_ : std::llround(share_ * static_cast<double>(sequence.tokens()));
    for (int layer = 0; layer < sequence.layers(); ++layer) {
      PagedKv* kv = sequence.paged(layer);
      if (!kv) continue;
      const int64_t budget = layer_budget(tokens, layer, sequence.layers());
      if (visible_tokens(*kv) > kv->heads() * (budget + (budget_ > 0 ? slack_ : 0)))
        evict_layer(*kv, layer, budget, state, work);
    }
  }

 private:
  /// Returns the budget of a layer. Sink and window are the same in all layers; layer_share() scales the rest. The
  /// budget of the first layer is the largest. If it would exceed the length of the text, the differences between
  /// layers are scaled down.
  int64_t layer_budget(int64_t tokens, int layer, int layers) const {
    const auto rest = static_cast<double>(std::max<int64_t>(0, tokens - rule_.sink - rule_.window));
    const double first_extra = (scorer_->layer_share(0, layers) - 1) * rest;
    const double max_extra = static_cast<double>(tokens) / share_ - static_cast<double>(tokens);
    const double scale = budget_ == 0 && first_extra > max_extra ? max_extra / first_extra : 1;
    return tokens + std::llround((scorer_->layer_share(layer, layers) - 1) * rest * scale);
  }

  /// Returns the number of visible tokens, summed over all heads.
  static int64_t visible_tokens(const PagedKv& kv) {
    int64_t count = 0;
    for (int h = 0; h < kv.heads(); ++h)
      for (const PageEntry& entry : kv.table(h)) count += std::popcount(entry.mask);
    return count;
  }

  void evict_layer(PagedKv& kv, int layer, int64_t budget, BudgetEvictorState& state,
                   const EvictResources& work) const {
    const int64_t tokens = kv.tokens();
    const int kv_heads = kv.heads();
    std::vector<float> scores(kv_heads * tokens);
    scorer_->score({kv, layer, context_.attention[layer].heads, work, state.scorer.get()}, scores);
    for (float& score : scores)  // NaN is evicted first; −∞ is reserved for masked tokens
      score = std::isnan(score) ? std::numeric_limits<float>::lowest()
                                : std::max(score, std::numeric_limits<float>::lowest());
    const auto head_row = [&](auto& all, int h) { return std::span(all).subspan(h * tokens, tokens); };
    for (int h = 0; h < kv_heads; ++h) {
      mask_scores(kv.table(h), 0, head_row(scores, h));
      to_read_order(kv.compacted(h), head_row(scores, h));
    }
    std::vector<char> keep = critical_ ? choose_critical(kv, layer, budget, scores, state.norms[layer], work.pool)
                                       : keep_best(scores, kv_heads, budget, rule_);
    for (int h = 0; h < kv_heads; ++h) {
      to_stored_order(kv.compacted(h), head_row(keep, h));
      kv.evict(h, head_row(keep, h));
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

  /// Compacts the page tables with at least a page of gaps, if few tokens must be rewritten for each gap.
  static void compact(PagedKv& kv, const EvictResources& work) {
    work.pool.parallel_for(kv.heads(), [&](size_t head, int) {
      const int h = static_cast<int>(head);
      const TableGaps gaps = gaps_of(kv.table(h));
      if (gaps.masked >= kPageTokens && gaps.rewritten <= max_rewritten_per_gap(kv.shape().format) * gaps.masked)
        kv.compact(work.kernels, h);
    });
  }

  std::unique_ptr<Scorer> scorer_;
  int64_t slack_;
  bool compacted_, critical_;
  int64_t budget_ = 0;  // tokens; 0: use share_
  double share_ = 0.25;
  KeepRule rule_;
  AttendContext context_;
};

}  // namespace

std::vector<Parameter> keep_parameters(const KeepDefaults& defaults) {
  using Type = Parameter::Type;
  const std::string default_share = defaults.budget > 0 ? "" : "; default 0.25 unless budget is given";
  const std::string default_budget =
      defaults.budget > 0 ? "; default " + std::to_string(defaults.budget) + " unless share is given" : "";
  return {
      budget_parameter({.value = "",
                        .min = 1,
                        .summary = "tokens each head keeps at any time, while reading and generating; more keeps "
                                   "more of the text" +
                                   default_budget}),
      {"share",
       Type::kFloat,
       "",
       "instead of budget: share of the tokens each head keeps; evicts after each text" + default_share,
       0.0001,
       1,
       {}},
      sink_parameter({.value = std::to_string(defaults.sink),
                      .summary =
                          "first tokens, always kept; models rely on a few of them, more only takes from the "
                          "budget"}),
      window_parameter({.value = std::to_string(defaults.window),
                        .summary = "newest tokens, always kept; more favours recent text over high scores",
                        .old_names = {"recent"}}),
      {"slack",
       Type::kInt,
       "64",
       "tokens above the budget before tokens are evicted; more evicts less often and uses more memory",
       0,
       1e12,
       {}},
      block_parameter({.value = "1",
                       .min = 1,
                       .max = 64,
                       .summary = "neighbours kept or evicted together, by their mean score; larger keeps whole "
                                  "phrases (ChunkKV: 20)",
                       .old_names = {"chunk"}}),
      {"heads",
       Type::kChoice,
       "even",
       "even: every head keeps the same number; ada: the heads of a layer share one budget, by score (AdaKV)",
       {},
       {},
       {"even", "ada"}},
      positions_parameter("original", {"original", "compacted"},
                          "original: kept tokens stay at their positions; compacted: they move together, freeing "
                          "whole pages and keeping distances within the budget"),
      {"critical",
       Type::kChoice,
       "false",
       "true: half the budget by score, the rest by (score + 1e-4) times the value's output norm (CriticalKV)",
       {},
       {},
       {"false", "true"}}};
}

std::unique_ptr<Evictor> make_budget_evictor(const Values& values, const KeepDefaults& defaults,
                                             std::unique_ptr<Scorer> scorer) {
  return std::make_unique<BudgetEvictor>(values, defaults, std::move(scorer));
}

}  // namespace fathom
