#include "train/state_optimisation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "base/error.h"
#include "train/draft_training.h"
#include "train/optimizer.h"

namespace fathom::train {
namespace {

using test::tiny_config;

std::vector<int32_t> random_text(int64_t count, uint64_t seed) {
  std::mt19937 random(test::seed(seed));
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random() % 40);
  return tokens;
}

/// Returns the tokens as the net reads them, [tokens] int64.
at::Tensor ids_tensor(std::span<const int32_t> tokens) {
  return at::tensor(at::ArrayRef<int32_t>(tokens.data(), tokens.size()), at::kInt).to(at::kLong);
}

/// Returns a shape with grouped heads of unequal widths, partly rotated, and a sliding window.
NetConfig uneven_config() {
  NetConfig config = tiny_config();
  config.tied_output = false;
  config.model.kv_heads = 1;
  config.model.value_dim = 6;
  config.model.rotary.dims = 4;
  config.model.sliding_window = 17;
  return config;
}

std::vector<double> nats_of(const std::vector<WindowLoss>& windows) {
  std::vector<double> nats;
  for (const WindowLoss& w : windows) nats.push_back(w.nats);
  return nats;
}

TEST(StateOptimisation, ARateOfZeroGivesTheBitsOfReadingWithoutOptimisation) {
  for (const LayerOps* ops : {&plain_ops(), &fused_ops()}) {
    for (const NetConfig& config : {tiny_config(), uneven_config()}) {
      const auto net = test::random_base(1, config, *ops);
      const std::vector<int32_t> text = random_text(75, 2);
      for (const int64_t memory : {0, 20}) {
        const auto losses = [&](double rate, int64_t steps) {
          return nats_of(window_losses(*net, text, {.window = 10, .rate = rate, .steps = steps, .memory = memory}));
        };
        const std::vector<double> without = losses(1, 0);
        EXPECT_EQ(losses(0, 1), without);
        EXPECT_EQ(losses(0, 2), without);
        EXPECT_NE(losses(0.01, 1), without);
      }
    }
  }
}

TEST(StateOptimisation, WithoutStepsTheLossIsThatOfTheWholeText) {
  for (const LayerOps* ops : {&plain_ops(), &fused_ops()}) {
    for (const NetConfig& config : {tiny_config(), uneven_config()}) {
      const auto net = test::random_base(3, config, *ops);
      const std::vector<int32_t> text = random_text(80, 4);
      const at::Tensor row = ids_tensor(text).unsqueeze(0);
      const double whole =
          net->loss(net->frozen_weights(at::kFloat), row, at::ones({1, row.size(1) - 1})).item<double>() / 79;
      for (const int64_t window : {1, 7, 16, 79, 200}) {
        const std::vector<WindowLoss> windows = window_losses(*net, text, {.window = window, .steps = 0});
        EXPECT_EQ(static_cast<int64_t>(windows.size()), (79 + window - 1) / window);
        EXPECT_NEAR(mean_loss(windows), whole, 1e-4) << "window " << window;
      }
    }
  }
}

TEST(StateOptimisation, LossesDoNotDependOnLaterText) {
  const auto net = test::random_base(5, tiny_config(), fused_ops());
  const StateStepOptions options{.window = 16, .rate = 0.05, .steps = 2, .memory = 40};
  std::vector<int32_t> text = random_text(16 * 5 + 1, 6);
  const std::vector<double> whole = nats_of(window_losses(*net, text, options));
  ASSERT_EQ(whole.size(), 5u);
  for (size_t windows = 1; windows < whole.size(); ++windows) {
    const std::span part = std::span(text).first(16 * windows + 1);
    EXPECT_EQ(nats_of(window_losses(*net, part, options)),
              std::vector<double>(whole.begin(), whole.begin() + static_cast<int64_t>(windows)));
  }
  text[16 * 3 + 1] = (text[16 * 3 + 1] + 1) % 40;  // the first token that window 4 predicts
  const std::vector<double> changed = nats_of(window_losses(*net, text, options));
  EXPECT_TRUE(std::equal(whole.begin(), whole.begin() + 3, changed.begin()));
  EXPECT_NE(changed[3], whole[3]);
}

/// Compares the gradients of each layer's keys and values with differences of the loss along random directions.
void expect_state_gradients_equal_differences(const NetConfig& config, const LayerOps& ops, uint64_t seed) {
  const auto net = test::random_base(seed, config, ops);
  StateOptimiser optimiser(*net, {.steps = 1});
  const std::vector<int32_t> text = random_text(13, seed);
  optimiser.read(text);
  at::manual_seed(test::seed(seed));
  const at::Tensor next = at::randint(40, {9}, at::kLong);
  for (const StateOptimiser::LayerStates& s : optimiser.states()) {
    for (const at::Tensor& state : {s.k, s.v}) {
      ASSERT_EQ(state.size(1), 12);
      state.requires_grad_(true);
    }
  }
  optimiser.pass(next).loss.backward();
  const at::NoGradGuard no_gradients;
  for (size_t layer = 0; layer < optimiser.states().size(); ++layer) {
    const StateOptimiser::LayerStates& s = optimiser.states()[layer];
    for (const at::Tensor& state : {s.k, s.v}) {
      const at::Tensor start = state.clone(), direction = at::randn_like(state);
      const double step = 1e-2;
      const auto loss_at = [&](double along) {
        state.copy_(start + direction * along);
        return optimiser.pass(next).loss.item<double>();
      };
      const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
      state.copy_(start);
      const double gradient = (state.grad() * direction).sum().item<double>();
      const double size = state.grad().norm().item<double>();
      EXPECT_NEAR(slope, gradient, 0.02 * std::abs(gradient) + 0.02 * size) << "layer " << layer;
      EXPECT_GT(size, 1e-3);
    }
  }
}

TEST(StateOptimisation, GradientsOfStatesEqualFiniteDifferences) {
  for (const LayerOps* ops : {&plain_ops(), &fused_ops()}) {
    expect_state_gradients_equal_differences(tiny_config(), *ops, 7);
    expect_state_gradients_equal_differences(uneven_config(), *ops, 8);
  }
}

TEST(StateOptimisation, StepsMoveTheStatesOfEarlierTokensOnly) {
  const double rate = 0.01;
  const auto net = test::random_base(9);
  const at::Tensor values = net->values().clone();
  const std::vector<int32_t> text = random_text(31, 10);
  StateOptimiser optimised(*net, {.rate = rate, .memory = 20}), plain(*net, {.steps = 0, .memory = 20});
  for (StateOptimiser* reader : {&optimised, &plain}) {
    reader->read(std::span(text).subspan(0, 16));   // 15 inputs
    reader->read(std::span(text).subspan(15, 16));  // after which 5 of them are evicted
  }
  for (size_t layer = 0; layer < plain.states().size(); ++layer) {
    const auto [k, v] = optimised.states()[layer];
    const auto [plain_k, plain_v] = plain.states()[layer];
    ASSERT_EQ(k.size(1), 20);
    for (const at::Tensor& change : {(k - plain_k).abs(), (v - plain_v).abs()}) {
      EXPECT_EQ(change.narrow(1, 5, 15).max().item<float>(), 0) << "the window's own states moved";
      EXPECT_LT(change.max().item<double>(), 1.001 * rate);
      EXPECT_GT(change.narrow(1, 0, 5).mean().item<double>(), 0.9 * rate) << "a first step of Adam is ±rate";
    }
  }
  EXPECT_TRUE(at::equal(net->values(), values));
}

TEST(StateOptimisation, StepsAreThoseOfAdamAndFollowTheLossOfTheWindow) {
  const auto net = test::random_base(11);
  const std::vector<int32_t> text = random_text(31, 12);
  StateOptimiser optimiser(*net, {.rate = 0.01});
  optimiser.read(std::span(text).first(11));
  AdamW adam(10 * 2 * 8, 0, {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0});
  for (const int64_t begin : {10, 20}) {
    const std::span window = std::span(text).subspan(begin, 11);
    const at::Tensor v = optimiser.states()[1].v;
    v.requires_grad_(true);
    const at::Tensor loss = optimiser.pass(ids_tensor(window)).loss;
    loss.backward();
    at::Tensor oldest = v.detach().narrow(1, 0, 10).clone();  // of the first window
    const at::Tensor gradient = v.grad().narrow(1, 0, 10).contiguous();
    const auto floats_of = [](const at::Tensor& x) { return std::span(x.data_ptr<float>(), x.numel()); };
    adam.step(floats_of(oldest), floats_of(gradient), 0.01);
    EXPECT_EQ(optimiser.read(window).nats, loss.item<double>());
    EXPECT_TRUE(at::allclose(optimiser.states()[1].v.narrow(1, 0, 10), oldest, 0, 1e-5));
  }
}

/// A net that has learned groups of three tokens with random first tokens reads a text in which only two groups
/// occur, in alternation. Optimised states adapt to that: measured 0.28 instead of 0.80 nats per token.
TEST(StateOptimisation, LowersTheLossOfLaterWindowsOfARepetitiveText) {
  const auto net = test::copy_of(test::base_of_triples(), fused_ops());
  std::vector<int32_t> text;
  for (int32_t i = 0; i < 96; ++i) {
    const int32_t a = i % 2 == 0 ? 3 : 8;
    text.insert(text.end(), {a, 12 + a, 24 + 5 * a % 12});
  }
  const auto later = [&](double rate) {
    const std::vector<WindowLoss> windows = window_losses(*net, text, {.window = 3, .rate = rate, .steps = 3});
    return mean_loss(std::span(windows).subspan(48));
  };
  const double without = later(0), with = later(0.15);
  EXPECT_LT(with, 0.8 * without);
}

TEST(StateOptimisation, RejectsBadOptionsTokensAndNets) {
  const auto net = test::random_base(13);
  const std::vector<int32_t> text = random_text(20, 14);
  const auto error = [&](const StateStepOptions& options, std::span<const int32_t> tokens) {
    try {
      window_losses(*net, tokens, options);
    } catch (const Error& rejected) {
      return std::string(rejected.what());
    }
    return std::string();
  };
  EXPECT_EQ(error({}, text), "");
  EXPECT_NE(error({}, {}).find("token after the first"), std::string::npos);
  EXPECT_NE(error({}, std::span(text).first(1)).find("token after the first"), std::string::npos);
  EXPECT_NE(error({.window = 0}, text).find("window is 0"), std::string::npos);
  EXPECT_NE(error({.rate = -0.5}, text).find("-0.5"), std::string::npos);
  EXPECT_NE(error({.rate = std::nan("")}, text).find("nan"), std::string::npos);
  EXPECT_NE(error({.rate = std::numeric_limits<double>::infinity()}, text).find("inf"), std::string::npos);
  EXPECT_NE(error({.steps = -1}, text).find("steps are -1"), std::string::npos);
  EXPECT_NE(error({.memory = -1}, text).find("memory is -1"), std::string::npos);
  for (const int32_t token : {-1, 40}) {
    std::vector<int32_t> other = text;
    other[12] = token;
    EXPECT_NE(error({}, other).find(concat("token ", token, " is not in the model's vocabulary of 40")),
              std::string::npos);
  }
  NetConfig config = tiny_config();
  config.model.landmarks.tokens = 3;
  Net landmarks(config);
  EXPECT_THROW(StateOptimiser(landmarks, {}), Error);
  config = tiny_config();
  config.model.softplus = true;
  Net softplus(config);
  EXPECT_THROW(StateOptimiser(softplus, {}), Error);
}

}  // namespace
}  // namespace fathom::train
