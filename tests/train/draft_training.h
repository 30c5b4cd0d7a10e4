#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "seed.h"
#include "train/draft_kinds.h"
#include "train/tiny_net.h"
#include "train/trainer.h"

namespace fathom::test {

/// Returns a base with random values.
inline std::unique_ptr<train::Net> random_base(uint64_t seed, const train::NetConfig& config = tiny_config(),
                                               const train::LayerOps& ops = train::plain_ops()) {
  auto net = std::make_unique<train::Net>(config, ops);
  net->initialise(test::seed(seed), 0.3);
  return net;
}

/// Returns a copy of a base, for another draft.
inline std::unique_ptr<train::Net> copy_of(const train::Net& base,
                                           const train::LayerOps& ops = train::plain_ops()) {
  auto net = std::make_unique<train::Net>(base.config(), ops);
  net->values().copy_(base.values());
  return net;
}

inline constexpr int32_t kPlaceholder = 39;

/// A draft source with its name in messages.
struct DraftCase {
  const char* name;
  train::TrainConfig::Draft config;
};
/// Returns a config of each kind, and of variants.
inline std::vector<DraftCase> draft_cases() {
  using Draft = train::TrainConfig::Draft;
  return {{"sequential heads", Draft{.kind = "heads", .steps = 3, .blocks = 2}},
          {"independent heads",
           Draft{.kind = "heads", .steps = 2, .blocks = 1, .sequential = false, .own_output = true}},
          {"hidden-transfer", Draft{.kind = "hidden-transfer", .steps = 3, .transfer_layer = 1}},
          {"longspec", Draft{.kind = "longspec",
                             .heads = 4,
                             .kv_heads = 1,
                             .head_dim = 6,
                             .ffn_width = 20,
                             .window = 5,
                             .max_offset = 60}},
          {"lexical-unit", Draft{.kind = "lexical-unit", .certainty = 0.02, .length = 3}}};
}

inline std::unique_ptr<train::Trainable> draft_of(const train::TrainConfig::Draft& config,
                                                  std::unique_ptr<train::Net> base) {
  return train::make_draft(
      config, {.name = "tiny draft", .net = std::move(base), .placeholder = kPlaceholder, .seed = test::seed(3)});
}

/// Adds random numbers to all values, so that nothing is 0 or 1.
inline void disturb(const train::Trainable& net, uint64_t seed, double deviation = 0.1) {
  at::manual_seed(test::seed(seed));
  net.values().add_(at::randn_like(net.values()) * deviation);
}

inline at::Tensor random_ids(int64_t sequences, int64_t length, uint64_t seed) {
  at::manual_seed(test::seed(seed));
  return at::randint(kPlaceholder, {sequences, length}, at::kLong);
}

/// Groups of three tokens: A of 0 to 11, drawn at random, 12 + A and 24 + (5·A mod 12). After a group, the first of
/// the next tokens is unknown and determines the other two.
class Triples final : public train::BatchSource {
 public:
  explicit Triples(int64_t sequences = 8, int64_t length = 24) : sequences_(sequences), length_(length) {}
  train::Batch batch(int64_t step) override {
    std::mt19937_64 random(test::seed(static_cast<uint64_t>(step) + 500));
    train::Batch batch{sequences_, length_, {}, std::vector<float>(sequences_ * length_, 1.0f)};
    for (int64_t s = 0; s < sequences_; ++s) {
      int32_t a = 0;
      for (int64_t i = 0; i <= length_; ++i) {
        if (i % 3 == 0) a = static_cast<int32_t>(random() % 12);
        batch.tokens.push_back(i % 3 == 0 ? a : i % 3 == 1 ? 12 + a : 24 + 5 * a % 12);
      }
    }
    return batch;
  }

 private:
  int64_t sequences_, length_;
};

inline train::TrainConfig quick_config(int64_t steps) {
  train::TrainConfig config;
  config.schedule.peak = 1e-2;
  config.schedule.warmup_steps = std::min<int64_t>(5, steps);
  config.steps = steps;
  config.threads = 1;
  config.precision = "f32";
  config.optimizer.weight_decay = 0;
  config.checkpoint.interval = 0;
  config.evaluation.interval = 0;
  return config;
}

/// Trains and returns the losses of all steps.
inline std::vector<double> train_quickly(const train::TrainConfig& config, train::Trainable& net,
                                         train::BatchSource& batches) {
  std::vector<double> losses;
  train::Trainer trainer(config, net, batches, {}, [&](const Json& line) {
    if (line.contains("loss")) losses.push_back(line["loss"].get<double>());
  });
  trainer.run();
  return losses;
}

/// Returns a net that has learned Triples.
inline const train::Net& base_of_triples() {
  static const std::unique_ptr<train::Net> base = [] {
    auto net = std::make_unique<train::Net>(tiny_config());
    net->initialise(test::seed(1), 0.1);
    Triples triples;
    train_quickly(quick_config(150), *net, triples);
    return net;
  }();
  return *base;
}

}  // namespace fathom::test
