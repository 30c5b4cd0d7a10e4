// Keeps the tokens of highest surprisal; scores decay with each rotation.
#include <algorithm>
#include <cmath>
#include <vector>

#include "evict/methods.h"
#include "evict/stateful_scorer.h"

namespace fathom {
namespace {

struct State final : SequenceState {
  std::vector<float> scores;  // [tokens], nats, decayed
  std::unique_ptr<SequenceState> fork() const override { return std::make_unique<State>(*this); }
  void rewind(int64_t tokens) override {
    if (std::ssize(scores) > tokens) scores.resize(tokens);
  }
};

class SirLlm final : public StatefulScorer<State> {
 public:
  explicit SirLlm(double decay) : decay_(static_cast<float>(decay)) {}

  bool needs_surprisal() const override { return true; }

 protected:
  std::unique_ptr<State> make_state() const override { return std::make_unique<State>(); }

  /// A token without a prediction before it counts as the most surprising of its piece.
  void surprisal(const Surprisal& surprisal, State& state) const override {
    std::vector<float>& scores = state.scores;
    scores.resize(surprisal.first + std::ssize(surprisal.nats));
    float most = 0;
    for (const float nats : surprisal.nats) most = std::isnan(nats) ? most : std::max(most, nats);
    for (size_t i = 0; i < surprisal.nats.size(); ++i)
      scores[surprisal.first + i] = std::isnan(surprisal.nats[i]) ? most : surprisal.nats[i];
  }

  void end_text(State& state, int64_t begin) const override {
    std::vector<float>& scores = state.scores;
    for (int64_t t = 0; t < std::min(begin, std::ssize(scores)); ++t) scores[t] *= decay_;
  }

  void score(const LayerTokens& layer, const State& state, std::span<float> scores) const override {
    const std::vector<float>& own = state.scores;
    const int64_t tokens = layer.kv.tokens();
    for (int h = 0; h < layer.kv.heads(); ++h) {
      const CompactedTokens& compacted = layer.kv.compacted(h);
      for (int64_t t = 0; t < std::min(tokens, std::ssize(own)); ++t)
        scores[h * tokens + t] = own[compacted.original_index(t)];
    }
  }

 private:
  float decay_;
};

constexpr KeepDefaults kDefaults{.budget = 1024, .sink = 4};

}  // namespace

EvictEntry sirllm_method() {
  std::vector<Parameter> parameters = keep_parameters(kDefaults);
  parameters.push_back({"decay",
                        Parameter::Type::kFloat,
                        "1",
                        "multiplies the scores of earlier turns after each text of more than one token",
                        0,
                        1,
                        {}});
  return {
      {.name = "sirllm",
       .summary =
           "keeps the tokens of highest surprisal, the same in all layers and heads; scores of earlier turns decay",
       .paper = "SirLLM: Streaming Infinite Retentive LLM, 2024 (as there: positions=compacted)",
       .needs = "any model; logits of all tokens are made",
       .time = "O(1) per token, and its logits",
       .memory = kKeptMemory,
       .parameters = std::move(parameters),
       .capabilities = {.needs_host_pages = true, .reads_surprisal = true, .works_on_recurrent = true}},
      [](const Values& values) {
        return make_keeping(values, kDefaults, std::make_unique<SirLlm>(values.number("decay")));
      }};
}

}  // namespace fathom
