#include "train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <functional>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/interrupt.h"
#include "seed.h"

namespace fathom::train {
namespace {

constexpr int kSymbols = 12;

/// Rows of random symbols that occur twice; only the second half has weight.
class CopyTask final : public BatchSource {
 public:
  explicit CopyTask(int64_t half = 8, int64_t sequences = 16) : half_(half), sequences_(sequences) {}
  Batch batch(int64_t step) override {
    std::mt19937_64 random(test::seed(static_cast<uint64_t>(step) + 1000));
    Batch batch{sequences_, 2 * half_ - 1, {}, {}};
    for (int64_t s = 0; s < sequences_; ++s) {
      std::vector<int32_t> row(half_);
      for (int32_t& token : row) token = static_cast<int32_t>(random() % kSymbols);
      for (int copy = 0; copy < 2; ++copy) batch.tokens.insert(batch.tokens.end(), row.begin(), row.end());
      for (int64_t i = 0; i < batch.length; ++i) batch.weights.push_back(i >= half_ - 1 ? 1.0f : 0.0f);
    }
    return batch;
  }

 private:
  int64_t half_, sequences_;
};

TrainConfig copy_config(int64_t steps) {
  TrainConfig config;
  config.model = {.layers = 2, .width = 32, .heads = 4, .kv_heads = 2, .head_dim = 8, .ffn_width = 64};
  config.model.vocabulary = kSymbols;
  config.model.init_deviation = 0.1;
  config.schedule.peak = 1e-2;
  config.schedule.warmup_steps = std::min<int64_t>(10, steps);
  config.steps = steps;
  config.precision = "f32";
  config.threads = 1;
  config.checkpoint.interval = 0;
  config.evaluation.interval = 0;
  return config;
}

/// A net with its trainer and the logged lines.
struct LoggedRun {
  explicit LoggedRun(const TrainConfig& config, BatchSource& batches, std::vector<HeldoutSet> heldout = {},
                     const LayerOps& ops = plain_ops())
      : net(net_config(config, 0), ops),
        trainer(config, net, batches, std::move(heldout), [this](const Json& line) {
          lines.push_back(line);
          if (on_line) on_line(line);
        }) {
    net.initialise(config.seed, config.model.init_deviation);
  }
  std::string error_of_run() {
    try {
      trainer.run();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  std::vector<double> logged(const char* key) const {
    std::vector<double> values;
    for (const Json& line : lines) {
      if (line.contains(key)) values.push_back(line[key].get<double>());
    }
    return values;
  }

  Net net;
  std::vector<Json> lines;
  std::function<void(const Json&)> on_line;
  Trainer trainer;
};

/// A way to compute a net: the config's precision and the layers.
struct ComputeVariant {
  const char* name;
  const char* precision;
  const LayerOps& ops;
};
std::vector<ComputeVariant> variants() {
  std::vector<ComputeVariant> all{
      {"plain f32", "f32", plain_ops()}, {"plain bf16", "bf16", plain_ops()}, {"fused f32", "f32", fused_ops()}};
  if (has_products_of(Factors::kBF16)) all.push_back({"fused bf16", "bf16", fused_ops(Factors::kBF16)});
  return all;
}

at::Tensor trained_values(const TrainConfig& config, const LayerOps& ops = plain_ops()) {
  CopyTask task;
  LoggedRun run(config, task, {}, ops);
  run.trainer.run();
  return run.net.values().clone();
}

class Training : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "fathom_trainer_XXXXXX";
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string checkpoint() const { return folder_ + "/run.ckpt"; }
  std::string folder_;
};

TEST_F(Training, LearnsToCopy) {
  for (const ComputeVariant& variant : variants()) {
    TrainConfig config = copy_config(200);
    config.precision = variant.precision;
    CopyTask task;
    LoggedRun run(config, task, {}, variant.ops);
    run.trainer.run();
    const std::vector<double> losses = run.logged("loss");
    ASSERT_EQ(losses.size(), 200u);
    EXPECT_GT(losses[0], std::log(kSymbols) - 0.5) << variant.name;
    EXPECT_LT(losses.back(), 0.2) << variant.name;
  }
}

TEST_F(Training, LossesWithBfloat16ProductsAreWithinOnePercent) {
  if (!has_products_of(Factors::kBF16)) GTEST_SKIP() << "this machine has no AVX512-BF16";
  TrainConfig config = copy_config(30);
  CopyTask task(40, 5);
  const auto losses = [&](const LayerOps& ops) {
    LoggedRun run(config, task, {}, ops);
    run.trainer.run();
    return run.logged("loss");
  };
  const std::vector<double> floats = losses(fused_ops());
  config.precision = "bf16";
  const std::vector<double> rounded = losses(fused_ops(Factors::kBF16));
  for (size_t i = 0; i < floats.size(); ++i) EXPECT_NEAR(rounded[i], floats[i], 0.01 * floats[i]) << "step " << i;
  EXPECT_NE(rounded, floats);
}

TEST_F(Training, TheSameRunTwiceGivesTheSameBits) {
  TrainConfig config = copy_config(10);
  for (const int threads : {1, 2}) {
    config.threads = threads;
    EXPECT_TRUE(at::equal(trained_values(config), trained_values(config))) << threads << " threads";
  }
  at::set_num_threads(1);
}

TEST_F(Training, StoppingAtRandomStepsAndContinuingGivesTheSameBits) {
  for (const ComputeVariant& variant : variants()) {
    TrainConfig config = copy_config(40);
    config.precision = variant.precision;
    const at::Tensor expected = trained_values(config, variant.ops);
    config.checkpoint = {.file = checkpoint() + variant.name, .interval = 3};
    std::mt19937 random(test::seed(1));
    int stops = 0;
    for (bool done = false; !done;) {
      CopyTask task;
      LoggedRun run(config, task, {}, variant.ops);
      run.net.initialise(99, 0.3);  // values that a checkpoint does not restore would differ
      if (stops == 0) run.net.initialise(config.seed, config.model.init_deviation);
      EXPECT_EQ(run.trainer.resume(), stops > 0);
      const int64_t last = run.trainer.steps_done() + 4 + static_cast<int64_t>(random() % 8);
      run.on_line = [&](const Json& line) {
        if (line["step"] == last) throw std::runtime_error("stopped");
      };
      try {
        run.trainer.run();
        done = true;
        EXPECT_TRUE(at::equal(run.net.values(), expected)) << variant.name << ", " << stops << " stops";
      } catch (const std::runtime_error& stopped) {
        ASSERT_STREQ(stopped.what(), "stopped");
        ++stops;
      }
    }
    EXPECT_GT(stops, 3);
  }
}

/// Continues from the checkpoint and kills the process after `after_steps` steps.
void train_and_die(const TrainConfig& config, int64_t after_steps) {
  CopyTask task;
  LoggedRun run(config, task);
  run.trainer.resume();
  const int64_t last = run.trainer.steps_done() + after_steps;
  run.on_line = [&](const Json& line) {
    if (line["step"] == last) ::raise(SIGKILL);
  };
  run.trainer.run();
}

TEST(TrainingDeathTest, KillingTheProcessAndContinuingGivesTheSameBits) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  TrainConfig config = copy_config(20);
  const at::Tensor expected = trained_values(config);
  // The child process runs this test from its start with the same file; only the parent removes the file.
  config.checkpoint = {.file = testing::TempDir() + "fathom_trainer_killed.ckpt", .interval = 4};
  if (!testing::internal::InDeathTestChild()) std::filesystem::remove(config.checkpoint.file);
  EXPECT_EXIT(train_and_die(config, 6), testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT(train_and_die(config, 11), testing::KilledBySignal(SIGKILL), "");
  CopyTask task;
  LoggedRun run(config, task);
  EXPECT_TRUE(run.trainer.resume());
  EXPECT_EQ(run.trainer.steps_done(), 12);
  run.trainer.run();
  EXPECT_TRUE(at::equal(run.net.values(), expected));
  std::filesystem::remove(config.checkpoint.file);
}

TEST_F(Training, ASignalWritesACheckpointThatGivesTheSameBits) {
  TrainConfig config = copy_config(20);
  const at::Tensor expected = trained_values(config);
  config.checkpoint = {.file = checkpoint(), .interval = 0};
  CopyTask task;
  LoggedRun run(config, task);
  run.on_line = [](const Json& line) {
    if (line["step"] == 7 && line.contains("loss")) ::raise(SIGINT);
  };
  install_interrupt_handler();
  const std::string error = run.error_of_run();
  install_interrupt_handler();  // clears the flag
  EXPECT_NE(error.find("after step 7"), std::string::npos) << error;
  EXPECT_NE(error.find(checkpoint()), std::string::npos) << error;
  LoggedRun later(config, task);
  ASSERT_TRUE(later.trainer.resume());
  EXPECT_EQ(later.trainer.steps_done(), 7);
  later.trainer.run();
  EXPECT_TRUE(at::equal(later.net.values(), expected));
}

TEST_F(Training, AccumulatedPartsEqualOneBatch) {
  TrainConfig config = copy_config(5);
  config.optimizer.eps = 0.1;  // makes the update smooth in the gradients, so rounding errors are not magnified
  CopyTask task(8, 13);
  LoggedRun whole(config, task);
  whole.trainer.run();
  for (const int parts : {2, 4, 13, 50}) {
    config.accumulation = parts;
    LoggedRun run(config, task);
    run.trainer.run();
    for (const char* key : {"loss", "gradient_norm"}) {
      for (int step = 0; step < 5; ++step) {
        const double expected = whole.logged(key)[step];
        EXPECT_NEAR(run.logged(key)[step], expected, 1e-6 * expected) << key << ", " << parts << " parts";
      }
    }
    EXPECT_LT((run.net.values() - whole.net.values()).abs().max().item<double>(), 1e-6);
  }
}

TEST_F(Training, StopsAtANonFiniteLossAndPreservesTheLastCheckpoint) {
  TrainConfig config = copy_config(20);
  config.checkpoint = {.file = checkpoint(), .interval = 4};
  CopyTask task;
  LoggedRun run(config, task);
  run.on_line = [&](const Json& line) {
    if (line["step"] == 6) run.net.values().data_ptr<float>()[0] = NAN;
  };
  const std::string error = run.error_of_run();
  EXPECT_NE(error.find("step 7: the loss is nan"), std::string::npos) << error;
  EXPECT_NE(error.find(checkpoint() + " has step 4"), std::string::npos) << error;
  LoggedRun later(config, task);
  ASSERT_TRUE(later.trainer.resume());
  EXPECT_EQ(later.trainer.steps_done(), 4);
  EXPECT_TRUE(at::isfinite(later.net.values()).all().item<bool>());
}

TEST_F(Training, EvaluatesAtIntervalsWithoutChangingTheRun) {
  TrainConfig config = copy_config(12);
  const at::Tensor expected = trained_values(config);
  config.evaluation.interval = 4;
  CopyTask task, heldout(8, 5);
  const HeldoutSet copies{"copies", &heldout, 3};
  LoggedRun run(config, task, {copies});
  const double before = run.trainer.evaluate(copies);
  run.trainer.run();
  EXPECT_TRUE(at::equal(run.net.values(), expected));
  std::vector<double> losses;
  for (const Json& line : run.lines)
    if (line.contains("heldout")) losses.push_back(line["heldout"]["copies"].get<double>());
  ASSERT_EQ(losses.size(), 3u);
  EXPECT_NEAR(losses.back(), run.trainer.evaluate(copies), 1e-12);
  EXPECT_NE(losses.back(), before);
}

TEST_F(Training, LogsLearningRateAndTokensOfEachStep) {
  TrainConfig config = copy_config(12);
  CopyTask task(8, 16);
  LoggedRun run(config, task);
  run.trainer.run();
  ASSERT_EQ(run.lines.size(), 12u);
  EXPECT_EQ(run.lines[0]["step"], 1);
  EXPECT_EQ(run.lines[0]["tokens"], 16 * 15);
  EXPECT_NEAR(run.lines[0]["learning_rate"].get<double>(), 1e-3, 1e-12);
  EXPECT_NEAR(run.lines[11]["learning_rate"].get<double>(), 1e-3, 1e-12);
  EXPECT_GT(run.lines[0]["tokens_per_second"].get<double>(), 0);
}

TEST_F(Training, RejectsInvalidBatches) {
  struct Broken final : BatchSource {
    Batch batch(int64_t step) override {
      Batch batch = CopyTask().batch(step);
      change(batch);
      return batch;
    }
    std::function<void(Batch&)> change;
  };
  const std::pair<std::function<void(Batch&)>, const char*> cases[] = {
      {[](Batch& b) { b.tokens[3] = kSymbols; }, "token 12 is outside the vocabulary of 12"},
      {[](Batch& b) { b.tokens[3] = -1; }, "token -1"},
      {[](Batch& b) { b.tokens.pop_back(); }, "255 tokens"},
      {[](Batch& b) { b.weights.clear(); }, "0 weights"},
      {[](Batch& b) { b.weights[2] = -1; }, "weight -1"},
      {[](Batch& b) { std::fill(b.weights.begin(), b.weights.end(), 0.0f); }, "all token weights are 0"},
      {[](Batch& b) { b.sequences = 0; }, "0 sequences"}};
  for (const auto& [change, text] : cases) {
    Broken broken;
    broken.change = change;
    LoggedRun run(copy_config(3), broken);
    const std::string error = run.error_of_run();
    EXPECT_NE(error.find(text), std::string::npos) << error;
  }
}

TEST_F(Training, VocabularySizeIsThatOfTheConfigOrTheTokenizer) {
  TrainConfig config;
  EXPECT_EQ(net_config(config, 100).model.vocabulary, 100);
  EXPECT_THROW(net_config(config, 0), Error);
  config.model.vocabulary = 100;
  EXPECT_EQ(net_config(config, 0).model.vocabulary, 100);
  EXPECT_THROW(net_config(config, 101), Error);
}

}  // namespace
}  // namespace fathom::train
