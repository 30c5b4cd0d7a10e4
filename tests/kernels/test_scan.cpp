// State-space kernels, compared with their definition in double, for any split of the rows, and at extreme decays.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/aligned.h"
#include "random_rows.h"

namespace fathom {
namespace {

using test::gaussian;
using Floats = std::vector<float>;

class ScanOnEachIsa : public testing::TestWithParam<std::string> {
 protected:
  const Kernels& table() const { return kernels(GetParam()); }
};

/// Expects |a − b| to be within `tolerance` of the largest of a.
void expect_near(const Floats& a, const Floats& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  double largest = 0;
  for (const float v : a) largest = std::max(largest, std::abs(static_cast<double>(v)));
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance * largest) << i << " of " << a.size();
}

/// Ways to split the rows of a sequence into calls.
const std::vector<int64_t> kSplits[] = {{1, 1, 1, 1, 1}, {2, 100}, {100}, {33, 1, 64}, {3, 2, 100}};

/// Calls body(first, rows) for each part of `total` rows.
template <class Body>
void for_parts(const std::vector<int64_t>& split, int64_t total, const Body& body) {
  int64_t first = 0;
  for (const int64_t part : split) {
    const int64_t rows = std::min(part, total - first);
    if (rows > 0) body(first, rows);
    first += rows;
  }
  if (first < total) body(first, total - first);
}

struct ConvProblem {
  int64_t rows, channels;
  int width;
  bool silu, with_bias;
  int64_t stride = channels + 3;  // the floats between the rows must not change
  Floats x = gaussian(rows * stride, 1), weight = gaussian(channels * width, 2), bias = gaussian(channels, 3);
  Floats ring = gaussian(std::max(1, width - 1) * channels, 4);

  struct Result {
    Floats y, ring;
    bool operator==(const Result&) const = default;
  };
  Result run(const Kernels& table, const std::vector<int64_t>& split, int64_t channel_split) const {
    Result result{Floats(rows * stride, 5.0f), ring};
    for_parts(split, rows, [&](int64_t first, int64_t count) {
      ConvTask task{.rows = count, .channels = channels, .width = width, .silu = silu};
      task.x = x.data() + first * stride;
      task.x_stride = task.y_stride = stride;
      task.weight = weight.data();
      task.bias = with_bias ? bias.data() : nullptr;
      task.ring = result.ring.data();
      task.y = result.y.data() + first * stride;
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, channel_split}, {channel_split, channels}}) {
        task.begin = begin;
        task.end = end;
        table.causal_conv(task);
      }
    });
    return result;
  }
  /// Returns the result by definition, from the inputs of the ring and those of x.
  Result expected() const {
    Result result{Floats(rows * stride, 5.0f), ring};
    const int64_t before = width - 1;
    const auto input = [&](int64_t r, int64_t c) {
      return r < 0 ? ring[(r + before) * channels + c] : x[r * stride + c];
    };
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t r = 0; r < rows; ++r) {
        double sum = with_bias ? bias[c] : 0;
        for (int64_t k = 0; k < width; ++k)
          sum += static_cast<double>(weight[c * width + k]) * input(r - before + k, c);
        result.y[r * stride + c] = static_cast<float>(silu ? sum / (1 + std::exp(-sum)) : sum);
      }
      for (int64_t k = 0; k < before; ++k) result.ring[k * channels + c] = input(rows - before + k, c);
    }
    return result;
  }
};

TEST_P(ScanOnEachIsa, ConvolutionMatchesItsDefinitionForEveryWidthAndKeepsTheLastInputs) {
  for (const int64_t rows : {1, 2, 5, 40}) {
    for (int width = 1; width <= kMaxConvWidth; ++width) {
      for (const int64_t channels : {1, 16, 53}) {
        SCOPED_TRACE(testing::Message() << rows << " rows, width " << width << ", " << channels << " channels");
        const ConvProblem conv{rows, channels, width, width % 2 == 0, width % 3 != 0};
        const auto expected = conv.expected(), found = conv.run(table(), {rows}, channels);
        expect_near(expected.y, found.y, 1e-6);
        EXPECT_EQ(expected.ring, found.ring);
      }
    }
  }
}

TEST_P(ScanOnEachIsa, ConvolutionHasTheSameBitsForAnySplit) {
  for (const int width : {2, 4, 8}) {
    const ConvProblem conv{70, 37, width, true, true};
    const auto whole = conv.run(table(), {70}, 37);
    for (const auto& split : kSplits) {
      for (const int64_t channel_split : {0, 3, 16, 36}) EXPECT_EQ(conv.run(table(), split, channel_split), whole);
    }
  }
}

/// A problem of Mamba-1. dt is near 0.1, unless a test replaces it.
struct MambaProblem {
  int64_t rows, channels, state;
  int64_t stride = channels + 1, state_stride = state + 2;
  Floats x = gaussian(rows * stride, 1), dt = positive(gaussian(rows * stride, 2, 0.1f)),
         a = negative(gaussian(channels * state, 3, 4.0f)), b = gaussian(rows * state_stride, 4),
         c = gaussian(rows * state_stride, 5), d = gaussian(channels, 6), h = gaussian(channels * state, 7);

  static Floats positive(Floats values) {
    for (float& v : values) v = std::abs(v);
    return values;
  }
  static Floats negative(Floats values) {
    for (float& v : values) v = -std::abs(v);
    return values;
  }

  struct Result {
    Floats y, h;
    bool operator==(const Result&) const = default;
  };
  Result run(const Kernels& table, const std::vector<int64_t>& split, int64_t channel_split,
             bool in_place = false) const {
    Result result{in_place ? x : Floats(rows * stride), h};
    for (int64_t r = 0; r < rows; ++r) result.y[r * stride + channels] = x[r * stride + channels];
    for_parts(split, rows, [&](int64_t first, int64_t count) {
      SelectiveScan task{.rows = count, .state = state};
      task.x = (in_place ? result.y.data() : x.data()) + first * stride;
      task.dt = dt.data() + first * stride;
      task.x_stride = task.dt_stride = task.y_stride = stride;
      task.a = a.data();
      task.b = b.data() + first * state_stride;
      task.c = c.data() + first * state_stride;
      task.b_stride = task.c_stride = state_stride;
      task.d = d.empty() ? nullptr : d.data();
      task.h = result.h.data();
      task.y = result.y.data() + first * stride;
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, channel_split}, {channel_split, channels}}) {
        task.begin = begin;
        task.end = end;
        table.selective_scan(task);
      }
    });
    return result;
  }
  /// Returns the result by definition, with the state in double.
  Result expected() const {
    Result result{Floats(rows * stride), h};
    std::vector<double> state_of_all(h.begin(), h.end());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t ch = 0; ch < channels; ++ch) {
        const double step = dt[r * stride + ch], input = x[r * stride + ch];
        double sum = d.empty() ? 0 : d[ch] * input;
        for (int64_t n = 0; n < state; ++n) {
          double& element = state_of_all[ch * state + n];
          element = std::exp(step * a[ch * state + n]) * element + step * input * b[r * state_stride + n];
          sum += element * c[r * state_stride + n];
        }
        result.y[r * stride + ch] = static_cast<float>(sum);
      }
      result.y[r * stride + channels] = x[r * stride + channels];
    }
    result.h.assign(state_of_all.begin(), state_of_all.end());
    return result;
  }
};

TEST_P(ScanOnEachIsa, SelectiveScanMatchesItsDefinition) {
  for (const int64_t state : {1, 8, 16, 20, 64}) {
    for (const int64_t channels : {1, 6, 19}) {
      SCOPED_TRACE(testing::Message() << channels << " channels, state " << state);
      MambaProblem problem{50, channels, state};
      if (channels == 6) problem.d.clear();
      const auto expected = problem.expected(), found = problem.run(table(), {50}, channels);
      expect_near(expected.y, found.y, 1e-5);
      expect_near(expected.h, found.h, 1e-5);
    }
  }
}

TEST_P(ScanOnEachIsa, SelectiveScanHasTheSameBitsForAnySplitAndInPlace) {
  const MambaProblem problem{70, 11, 16};
  const auto whole = problem.run(table(), {70}, 11);
  for (const auto& split : kSplits) {
    for (const int64_t channel_split : {0, 1, 4, 7}) EXPECT_EQ(problem.run(table(), split, channel_split), whole);
  }
  EXPECT_EQ(problem.run(table(), {70}, 11, true), whole);
}

TEST_P(ScanOnEachIsa, SelectiveScanClearsTheStateWithALargeStepAndKeepsItWithAZeroStep) {
  MambaProblem problem{1, 5, 16};
  for (float& v : problem.a) v = std::min(v, -0.01f);
  std::fill(problem.x.begin(), problem.x.end(), 0.0f);
  for (const float large : {1e6f, 1e30f}) {
    std::fill(problem.dt.begin(), problem.dt.end(), large);
    EXPECT_EQ(problem.run(table(), {1}, 5).h, Floats(problem.h.size(), 0.0f)) << large;
  }
  std::fill(problem.dt.begin(), problem.dt.end(), 0.0f);
  EXPECT_EQ(problem.run(table(), {1}, 5).h, problem.h);
}

/// A problem of Mamba-2.
struct SsdProblem {
  int64_t rows, width, state;
  int64_t stride = width + 1, state_stride = state + 2, dt_stride = 3;
  float a = -0.7f, d = 0.6f;
  Floats x = gaussian(rows * stride, 1), dt = MambaProblem::positive(gaussian(rows * dt_stride, 2, 0.3f)),
         b = gaussian(rows * state_stride, 4), c = gaussian(rows * state_stride, 5), h = gaussian(width * state, 7);

  using Result = MambaProblem::Result;
  enum class Form { kScan, kChunk, kChunkOfProducts };

  Result run(const Kernels& table, Form form, const std::vector<int64_t>& split, bool in_place = false) const {
    Result result{in_place ? x : Floats(rows * stride), h};
    AlignedBuffer<float> scratch(ssd_scratch(width, state));
    std::fill_n(scratch.data(), scratch.size(), NAN);
    for (int64_t r = 0; r < rows; ++r) result.y[r * stride + width] = x[r * stride + width];
    for_parts(split, rows, [&](int64_t first, int64_t count) {
      SsdHead task{.rows = count, .width = width, .state = state, .a = a, .d = d};
      task.x = (in_place ? result.y.data() : x.data()) + first * stride;
      task.x_stride = task.y_stride = stride;
      task.dt = dt.data() + first * dt_stride;
      task.dt_stride = dt_stride;
      task.b = b.data() + first * state_stride;
      task.c = c.data() + first * state_stride;
      task.b_stride = task.c_stride = state_stride;
      task.h = result.h.data();
      task.y = result.y.data() + first * stride;
      Floats products;
      if (form == Form::kChunkOfProducts) {
        products.assign(count * kSsdBlock, NAN);
        table.ssd_products({count, state, task.b, state_stride, task.c, state_stride, products.data()},
                           scratch.data());
        task.products = products.data();
      }
      form == Form::kScan ? table.ssd_scan(task) : table.ssd_chunk(task, scratch.data());
    });
    return result;
  }
  /// Returns the result by definition, with the state in double.
  Result expected() const {
    Result result{Floats(rows * stride), h};
    std::vector<double> state_of_all(h.begin(), h.end());
    for (int64_t r = 0; r < rows; ++r) {
      const double step = dt[r * dt_stride], decay = std::exp(step * a);
      for (int64_t p = 0; p < width; ++p) {
        const double input = x[r * stride + p];
        double sum = d * input;
        for (int64_t n = 0; n < state; ++n) {
          double& element = state_of_all[p * state + n];
          element = decay * element + step * input * b[r * state_stride + n];
          sum += element * c[r * state_stride + n];
        }
        result.y[r * stride + p] = static_cast<float>(sum);
      }
      result.y[r * stride + width] = x[r * stride + width];
    }
    result.h.assign(state_of_all.begin(), state_of_all.end());
    return result;
  }
};

constexpr SsdProblem::Form kForms[] = {SsdProblem::Form::kScan, SsdProblem::Form::kChunk,
                                       SsdProblem::Form::kChunkOfProducts};

void expect_head(const Kernels& table, const SsdProblem& problem) {
  const auto expected = problem.expected();
  for (const SsdProblem::Form form : kForms) {
    SCOPED_TRACE(testing::Message() << problem.rows << " rows, " << problem.width << "×" << problem.state
                                    << ", form " << static_cast<int>(form));
    const auto found = problem.run(table, form, {problem.rows});
    expect_near(expected.y, found.y, 1e-5);
    expect_near(expected.h, found.h, 1e-5);
  }
}

TEST_P(ScanOnEachIsa, SsdMatchesItsDefinitionInEveryForm) {
  struct Shape {
    int64_t rows, width, state;
  };
  for (const Shape& s : {Shape{1, 64, 128}, {200, 64, 128}, {33, 16, 16}, {70, 5, 7}, {31, 33, 70}, {300, 32, 64}})
    expect_head(table(), {s.rows, s.width, s.state});
}

TEST_P(ScanOnEachIsa, SsdScanHasTheSameBitsForAnySplitAndInPlace) {
  const SsdProblem problem{70, 19, 40};
  const auto whole = problem.run(table(), SsdProblem::Form::kScan, {70});
  for (const auto& split : kSplits) EXPECT_EQ(problem.run(table(), SsdProblem::Form::kScan, split), whole);
  EXPECT_EQ(problem.run(table(), SsdProblem::Form::kScan, {70}, true), whole);
}

TEST_P(ScanOnEachIsa, SsdChunkCarriesItsStateAndWorksInPlace) {
  const SsdProblem problem{150, 19, 40};
  const auto whole = problem.run(table(), SsdProblem::Form::kChunk, {150});
  for (const auto& split : kSplits) {
    const auto parts = problem.run(table(), SsdProblem::Form::kChunk, split);
    expect_near(whole.y, parts.y, 1e-5);
    expect_near(whole.h, parts.h, 1e-5);
  }
  EXPECT_EQ(problem.run(table(), SsdProblem::Form::kChunk, {150}, true), whole);
  // blocks begin with the call, so parts of whole blocks are the same computation
  EXPECT_EQ(problem.run(table(), SsdProblem::Form::kChunk, {2 * kSsdBlock, kSsdBlock}), whole);
}

TEST_P(ScanOnEachIsa, SsdChunkIsCausal) {
  const SsdProblem problem{90, 32, 32};
  SsdProblem other = problem;
  const auto whole = problem.run(table(), SsdProblem::Form::kChunk, {90});
  for (int64_t i = 45 * problem.stride; i < 90 * problem.stride; ++i) other.x[i] = 100;
  for (int64_t i = 45 * problem.state_stride; i < 90 * problem.state_stride; ++i) other.b[i] = -100;
  for (int64_t i = 45 * problem.dt_stride; i < 90 * problem.dt_stride; ++i) other.dt[i] = 7;
  const auto changed = other.run(table(), SsdProblem::Form::kChunk, {90});
  EXPECT_TRUE(std::equal(whole.y.begin(), whole.y.begin() + 45 * problem.stride, changed.y.begin()));
}

TEST_P(ScanOnEachIsa, SsdMatchesItsDefinitionForExtremeSteps) {
  SsdProblem strong_decay{100, 16, 32};
  strong_decay.a = -50;
  for (int64_t r = 0; r < strong_decay.rows; r += 7)
    strong_decay.dt[r * strong_decay.dt_stride] = 1000;  // the decay is 0
  for (int64_t r = 3; r < strong_decay.rows; r += 7) strong_decay.dt[r * strong_decay.dt_stride] = 0;
  expect_head(table(), strong_decay);

  // steps after one that clears the state keep their own decays, however large that step is
  SsdProblem precise{40, 16, 32};
  std::fill(precise.x.begin(), precise.x.begin() + 6 * precise.stride, 0.0f);
  precise.dt[5 * precise.dt_stride] = 1e30f;
  expect_head(table(), precise);

  SsdProblem zero_steps{40, 16, 32};
  std::fill(zero_steps.dt.begin(), zero_steps.dt.end(), 0.0f);
  for (const SsdProblem::Form form : kForms) EXPECT_EQ(zero_steps.run(table(), form, {40}).h, zero_steps.h);
}

TEST_P(ScanOnEachIsa, ZeroRowsChangeNothing) {
  const SsdProblem head{0, 16, 32};
  for (const SsdProblem::Form form : kForms) EXPECT_EQ(head.run(table(), form, {0}).h, head.h);
  const MambaProblem mamba{0, 5, 16};
  EXPECT_EQ(mamba.run(table(), {0}, 5).h, mamba.h);
  const ConvProblem conv{0, 20, 4, true, true};
  EXPECT_EQ(conv.run(table(), {0}, 20).ring, conv.ring);
}

INSTANTIATE_TEST_SUITE_P(Isa, ScanOnEachIsa, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace fathom
