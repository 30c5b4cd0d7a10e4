#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "train/draft_net.h"
#include "train/draft_training.h"
#include "train/export_gguf.h"

namespace fathom::train {
namespace {

using test::draft_cases;
using test::draft_of;
using test::DraftCase;

double loss_of(Trainable& net, const at::Tensor& tokens, const at::Tensor& weights) {
  const at::NoGradGuard no_gradients;
  return net.step_loss({.seed = test::seed(4)})(tokens, weights).item<double>();
}

TEST(DraftTraining, GradientsEqualFiniteDifferencesForEveryParameter) {
  for (const DraftCase& draft : draft_cases()) {
    const auto net = draft_of(draft.config, test::random_base(5));
    test::disturb(*net, 6);
    const at::Tensor tokens = test::random_ids(4, 15, 7), weights = at::rand({4, 14});
    net->step_loss({.seed = test::seed(4)})(tokens, weights).backward();
    const at::Tensor start = net->values().clone();
    for (const NetParameter& p : net->parameters()) {
      at::Tensor direction = at::zeros_like(start);
      direction.narrow(0, p.offset, p.size()).normal_();
      const double step = 2e-3 / direction.norm().item<double>() * std::sqrt(static_cast<double>(p.size()));
      const auto loss_at = [&](double along) {
        net->values().copy_(start + direction * along);
        return loss_of(*net, tokens, weights);
      };
      const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
      const double gradient = (net->gradients() * direction).sum().item<double>();
      const double size = net->gradients().narrow(0, p.offset, p.size()).norm().item<double>();
      EXPECT_NEAR(slope, gradient, 0.03 * std::abs(gradient) + 0.03 * size) << draft.name << " " << p.name;
      EXPECT_GT(size, 1e-3) << draft.name << " " << p.name;
    }
  }
}

TEST(DraftTraining, FusedLayersGiveTheSameLossAndGradients) {
  for (const DraftCase& draft : draft_cases()) {
    const auto base = test::random_base(8);
    const auto plain = draft_of(draft.config, test::copy_of(*base)),
               fused = draft_of(draft.config, test::copy_of(*base, fused_ops()));
    test::disturb(*plain, 9);
    fused->values().copy_(plain->values());
    const at::Tensor tokens = test::random_ids(3, 20, 10), weights = at::rand({3, 19});
    double losses[2] = {};
    for (const auto& net : {plain.get(), fused.get()}) {
      const at::Tensor loss = net->step_loss({.seed = test::seed(4)})(tokens, weights);
      loss.backward();
      losses[net == fused.get()] = loss.item<double>();
    }
    EXPECT_NEAR(losses[0], losses[1], 1e-5 * losses[0]) << draft.name;
    EXPECT_LT((plain->gradients() - fused->gradients()).norm().item<double>(),
              1e-4 * plain->gradients().norm().item<double>())
        << draft.name;
  }
}

TEST(DraftTraining, LossFallsWithinFewStepsAndTheBaseStaysUnchanged) {
  for (const DraftCase& draft : draft_cases()) {
    const auto net = draft_of(draft.config, test::copy_of(test::base_of_triples()));
    test::Triples triples;
    const std::vector<double> losses = train_quickly(test::quick_config(30), *net, triples);
    const auto mean = [&](size_t begin) {
      return std::accumulate(losses.begin() + begin, losses.begin() + begin + 3, 0.0) / 3;
    };
    EXPECT_LT(mean(27), 0.8 * mean(0)) << draft.name;
    const auto* learner = dynamic_cast<const DraftNet*>(net.get());
    ASSERT_EQ(learner == nullptr, draft.config.kind == "lexical-unit");
    if (!learner) continue;
    EXPECT_TRUE(at::equal(learner->base().values(), test::base_of_triples().values())) << draft.name;
    EXPECT_EQ(learner->base().gradients().abs().max().item<double>(), 0) << draft.name;
  }
}

TEST(DraftTraining, SequentialHeadsWithoutEmbeddingColumnsEqualIndependentHeads) {
  const TrainConfig::Draft sequential{.kind = "heads", .steps = 3, .blocks = 2};
  TrainConfig::Draft independent = sequential;
  independent.sequential = false;
  const auto base = test::random_base(11);
  const auto a = draft_of(sequential, test::copy_of(*base)), b = draft_of(independent, test::copy_of(*base));
  test::disturb(*b, 12, 0.2);
  const at::NoGradGuard no_gradients;
  for (const NetParameter& p : b->parameters()) {
    const at::Tensor to = a->parameter(p.name).detach();
    (p.rows > 0 ? to.narrow(1, 0, p.cols) : to).copy_(p.value);  // the other columns stay 0
  }
  const at::Tensor tokens = test::random_ids(3, 12, 13), weights = at::rand({3, 11});
  const double expected = loss_of(*b, tokens, weights);
  EXPECT_NEAR(loss_of(*a, tokens, weights), expected, 1e-5 * expected);
  a->parameter("head.1.block.0.weight").detach().narrow(1, 32, 32).normal_();
  EXPECT_GT(std::abs(loss_of(*a, tokens, weights) - expected), 1e-3 * expected);
}

/// Returns the agreement of trained heads on other text.
std::vector<double> agreement_of_heads(bool sequential) {
  const auto net = draft_of({.kind = "heads", .steps = 2, .blocks = 1, .sequential = sequential},
                            test::copy_of(test::base_of_triples()));
  test::Triples triples;
  const TrainConfig config = test::quick_config(80);
  train_quickly(config, *net, triples);
  struct Later final : BatchSource {
    Batch batch(int64_t step) override { return test::Triples().batch(step + 10000); }
  } later;
  Trainer trainer(config, *net, triples, {}, [](const Json&) {});
  Agreement agreement;
  trainer.evaluate({"later", &later, 3}, &agreement);
  return agreement.shares();
}

TEST(DraftTraining, SequentialHeadsPredictTokensThatDependOnDraftedOnes) {
  const std::vector<double> hydra = agreement_of_heads(true), medusa = agreement_of_heads(false);
  ASSERT_EQ(hydra.size(), 2u);
  ASSERT_EQ(medusa.size(), 2u);
  EXPECT_GT(hydra[1], 0.6);
  EXPECT_LT(medusa[1], 0.45);
  EXPECT_GT(hydra[0], medusa[0] + 0.2);
}

TEST(DraftTraining, LexicalUnitsArePredictedFromPlaceholders) {
  const TrainConfig::Draft draft{.kind = "lexical-unit", .certainty = 0.5, .length = 2};
  const auto net = draft_of(draft, test::copy_of(test::base_of_triples()));
  test::Triples triples;
  TrainConfig config = test::quick_config(120);
  config.schedule.peak = 5e-3;
  Trainer trainer(config, *net, triples, {}, [](const Json&) {});
  const HeldoutSet same{"same", &triples, 3};
  Agreement before, after;
  const double loss_before = trainer.evaluate(same, &before);
  trainer.run();
  EXPECT_LT(trainer.evaluate(same, &after), 1.1 * loss_before);  // of ordinary reading
  ASSERT_EQ(after.shares().size(), 1u);
  EXPECT_GT(after.shares()[0], 0.9);
  EXPECT_LT(before.shares()[0], 0.5);
}

TEST(DraftTraining, InterruptedAndContinuedRunsGiveTheSameBits) {
  std::string folder = testing::TempDir() + "fathom_drafts_XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  for (const DraftCase& draft : draft_cases()) {
    TrainConfig config = test::quick_config(8);
    config.draft = draft.config;
    config.start = "base.gguf";
    test::Triples triples(4, 16);
    const auto whole = draft_of(draft.config, test::copy_of(test::base_of_triples()));
    train_quickly(config, *whole, triples);
    config.checkpoint.file = folder + "/" + draft.name;
    for (const int64_t until : {3, 8}) {
      const auto net = draft_of(draft.config, test::copy_of(test::base_of_triples()));
      Trainer trainer(config, *net, triples, {}, [](const Json&) {});
      EXPECT_EQ(trainer.resume(), until > 3);
      trainer.run(until);
      EXPECT_EQ(at::equal(net->values(), whole->values()), until == 8) << draft.name;
    }
  }
  std::filesystem::remove_all(folder);
}

std::string usage_error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    return error.what();
  }
  return "";
}

TEST(DraftTraining, UnsuitableBasesAreRejected) {
  const auto error = [](const TrainConfig::Draft& draft, const NetConfig& base, int32_t placeholder = 1) {
    return usage_error_of(
        [&] { make_draft(draft, {.net = std::make_unique<Net>(base), .placeholder = placeholder}); });
  };
  NetConfig softplus = test::tiny_config(), window = softplus;
  softplus.model.softplus = true;
  window.model.sliding_window = 9;
  for (const char* kind : {"hidden-transfer", "longspec", "lexical-unit"}) {
    const TrainConfig::Draft draft{.kind = kind};
    EXPECT_EQ(error(draft, test::tiny_config()), "") << kind;
    EXPECT_NE(error(draft, softplus).find(kind), std::string::npos);
    EXPECT_NE(error(draft, window).find("a window; expected softmax"), std::string::npos);
  }
  EXPECT_EQ(error({.kind = "heads"}, softplus), "");
  EXPECT_NE(error({.kind = "hidden-transfer", .transfer_layer = 2}, test::tiny_config())
                .find("draft.transfer_layer is 2, expected 1 to 1"),
            std::string::npos);
  NetConfig one_layer = test::tiny_config();
  one_layer.model.layers = 1;
  EXPECT_NE(error({.kind = "hidden-transfer"}, one_layer).find("only one layer"), std::string::npos);
  EXPECT_NE(error({.kind = "longspec", .kv_heads = 3}, test::tiny_config()).find("draft.heads is 4"),
            std::string::npos);
  EXPECT_NE(error({.kind = "lexical-unit"}, test::tiny_config(), -1).find("unknown token"), std::string::npos);
}

TEST(DraftTraining, TheShapeIsThatOfTheBase) {
  const auto bytes = to_gguf(*test::random_base(1), WeightType::kF32, nullptr).bytes();
  const Gguf file = Gguf::parse(bytes, "base.gguf");
  TrainConfig config;
  config.model.width = 32;
  EXPECT_EQ(frozen_base_config(config, file).model.width, 32);
  config.model.layers = 7;
  EXPECT_NE(usage_error_of([&] {
              frozen_base_config(config, file);
            }).find("model.layers is 7, but the model in start has 2"),
            std::string::npos);
}

}  // namespace
}  // namespace fathom::train
