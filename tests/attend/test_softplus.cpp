#include <gtest/gtest.h>

#include <cmath>

#include "attend/attention_mass.h"
#include "attend/forms/softplus_form.h"
#include "base/error.h"
#include "scene.h"

namespace fathom {
namespace {

using test::Attended;
using test::dense_visibility;
using test::Scene;
using test::Visibility;
using test::window_visibility;

constexpr float kScale = 0.5f;

/// The parameters of a softplus form.
struct FormParameters {
  float power, offset;
  SoftplusForm form() const { return {power, offset}; }
};

/// Runs the engine's attention with a softplus form.
Attended attend(const Scene& scene, const FormParameters& softplus, const std::string& spec, int threads = 1,
                AttentionWatcher* watcher = nullptr) {
  const test::SceneShape& s = scene.shape;
  const auto selector = attend_methods().make(spec);
  const SoftplusForm form = softplus.form();
  ThreadPool pool(threads);
  Attention attention(pool, kernels());
  Attended result;
  result.out.assign(s.rows * s.heads * s.value_dim, NAN);
  result.lse.assign(s.rows * s.heads, NAN);
  AttentionInput input;
  input.sequence = &scene.sequence;
  input.kv = &scene.sequence.kv(0);
  input.heads = s.heads;
  input.rows = s.rows;
  input.positions = scene.positions.data() + scene.first_row();
  input.queries = scene.queries.data();
  input.query_stride = static_cast<int64_t>(s.heads) * s.key_dim;
  input.form = &form;
  input.scale = kScale;
  input.selector = selector.get();
  input.watcher = watcher;
  input.out = result.out.data();
  input.lse = result.lse.data();
  attention.run({&input, 1});
  return result;
}

double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }

/// Returns the weights of one row by the definition, in double. scores: of the visible tokens; tokens: length of
/// the sequence up to the row.
std::vector<double> row_weights(const std::vector<double>& scores, int64_t tokens, const FormParameters& form) {
  std::vector<double> weights;
  double sum = 0;
  for (const double score : scores) sum += weights.emplace_back(softplus(score));
  for (double& w : weights) w /= sum;
  if (form.power == 0) return weights;
  double sharp = 0;
  for (double& w : weights) {
    w = std::pow(std::max(0.0, static_cast<double>(tokens) * w - (tokens > 3 ? form.offset : 0)), form.power);
    sharp += w;
  }
  for (double& w : weights) w /= sharp;
  return weights;
}

void rotate(const Scene& scene, const float* x, int64_t position, std::vector<double>& out) {
  out.assign(x, x + scene.shape.key_dim);
  for (int i = 0; i < scene.rotary.pairs(); ++i) {
    const double angle = static_cast<double>(position) * scene.rotary.frequencies()[i];
    out[2 * i] = x[2 * i] * std::cos(angle) - x[2 * i + 1] * std::sin(angle);
    out[2 * i + 1] = x[2 * i] * std::sin(angle) + x[2 * i + 1] * std::cos(angle);
  }
}

/// Returns the attention outputs by the definition: [rows, heads, value_dim].
std::vector<float> by_definition(const Scene& scene, const FormParameters& form, const Visibility& visible) {
  const test::SceneShape& s = scene.shape;
  std::vector<float> out;
  std::vector<double> query, key;
  for (int64_t r = 0; r < s.rows; ++r) {
    const int64_t index = scene.first_row() + r;
    for (int h = 0; h < s.heads; ++h) {
      const int kv_head = h / scene.group();
      rotate(scene, scene.queries.data() + (r * s.heads + h) * s.key_dim, scene.positions[index], query);
      std::vector<int64_t> tokens_attended;
      std::vector<double> scores;
      for (int64_t t = 0; t <= index; ++t) {
        if (scene.is_masked(t, kv_head) || !visible(index, t)) continue;
        rotate(scene, scene.keys.data() + (t * s.kv_heads + kv_head) * s.key_dim, scene.positions[t], key);
        double score = 0;
        for (int d = 0; d < s.key_dim; ++d) score += query[d] * key[d];
        tokens_attended.push_back(t);
        scores.push_back(score * kScale * std::log(static_cast<double>(index + 1)));
      }
      const std::vector<double> weights = row_weights(scores, index + 1, form);
      for (int d = 0; d < s.value_dim; ++d) {
        double sum = 0;
        for (size_t i = 0; i < tokens_attended.size(); ++i)
          sum += weights[i] * scene.values[(tokens_attended[i] * s.kv_heads + kv_head) * s.value_dim + d];
        out.push_back(static_cast<float>(sum));
      }
    }
  }
  return out;
}

void expect_close(const std::vector<float>& found, const std::vector<float>& expected, float tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(found[i], expected[i], tolerance * (1 + std::fabs(expected[i]))) << i;
}

const std::vector<FormParameters> kForms{{0, 1}, {3, 1}, {15, 1}, {2, 0.5f}};

TEST(SoftplusAttention, EqualsTheDefinitionInBlocksPartsAndWindows) {
  // all rows of a sequence; few queries over enough pages for several parts; many rows, with masked tokens
  for (const test::SceneShape& shape :
       {test::SceneShape{.tokens = 150, .rows = 150}, test::SceneShape{.tokens = 3000, .rows = 2},
        test::SceneShape{
            .rotary_dim = 8, .tokens = 400, .rows = 70, .gaps = 0.1, .masked = 0.1, .position = 128}}) {
    const Scene scene(shape);
    for (const FormParameters& form : kForms) {
      SCOPED_TRACE(testing::Message() << shape.tokens << " tokens, power " << form.power);
      expect_close(attend(scene, form, "dense").out, by_definition(scene, form, dense_visibility()), 2e-4f);
      expect_close(attend(scene, form, "window:sink=2,window=50").out,
                   by_definition(scene, form, window_visibility(2, 50)), 2e-4f);
    }
  }
}

TEST(SoftplusAttention, ResultsDoNotDependOnTheNumberOfThreads) {
  for (const test::SceneShape& shape :
       {test::SceneShape{.tokens = 3000, .rows = 2}, test::SceneShape{.tokens = 300, .rows = 200}}) {
    const Scene scene(shape);
    const Attended one = attend(scene, {3, 1}, "dense"), four = attend(scene, {3, 1}, "dense", 4);
    EXPECT_EQ(one.out, four.out);
    EXPECT_EQ(one.lse, four.lse);
  }
}

TEST(SoftplusAttention, ObservedSharesSumToOnePerQuery) {
  const Scene scene({.tokens = 400, .rows = 3});
  for (const FormParameters& form : kForms) {
    AttentionMass mass({1}, scene.shape.kv_heads, 0);
    attend(scene, form, "dense", 1, &mass);
    double total = 0;
    for (int head = 0; head < scene.shape.kv_heads; ++head)
      for (const double share : mass.mass(0, head, 400)) total += share;
    EXPECT_NEAR(total, 3.0 * scene.shape.heads, 1e-3) << form.power;
  }
}

AttendContext context_of(bool softplus) {
  AttendContext context = AttendContext::uniform(4, AttendLayer{4, 2, {PageFormat::kF32, 16, 16}});
  context.softplus = softplus;
  return context;
}

/// Returns the power of a softplus form; −1 if `form` is null.
float power_of(const AttentionForm* form) {
  if (!form) return -1;
  const WeightFunction weights = form->weights(kernels(), {});
  EXPECT_EQ(weights.apply, kernels().softplus_weights);
  return weights.constants[0];
}

TEST(SoftplusAttention, WrappersForwardTheFormOfTheirSelectors) {
  const auto made = [&](const std::string& spec) {
    auto selector = attend_methods().make(spec);
    selector->attach(context_of(true));
    return selector;
  };
  EXPECT_EQ(power_of(made("dense")->form(0)), -1);
  EXPECT_EQ(power_of(made("softplus")->form(0)), 15);
  EXPECT_EQ(power_of(made("tempscale:then=(softplus:power=7)")->form(0)), 7);
  const auto layers = made("layers:full=1,then=(softplus:power=7),else=dense");
  EXPECT_EQ(power_of(layers->form(1)), 7);
  EXPECT_EQ(power_of(layers->form(0)), -1);
}

TEST(SoftplusAttention, RefusesSoftmaxModelsAndInvalidValues) {
  const auto error_of = [](const std::string& spec) -> std::string {
    try {
      attend_methods().make(spec)->attach(context_of(false));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kUsage);
      return error.what();
    }
    return "";
  };
  EXPECT_NE(error_of("softplus:power=3").find("trained with softmax"), std::string::npos);
  EXPECT_NE(error_of("tempscale:then=softplus").find("trained with softmax"), std::string::npos);
  EXPECT_NE(error_of("softplus:power=-1").find("power"), std::string::npos);
  EXPECT_NE(error_of("softplus:then=densee").find("dense"), std::string::npos);
}

}  // namespace
}  // namespace fathom
