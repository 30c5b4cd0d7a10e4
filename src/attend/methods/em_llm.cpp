// InfLLM whose blocks are events: an event begins at a token of high surprisal.
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

/// Over all earlier tokens whose surprisal is known.
struct SurprisalSums {
  double sum = 0, squares = 0;
  int64_t count = 0;
};

struct Event {
  int64_t end;     // its first token is the end of the one before
  int64_t border;  // the same before it was refined
};

/// The neighbours that a layer keeps in sight are not brought back by a rewind.
struct EventState final : BlockState {
  EventState(int layer_count, int64_t window_size)
      : BlockState(layer_count, window_size), sums(1), neighbours(layer_count) {}
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

  std::vector<float> nats;                        // of each token; NaN: not known
  std::vector<SurprisalSums> sums;                // [nats + 1]
  std::vector<Event> events;                      // all that have ended, from the sinks on; layers share them
  std::vector<std::vector<uint32_t>> neighbours;  // [layers] events kept in sight, newest first
};

/// Where a new event may begin, and how it is moved to where its surroundings part best.
class EmLlm final : public BlockSelectorWith<EventState> {
 public:
  explicit EmLlm(const Values& values)
      : BlockSelectorWith(read_block_options(values)),
        budget_(values.integer("budget")),
        gamma_(values.number("gamma")),
        least_(values.integer("min")),
        most_(values.integer("max")),
        contiguity_(values.number("contiguity")) {
    if (most_ < 2 * least_)
      fail_usage("attend method em-llm: expected max of at least 2 * min, found min=", least_, " and max=", most_);
    if (options().window < 2 * most_) {
      fail_usage("attend method em-llm: expected a window of at least 2 * max, found window=", options().window,
                 " and max=", most_);
    }
    const std::string& refine = values.string("refine");
    if (refine == "modularity") measure_ = SplitMeasure::kModularity;
    if (refine == "conductance") measure_ = SplitMeasure::kConductance;
  }

  bool needs_surprisal() const override { return true; }

 protected:
  void surprisal(const Surprisal& surprisal, EventState& known) const override {
    const auto add = [&](float nats) {
      SurprisalSums sums = known.sums.back();
      if (!std::isnan(nats)) {
        sums.sum += nats;
        sums.squares += static_cast<double>(nats) * nats;
        ++sums.count;
      }
      known.nats.push_back(nats);
      known.sums.push_back(sums);
    };
    // tokens before this method came, or after a rewind
    while (std::ssize(known.nats) < surprisal.first) add(std::numeric_limits<float>::quiet_NaN());
    for (const float nats : surprisal.nats) add(nats);
  }

  int64_t block_end(int64_t begin, int64_t limit, const LayerQueries& queries, EventState& state,
                    ThreadPool& pool) const override {
    const auto after = std::ranges::upper_bound(state.events, begin, {}, &Event::end);
    if (after != state.events.end()) return after->end;
    // The window is at least twice the largest event: what decides about this one has been read before these rows,
    // unless a forward pass has more than half a window of rows.
    if (begin + most_ + most_ / 2 > queries.first || begin + least_ > limit) return 0;
    state.events.push_back(next_event(begin, state, queries, pool));
    return state.events.back().end;
  }

  std::vector<uint32_t> choose(const QueryChunk& chunk, int64_t remainder, EventState& state,
                               ThreadPool& pool) const override {
    const LayerBlocks& layer = state.layers[chunk.layer.layer];
    const int64_t shared = std::max<int64_t>(0, budget_ - remainder);
    const auto kept = static_cast<int64_t>(std::llround(contiguity_ * static_cast<double>(shared)));
    if (layer.blocks.back().end - layer.blocks.front().begin <= shared - kept)
      return best_blocks(std::vector<float>(layer.blocks.size()), std::ssize(layer.blocks));
    const std::vector<float> scores = block_scores(layer, mean_far_query(chunk, pool), pool);
    std::vector<uint32_t> chosen = fill(layer, best_blocks(scores, (shared - kept) / least_ + 1), shared - kept);
    if (kept == 0) return chosen;
    std::vector<uint32_t>& buffer = state.neighbours[chunk.layer.layer];
    buffer = fill(layer, neighbours_of(chosen, buffer, layer.blocks.size()), kept);
    chosen.insert(chosen.end(), buffer.begin(), buffer.end());
    return chosen;
  }

 private:
  static int64_t size(const MemoryBlock& block) { return block.end - block.begin; }

  /// The first of `blocks` until they hold `budget` tokens, as near to it as whole blocks come.
  static std::vector<uint32_t> fill(const LayerBlocks& layer, std::vector<uint32_t> blocks, int64_t budget) {
    int64_t held = 0;
    for (size_t i = 0; i < blocks.size(); ++i) {
      const int64_t with = held + size(layer.blocks[blocks[i]]);
      if (with >= budget) {
        blocks.resize(budget - held <= with - budget ? i : i + 1);
        break;
      }
      held = with;
    }
    return blocks;
  }

  /// The blocks beside the chosen ones, those of the best first, then what was there before.
  static std::vector<uint32_t> neighbours_of(const std::vector<uint32_t>& chosen,
                                             const std::vector<uint32_t>& before, size_t blocks) {
    std::vector<char> taken(blocks, 0);
    for (const uint32_t b : chosen) taken[b] = 1;
    std::vector<uint32_t> neighbours;
    const auto add = [&](uint32_t b) {
      if (b >= blocks || taken[b]) return;
      taken[b] = 1;
      neighbours.push_back(b);
    };
    for (const uint32_t b : chosen) {
      add(b + 1);
      add(b - 1);  // wraps around before the first
    }
    for (const uint32_t b : before) add(b);
    return neighbours;
  }

  /// Whether −ln p of a token exceeds μ + γσ of the tokens in the window before it; σ² is over count − 1.
  bool is_surprising(int64_t token, const EventState& state) const {
    if (token >= std::ssize(state.nats) || std::isnan(state.nats[token])) return false;
    const SurprisalSums& from = state.sums[std::max<int64_t>(0, token - options().window)];
    const SurprisalSums& to = state.sums[token];
    const int64_t count = to.count - from.count;
    if (count < least_) return false;
    const double mean = (to.sum - from.sum) / static_cast<double>(count);
    const double variance =
        ((to.squares - from.squares) - static_cast<double>(count) * mean * mean) / static_cast<double>(count - 1);
    return state.nats[token] > mean + gamma_ * std::sqrt(std::max(variance, 0.0));
  }

  /// A surprising token begins no event while the event before it is shorter than `min`. An event of `max` tokens
  /// ends there, as does every event whose tokens' surprisal is not known.
  Event next_event(int64_t begin, const EventState& state, const LayerQueries& queries, ThreadPool& pool) const {
    const int64_t cut = begin + most_;
    int64_t border = begin + least_;
    if (!state.events.empty()) border = std::max(border, state.events.back().border + 1);
    while (border < cut && !is_surprising(border, state)) ++border;
    if (border >= cut) return {cut, cut};
    return {measure_ ? refine(begin, border, queries, pool) : border, border};
  }

  /// Moves a border back, at most so far that the event keeps its least size, to where keys are told apart best:
  /// the event and half its size on both sides.
  int64_t refine(int64_t begin, int64_t border, const LayerQueries& queries, ThreadPool& pool) const {
    const int64_t half = (border - begin) / 2;
    const TokenRange span{std::max<int64_t>(0, begin - half), border + half};
    const int64_t n = span.end - span.begin;
    const std::vector<float> similarity = key_similarity(span, queries, pool);
    return span.begin + best_split(similarity, n, begin + least_ - span.begin, border + 1 - span.begin, *measure_);
  }

  /// [tokens, tokens]: the products of the raw keys of the last 3/8 of the layers, summed over layers and heads.
  std::vector<float> key_similarity(const TokenRange& tokens, const LayerQueries& queries, ThreadPool& pool) const {
    constexpr int64_t kRowsOfPart = 32;
    const int64_t n = tokens.end - tokens.begin;
    const int kv_heads = queries.kv->heads(), layers = context().layers;
    const int64_t dim = queries.kv->shape().key_dim, width = kv_heads * dim;
    std::vector<float> keys(n * width), similarity(n * n);
    for (int layer = layers * 5 / 8; layer < std::min(layers, queries.sequence->layers()); ++layer) {
      const PagedKv* kv = queries.sequence->paged(layer);
      if (!kv || kv->heads() != kv_heads || kv->shape().key_dim != dim) continue;  // another kind of layer
      pool.parallel_for(kv_heads, [&](size_t head, int) {
        RawKeys raw;
        read_raw_keys(*kv, static_cast<int>(head), tokens, raw);
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
  int64_t least_, most_;
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
                         .summary = "tokens of events visible to a query, with those that belong to no event yet"}),
       {"gamma",
        Type::kFloat,
        "1",
        "an event begins above the mean surprisal + gamma standard deviations",
        -1e9,
        1e9,
        {}},
       {"min", Type::kInt, "8", "least tokens of an event", 2, 1e9, {}},
       {"max", Type::kInt, "128", "most tokens of an event", 4, 1e9, {}},
       {"refine",
        Type::kChoice,
        "none",
        "what moves borders to where keys part best, by the last 3/8 of the layers",
        {},
        {},
        {"none", "modularity", "conductance"}},
       {"contiguity", Type::kFloat, "0", "share of the budget for the neighbours of chosen events", 0, 0.9, {}}});
  return {
      {.name = "em-llm",
       .summary = "InfLLM whose blocks are events, which begin at tokens of high surprisal",
       .paper = "Human-inspired Episodic Memory for Infinite Context LLMs, 2024",
       .needs = "any model",
       .time = "O(sink + budget + window + n / event) per token; logits of all tokens",
       .memory =
           "O(n): nothing is dropped; a vector of all query heads for each event and for 64 tokens of two windows",
       .parameters = std::move(parameters),
       .capabilities = {.needs_host_pages = true, .reads_surprisal = true}},
      [](const Values& values) { return std::make_unique<EmLlm>(values); }};
}

}  // namespace fathom
