// InfLLM whose blocks are events. An event begins at a token of high surprisal.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "attend/best_split.h"
#include "attend/block_memory.h"
#include "attend/methods.h"
#include "base/aligned.h"
#include "base/common_parameters.h"

namespace fathom {
namespace {

/// Sums of the surprisal of all earlier tokens with known surprisal.
struct SurprisalSums {
  double sum = 0, squares = 0;
  int64_t count = 0;
};

/// An event of the text. It begins at the end of the event before it.
struct SurprisalEvent {
  int64_t end;     // sequence index after its last token
  int64_t border;  // the value of `end` before refinement
};

/// A rewind does not restore the earlier list of visible neighbours.
struct EventState final : BlockState {
  EventState(std::vector<int> heads, const BlockOptions& options)
      : BlockState(std::move(heads), options), sums(1), neighbours(layers.size()) {}
  std::unique_ptr<SequenceState> fork() const override { return std::make_unique<EventState>(*this); }
  void rewind(int64_t tokens) override {
    BlockState::rewind(tokens);
    if (std::ssize(nats) > tokens) {
      nats.resize(tokens);
      sums.resize(tokens + 1);
    }
    while (!events.empty() && events.back().end + window > tokens) events.pop_back();
    for (size_t l = 0; l < layers.size(); ++l)
      std::erase_if(neighbours[l], [&](uint32_t event) { return event >= layers[l].blocks.size(); });
  }

  /// Adds the surprisal of the next token.
  void add(float surprisal) {
    SurprisalSums next = sums.back();
    if (!std::isnan(surprisal)) {
      next.sum += surprisal;
      next.squares += static_cast<double>(surprisal) * surprisal;
      ++next.count;
    }
    nats.push_back(surprisal);
    sums.push_back(next);
  }
  void save(ByteWriter& out, const Sequence& sequence) const override;
  void load(ByteReader& in, const Sequence& sequence) override;

  std::vector<float> nats;                        // [tokens] surprisal; NaN: not known
  std::vector<SurprisalSums> sums;                // [tokens + 1] over the tokens before each index
  std::vector<SurprisalEvent> events;             // complete events from the sink on, shared by all layers
  std::vector<std::vector<uint32_t>> neighbours;  // [layers] visible neighbours of selected events, newest first
};

void EventState::save(ByteWriter& out, const Sequence& sequence) const {
  BlockState::save(out, sequence);
  out.add_list(nats);
  out.add_list(events);
  for (const std::vector<uint32_t>& of_layer : neighbours) out.add_list(of_layer);
}

void EventState::load(ByteReader& in, const Sequence& sequence) {
  BlockState::load(in, sequence);
  for (const float surprisal : in.take_list_up_to<float>(sequence.tokens())) add(surprisal);
  events = in.take_list_up_to<SurprisalEvent>(sequence.tokens());
  int64_t begin = sink;
  for (const SurprisalEvent& event : events) {
    in.check(event.end > begin && event.border >= event.end && event.border <= sequence.tokens(),
             "expected ascending ends of events, each at or before its border, found ", event.end, " after ", begin,
             " with border ", event.border);
    begin = event.end;
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    neighbours[i] = in.take_list<uint32_t>();
    for (const uint32_t event : neighbours[i])
      in.check(event < layers[i].blocks.size(), "expected neighbours below ", layers[i].blocks.size(), ", found ",
               event);
  }
}

class EmLlm final : public BlockSelectorWith<EventState> {
 public:
  explicit EmLlm(const Values& values)
      : BlockSelectorWith(read_block_options(values)),
        budget_(values.integer("budget")),
        gamma_(values.number("gamma")),
        min_(values.integer("min")),
        max_(values.integer("max")),
        contiguity_(values.number("contiguity")) {
    if (max_ < 2 * min_)
      fail_usage("attend method em-llm: expected max of at least 2 * min, found min=", min_, " and max=", max_);
    if (options().window < 2 * max_) {
      fail_usage("attend method em-llm: expected a window of at least 2 * max, found window=", options().window,
                 " and max=", max_);
    }
    const std::string& refine = values.string("refine");
    if (refine == "modularity") measure_ = SplitMeasure::kModularity;
    if (refine == "conductance") measure_ = SplitMeasure::kConductance;
  }

  bool needs_surprisal() const override { return true; }

 protected:
  void surprisal(const Surprisal& surprisal, EventState& known) const override {
    // The surprisal of tokens that were read before the method was enabled, or whose surprisal a rewind removed, is
    // not known.
    while (std::ssize(known.nats) < surprisal.first) known.add(std::numeric_limits<float>::quiet_NaN());
    for (const float nats : surprisal.nats) known.add(nats);
  }

  int64_t block_end(int64_t begin, int64_t limit, const LayerQueries& queries, EventState& state,
                    ThreadPool& pool) const override {
    const auto after = std::ranges::upper_bound(state.events, begin, {}, &SurprisalEvent::end);
    if (after != state.events.end()) return after->end;
    // An event is added once all tokens that determine its end precede these rows. The window is at least twice the
    // largest event, so this delays no event unless a forward pass has more than half a window of rows.
    if (begin + max_ + max_ / 2 > queries.first || begin + min_ > limit) return 0;
    state.events.push_back(next_event(begin, state, queries, pool));
    return state.events.back().end;
  }

  std::vector<uint32_t> select_blocks(const QueryChunk& chunk, int64_t unblocked, EventState& state,
                                      ThreadPool& pool) const override {
    const LayerBlocks& layer = state.layers[chunk.layer.layer];
    const int64_t shared = std::max<int64_t>(0, budget_ - unblocked);
    const auto kept = static_cast<int64_t>(std::llround(contiguity_ * static_cast<double>(shared)));
    if (layer.blocks.back().end - layer.blocks.front().begin <= shared - kept)
      return best_blocks(std::vector<float>(layer.blocks.size()), std::ssize(layer.blocks));
    const std::vector<float> scores = block_scores(layer, mean_far_query(chunk, pool), pool);
    std::vector<uint32_t> selected = fill(layer, best_blocks(scores, (shared - kept) / min_ + 1), shared - kept);
    if (kept == 0) return selected;
    std::vector<uint32_t>& buffer = state.neighbours[chunk.layer.layer];
    buffer = fill(layer, neighbours_of(selected, buffer, layer.blocks.size()), kept);
    selected.insert(selected.end(), buffer.begin(), buffer.end());
    return selected;
  }

 private:
  static int64_t size(const MemoryBlock& block) { return block.end - block.begin; }

  /// Returns the prefix of `blocks` whose total number of tokens is nearest to `budget`.
  static std::vector<uint32_t> fill(const LayerBlocks& layer, std::vector<uint32_t> blocks, int64_t budget) {
    int64_t tokens = 0;
    for (size_t i = 0; i < blocks.size(); ++i) {
      const int64_t with = tokens + size(layer.blocks[blocks[i]]);
      if (with >= budget) {
        blocks.resize(budget - tokens <= with - budget ? i : i + 1);
        break;
      }
      tokens = with;
    }
    return blocks;
  }

  /// Returns the neighbours of the selected blocks, those of the best block first, followed by the earlier
  /// neighbours.
  static std::vector<uint32_t> neighbours_of(const std::vector<uint32_t>& selected,
                                             const std::vector<uint32_t>& before, size_t blocks) {
    std::vector<char> taken(blocks, 0);
    for (const uint32_t b : selected) taken[b] = 1;
    std::vector<uint32_t> neighbours;
    const auto add = [&](uint32_t b) {
      if (b >= blocks || taken[b]) return;
      taken[b] = 1;
      neighbours.push_back(b);
    };
    for (const uint32_t b : selected) {
      add(b + 1);
      add(b - 1);  // before block 0 this wraps around and is ignored
    }
    for (const uint32_t b : before) add(b);
    return neighbours;
  }

  /// Returns whether the surprisal of a token exceeds μ + γσ of the tokens in the window before it. σ² is the
  /// unbiased estimate, with divisor count − 1.
  bool is_surprising(int64_t token, const EventState& state) const {
    if (token >= std::ssize(state.nats) || std::isnan(state.nats[token])) return false;
    const SurprisalSums& from = state.sums[std::max<int64_t>(0, token - options().window)];
    const SurprisalSums& to = state.sums[token];
    const int64_t count = to.count - from.count;
    if (count < min_) return false;
    const double mean = (to.sum - from.sum) / static_cast<double>(count);
    const double variance =
        ((to.squares - from.squares) - static_cast<double>(count) * mean * mean) / static_cast<double>(count - 1);
    return state.nats[token] > mean + gamma_ * std::sqrt(std::max(variance, 0.0));
  }

  /// Returns the event that begins at `begin`. It ends before the next surprising token, after at least `min` and
  /// at most `max` tokens. Without known surprisal it has `max` tokens.
  SurprisalEvent next_event(int64_t begin, const EventState& state, const LayerQueries& queries,
                            ThreadPool& pool) const {
    const int64_t cut = begin + max_;
    int64_t border = begin + min_;
    if (!state.events.empty()) border = std::max(border, state.events.back().border + 1);
    while (border < cut && !is_surprising(border, state)) ++border;
    if (border >= cut) return {cut, cut};
    return {measure_ ? refine(begin, border, queries, pool) : border, border};
  }

  /// Moves a border back to the best split of the keys of the event and of half its length on both sides. The event
  /// keeps at least `min` tokens.
  int64_t refine(int64_t begin, int64_t border, const LayerQueries& queries, ThreadPool& pool) const {
    const int64_t half = (border - begin) / 2;
    const TokenRange span{std::max<int64_t>(0, begin - half), border + half};
    const int64_t n = span.end - span.begin;
    const std::vector<float> similarity = key_similarity(span, queries, pool);
    return span.begin + best_split(similarity, n, begin + min_ - span.begin, border + 1 - span.begin, *measure_);
  }

  /// Returns [tokens, tokens]: the products of the unrotated keys of the last 3/8 of the layers, summed over layers
  /// and heads.
  std::vector<float> key_similarity(const TokenRange& tokens, const LayerQueries& queries, ThreadPool& pool) const {
    constexpr int64_t kRowsOfPart = 32;
    const int64_t n = tokens.end - tokens.begin;
    const int kv_heads = queries.kv->heads(), layers = context().layers;
    const int64_t dim = queries.kv->shape().key_dim, width = kv_heads * dim;
    std::vector<float> keys(n * width), similarity(n * n);
    for (int layer = layers * 5 / 8; layer < std::min(layers, queries.sequence->layers()); ++layer) {
      const PagedKv* kv = queries.sequence->paged(layer);
      if (!kv || kv->heads() != kv_heads || kv->shape().key_dim != dim)
        continue;  // a layer of another kind or shape
      pool.parallel_for(kv_heads, [&](size_t head, int) {
        UnrotatedKeys raw;
        read_unrotated_keys(*kv, static_cast<int>(head), tokens, raw);
        for (int64_t t = 0; t < n; ++t)
          std::copy_n(raw.keys.data() + t * dim, dim, keys.data() + t * width + static_cast<int64_t>(head) * dim);
      });
      pool.parallel_for((n + kRowsOfPart - 1) / kRowsOfPart, [&](size_t part, int) {
        const int64_t row = static_cast<int64_t>(part) * kRowsOfPart;
        AlignedBuffer<float> scratch(kMultiplyScratch);
        queries.kernels->multiply({.rows = std::min(kRowsOfPart, n - row),
                                   .cols = n,
                                   .depth = width,
                                   .a = keys.data() + row * width,
                                   .a_stride = width,
                                   .b = keys.data(),
                                   .b_stride = width,
                                   .b_transposed = true,
                                   .y = similarity.data() + row * n,
                                   .y_stride = n,
                                   .add = true},
                                  scratch.data());
      });
    }
    return similarity;
  }

  int64_t budget_;
  double gamma_;
  int64_t min_, max_;
  double contiguity_;
  std::optional<SplitMeasure> measure_;
};

}  // namespace

SelectorEntry em_llm_method() {
  using Type = Parameter::Type;
  std::vector<Parameter> parameters =
      block_parameters({.sink = 128, .window = 4096, .chunk = 512, .representatives = 4});
  parameters.insert(
      parameters.end(),
      {budget_parameter({.value = "2048",
                         .min = 1,
                         .summary = "tokens of events visible to a query, unfinished events included; more is "
                                    "closer to dense attention and slower"}),
       {"gamma",
        Type::kFloat,
        "1",
        "an event starts where surprisal exceeds mean + gamma standard deviations; more gives longer events",
        -1e9,
        1e9,
        {}},
       {"min", Type::kInt, "8", "minimum tokens of an event; more gives fewer, longer events", 2, 1e9, {}},
       {"max",
        Type::kInt,
        "128",
        "maximum tokens of an event, at least twice min; more gives fewer, longer events",
        4,
        1e9,
        {}},
       {"refine",
        Type::kChoice,
        "none",
        "none, or the measure that moves event borders to where the keys differ most (slower)",
        {},
        {},
        {"none", "modularity", "conductance"}},
       {"contiguity",
        Type::kFloat,
        "0",
        "share of the budget for the neighbours of selected events; more keeps more of their surroundings",
        0,
        0.9,
        {}}});
  return {{.name = "em-llm",
           .summary = "infllm with blocks that begin where the text is surprising, so that a block is one event",
           .paper = "Human-inspired Episodic Memory for Infinite Context LLMs, 2024",
           .needs = "any model",
           .time = "O(sink + budget + window + n / event) per token; logits of all tokens",
           .memory = "O(n): nothing is evicted; a vector of all query heads for each event and for each 64 tokens "
                     "of the last two windows",
           .parameters = std::move(parameters),
           .capabilities = {.needs_host_pages = true, .reads_surprisal = true}},
          [](const Values& values) { return std::make_unique<EmLlm>(values); }};
}

}  // namespace fathom
