// Keeps the tokens with the highest surprisal. The scores of earlier turns of a conversation decay with each new
// turn.
#include <algorithm>
#include <cmath>
#include <vector>

#include "evict/methods.h"
#include "evict/stateful_scorer.h"

namespace fathom {
namespace {

struct SirLlmState final : SequenceState {
  std::vector<float> scores;  // [tokens]: surprisal in nats, decayed, by the index at which a token was read
  std::unique_ptr<SequenceState> fork() const override { return std::make_unique<SirLlmState>(*this); }
  void rewind(int64_t tokens) override {
    if (std::ssize(scores) > tokens) scores.resize(tokens);
  }
  size_t bytes() const override { return bytes_of(scores); }
  void save(ByteWriter& out, const Sequence& /*sequence*/) const override { out.add_list(scores); }
  void load(ByteReader& in, const Sequence& sequence) override {
    scores = in.take_list_up_to<float>(sequence.tokens());
  }
};

class SirLlm final : public StatefulScorer<SirLlmState> {
 public:
  explicit SirLlm(double decay) : decay_(static_cast<float>(decay)) {}

  bool needs_surprisal() const override { return true; }

 protected:
  std::unique_ptr<SirLlmState> make_state() const override { return std::make_unique<SirLlmState>(); }

  /// A token without a prediction gets the highest surprisal among the tokens of the same call.
  void surprisal(const Surprisal& surprisal, SirLlmState& state) const override {
    std::vector<float>& scores = state.scores;
    scores.resize(surprisal.first + std::ssize(surprisal.nats));
    float max = 0;
    for (const float nats : surprisal.nats) max = std::isnan(nats) ? max : std::max(max, nats);
    for (size_t i = 0; i < surprisal.nats.size(); ++i)
      scores[surprisal.first + i] = std::isnan(surprisal.nats[i]) ? max : surprisal.nats[i];
  }

  void end_text(SirLlmState& state, int64_t begin) const override {
    std::vector<float>& scores = state.scores;
    for (int64_t t = 0; t < std::min(begin, std::ssize(scores)); ++t) scores[t] *= decay_;
  }

  void score(const LayerTokens& layer, const SirLlmState& state, std::span<float> scores) const override {
    const std::vector<float>& surprisals = state.scores;
    const int64_t tokens = layer.kv.tokens();
    for (int h = 0; h < layer.kv.heads(); ++h) {
      const CompactedTokens& compacted = layer.kv.compacted(h);
      for (int64_t t = 0; t < std::min(tokens, std::ssize(surprisals)); ++t)
        scores[h * tokens + t] = surprisals[compacted.original_index(t)];
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
                        "factor on the scores of earlier turns after each text of more than one token; less "
                        "decays faster; 1: no decay",
                        0,
                        1,
                        {}});
  return {{.name = "sirllm",
           .summary = "keeps the tokens with the highest surprisal, the same ones in all layers and heads",
           .paper = "SirLLM: Streaming Infinite Retentive LLM, 2024 (as in the paper: positions=compacted)",
           .needs = "any model; logits of all tokens are computed",
           .time = "O(1) per token, and the logits of every token",
           .memory = kKeptMemory,
           .parameters = std::move(parameters),
           .capabilities = {.needs_host_pages = true, .reads_surprisal = true, .works_on_recurrent = true}},
          [](const Values& values) {
            return make_budget_evictor(values, kDefaults, std::make_unique<SirLlm>(values.number("decay")));
          }};
}

}  // namespace fathom
