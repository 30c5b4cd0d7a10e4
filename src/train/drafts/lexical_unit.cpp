#include <ATen/ATen.h>

#include <vector>

#include "base/error.h"
#include "train/draft_net.h"
#include "train/masked_attention.h"

namespace fathom::train {
namespace {

/// A model that predicts several tokens in one pass ("Decoding at the Speed of Thought: Harnessing Parallel
/// Decoding of Lexical Units for LLMs", 2024): it continues a text of which the last inputs are placeholders. A
/// frozen copy reads the text; a run of tokens to which it gives probabilities above `certainty` is cut into units
/// of at most `length` tokens. The inputs of a unit's tokens but the last are placeholders, and each predicts the
/// next token of the unit. Other rows of the text attend to real tokens only, as in decoding, so one pass trains
/// all units of a text.
class LexicalUnitNet final : public Net {
 public:
  LexicalUnitNet(const TrainConfig::Draft& config, FrozenBase from)
      : Net(named(from.net->config(), from.name), from.net->ops(), from.net->values().device()),
        config_(config),
        placeholder_(from.placeholder),
        frozen_(std::move(from.net)) {
    check_plain_attention("lexical-unit", *frozen_);
    if (placeholder_ < 0) {
      fail_usage("draft.kind is lexical-unit, but the tokenizer has no unknown token, which serves as placeholder");
    }
    values().copy_(frozen_->values());
  }

  Loss step_loss(const LossOptions& options) override {
    return [this, own = weights(options.type), frozen = frozen_->frozen_weights(options.type),
            rng = eval::Rng(options.seed, "lexical-unit", 0, options.step),
            agreement = options.agreement](const at::Tensor& tokens, const at::Tensor& token_weights) mutable {
      if (!agreement) return mixed_loss(own, frozen, tokens, token_weights, rng);
      add_agreement(own, frozen, tokens, token_weights, rng, agreement);
      return loss(own, tokens, token_weights);
    };
  }

  void set_metadata(GgufWriter& writer, const Gguf* tokenizer) const override {
    Net::set_metadata(writer, tokenizer);
    writer.set("fathom.lexical_unit.pad", GgufType::kU32, int64_t{placeholder_});
    writer.set("fathom.lexical_unit.length", GgufType::kU32, config_.length);
  }

 private:
  static NetConfig named(NetConfig config, const std::string& name) {
    config.model.name = name;
    return config;
  }

  /// The placeholders of rows of tokens.
  struct Units {
    at::Tensor first;    // [sequences, length] int64: the first placeholder of a row's unit; other rows: the row
    at::Tensor weights;  // [sequences, length] loss weights; 0 for rows that are not placeholders
  };
  /// The output norms of both kinds of rows, [sequences, length, width].
  struct Rows {
    at::Tensor real, placeholders;
  };

  /// Returns the loss of rows without placeholders and of rows with placeholders, in the configured shares.
  at::Tensor mixed_loss(const NetWeights& own, const NetWeights& frozen, const at::Tensor& tokens,
                        const at::Tensor& token_weights, eval::Rng& rng) {
    std::vector<int64_t> ordinary, with_units;
    for (int64_t s = 0; s < tokens.size(0); ++s) {
      (rng.uniform() < config_.ordinary_share ? ordinary : with_units).push_back(s);
    }
    const auto selected = [&](const at::Tensor& from, const std::vector<int64_t>& rows) {
      return from.index_select(0, at::tensor(rows, at::kLong).to(from.device()));
    };
    at::Tensor sum = at::zeros({}, token_weights.options());
    if (!ordinary.empty()) sum = sum + loss(own, selected(tokens, ordinary), selected(token_weights, ordinary));
    if (!with_units.empty()) {
      sum = sum + unit_loss(own, frozen, selected(tokens, with_units), selected(token_weights, with_units), rng);
    }
    return sum;
  }

  at::Tensor unit_loss(const NetWeights& own, const NetWeights& frozen, const at::Tensor& tokens,
                       const at::Tensor& token_weights, eval::Rng& rng) {
    const int64_t length = tokens.size(1) - 1;
    const Units units = find_units(teacher(frozen, tokens, token_weights, nullptr), tokens, token_weights, rng);
    const Rows rows = run(own, tokens.narrow(1, 0, length), units.first);
    const at::Tensor targets = tokens.narrow(1, 1, length).flatten();
    const auto entropy = [&](const at::Tensor& x, const at::Tensor& row_weights) {
      return ops().cross_entropy(x.flatten(0, 1), own.output, targets, row_weights.flatten());
    };
    return entropy(rows.real, token_weights) + entropy(rows.placeholders, units.weights);
  }

  /// Adds the agreement of placeholders with the frozen copy, which reads the real tokens: step i is that of the
  /// placeholders i + 1 of units.
  void add_agreement(const NetWeights& own, const NetWeights& frozen, const at::Tensor& tokens,
                     const at::Tensor& token_weights, eval::Rng& rng, Agreement* agreement) {
    const int64_t length = tokens.size(1) - 1;
    const Teacher copy = teacher(frozen, tokens, token_weights, agreement);
    const Units units = find_units(copy, tokens, token_weights, rng);
    const Rows rows = run(own, tokens.narrow(1, 0, length), units.first);
    const at::Tensor before = at::arange(length, units.first.options()) - units.first;
    for (int64_t step = 0; step < config_.length - 1; ++step) {
      copy.add_agreement({rows.placeholders, own.output}, units.weights * before.eq(step).to(at::kFloat), step);
    }
  }

  Teacher teacher(const NetWeights& frozen, const at::Tensor& tokens, const at::Tensor& token_weights,
                  Agreement* agreement) {
    const at::NoGradGuard no_gradients;
    const at::Tensor embedded = embeddings(frozen, tokens.narrow(1, 0, tokens.size(1) - 1));
    const at::Tensor x = frozen_->run_layers(frozen, embedded, 0, config().model.layers);
    return {*frozen_, frozen, frozen_->normed_output(frozen, x), token_weights, agreement};
  }

  /// Cuts the runs of certain tokens into units. The first unit of a run has a random length, so that decoding can
  /// start anywhere in a run.
  Units find_units(const Teacher& copy, const at::Tensor& tokens, const at::Tensor& token_weights,
                   eval::Rng& rng) const {
    const at::Tensor certain = copy.probabilities(tokens).gt(config_.certainty).cpu().contiguous();
    const int64_t sequences = certain.size(0), length = certain.size(1);
    const at::Tensor first = at::empty({sequences, length}, at::kLong), in_unit = at::zeros({sequences, length});
    for (int64_t s = 0; s < sequences; ++s) {
      int64_t begin = -1, tokens_of_unit = 0;  // row that predicts the first token of the unit
      for (int64_t i = 0; i < length; ++i) {
        first.data_ptr<int64_t>()[s * length + i] = i;
        if (!certain.data_ptr<bool>()[s * length + i]) {
          begin = -1;
        } else if (begin < 0 || i - begin == tokens_of_unit) {
          tokens_of_unit = begin < 0 ? rng.between(1, config_.length) : config_.length;
          begin = i;
        } else {
          first.data_ptr<int64_t>()[s * length + i] = begin + 1;
          in_unit.data_ptr<float>()[s * length + i] = 1;
        }
      }
    }
    return {first.to(tokens.device()), token_weights * in_unit.to(token_weights.device())};
  }

  /// Runs the real tokens, and placeholders at all positions. The placeholder at position i attends to the real
  /// rows before first[i] and to the placeholders first[i]..i. read, first: [sequences, length].
  Rows run(const NetWeights& own, const at::Tensor& read, const at::Tensor& first) {
    const at::Tensor keys = at::arange(read.size(1), first.options()).view({1, 1, -1});
    const at::Tensor begin = first.unsqueeze(2);  // [sequences, length, 1]
    const at::Tensor masked = at::cat({keys >= begin, (keys < begin).logical_or(keys > keys.transpose(1, 2))}, 2);
    const Angles row_angles = angles().range(0, read.size(1));
    at::Tensor real = embeddings(own, read), pad = embeddings(own, at::full_like(read, placeholder_));
    for (int layer = 0; layer < config().model.layers; ++layer) {
      const AttentionRows a = attention_rows(own, layer, real, row_angles);
      const AttentionRows b = attention_rows(own, layer, pad, row_angles);
      const at::Tensor attended =
          masked_attention(b.q, at::cat({a.k, b.k}, 1), at::cat({a.v, b.v}, 1), score_scale(), masked);
      pad = finish_layer(own, layer, pad, attended);
      real = finish_layer(own, layer, real, attend(a));
    }
    return {normed_output(own, real), normed_output(own, pad)};
  }

  TrainConfig::Draft config_;
  int32_t placeholder_;
  std::unique_ptr<Net> frozen_;
};

std::unique_ptr<Trainable> make_lexical_unit(const TrainConfig::Draft& config, FrozenBase base) {
  return std::make_unique<LexicalUnitNet>(config, std::move(base));
}

}  // namespace

DraftTrainer lexical_unit_draft() { return {"lexical-unit", make_lexical_unit}; }

}  // namespace fathom::train
