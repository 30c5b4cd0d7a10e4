#include "kernels/expert_matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>

#include "amx_emulator.h"
#include "random_rows.h"
#include "seed.h"

namespace fathom {
namespace {

using test::AmxEmulator;
using test::gaussian;
using test::OwnedMatrix;

constexpr WeightType kTypes[] = {WeightType::kF32, WeightType::kF16, WeightType::kQ8_0, WeightType::kQ4_K,
                                 WeightType::kMXFP4};

/// Rows of activations routed to experts, with the weights of two products.
struct RoutedProblem {
  /// rows_of_experts: the number of rows of each. Weights of experts without rows are null: they must not be read.
  RoutedProblem(WeightType type, std::vector<int64_t> rows_of_experts, int64_t rows, int64_t more_rows,
                int64_t columns)
      : sizes(std::move(rows_of_experts)), shapes{rows, more_rows}, cols(columns) {
    offsets.push_back(0);
    for (const int64_t size : sizes) offsets.push_back(offsets.back() + size);
    x = gaussian(offsets.back() * cols, 3);
    for (int p = 0; p < 2; ++p) {
      for (size_t e = 0; e < sizes.size(); ++e) {
        const auto seed = static_cast<uint32_t>(10 * e + p);
        owned.push_back(std::make_unique<OwnedMatrix>(type, shapes[p], cols, seed));
        experts[p].push_back(owned.back()->matrix);
        if (sizes[e] == 0) experts[p].back().data = nullptr;
      }
    }
    bias = gaussian(static_cast<int64_t>(sizes.size()) * rows, 4);
  }

  /// Returns the results of the first product, which has a bias, and of the second.
  std::vector<std::vector<float>> run(const Kernels& table, int threads) const {
    ThreadPool pool(threads);
    ActivationBuffer buffer;
    buffer.resize(offsets.back(), cols);
    std::copy(x.begin(), x.end(), buffer.data());
    std::vector<std::vector<float>> y;
    for (const int64_t rows : shapes) y.emplace_back(offsets.back() * rows, NAN);
    const ExpertProduct products[] = {{experts[0].data(), y[0].data(), bias.data()},
                                      {experts[1].data(), y[1].data()}};
    expert_matmul(pool, table, buffer, offsets, products);
    return y;
  }

  /// Expects the results to be Σ w·x (+ bias), with each factor rounded by a relative `error`.
  void expect_close(const std::vector<std::vector<float>>& y, double error) const {
    std::vector<float> weights(cols);
    for (int p = 0; p < 2; ++p) {
      for (size_t e = 0; e < sizes.size(); ++e) {
        for (int64_t r = 0; sizes[e] > 0 && r < shapes[p]; ++r) {
          dequantize_row(experts[p][e].type, experts[p][e].row(r), weights.data(), cols);
          for (int64_t i = offsets[e]; i < offsets[e + 1]; ++i) {
            double sum = p == 0 ? bias[static_cast<int64_t>(e) * shapes[0] + r] : 0, squares = 0;
            for (int64_t k = 0; k < cols; ++k) {
              const double term = static_cast<double>(weights[k]) * x[i * cols + k];
              sum += term;
              squares += term * term;
            }
            ASSERT_NEAR(y[p][i * shapes[p] + r], sum, 5 * error * std::sqrt(squares) + 1e-5)
                << "product " << p << ", expert " << e << ", row " << r << ", token " << i;
          }
        }
      }
    }
  }

  std::vector<int64_t> sizes, shapes;
  int64_t cols;
  std::vector<int64_t> offsets;
  std::vector<float> x, bias;
  std::vector<std::unique_ptr<OwnedMatrix>> owned;
  std::vector<Matrix> experts[2];
};

/// Groups on both sides of kMatvecRows and of a tile, and experts without rows.
const std::vector<int64_t> kSizes[] = {{0, 1, 3, 0, 8, 9, 0}, {17, 0, 16, 40, 2}, {0, 0, 33, 0}, {1}, {0, 0}};

void expect_experts(const Kernels& table, double float_error, double quantised_error) {
  for (const WeightType type : kTypes) {
    for (const auto& sizes : kSizes) {
      SCOPED_TRACE(testing::Message() << info(type).name << ", " << sizes.size() << " experts");
      const RoutedProblem routing(type, sizes, 50, 70, 256);
      const auto y = routing.run(table, 1);
      routing.expect_close(y, is_float(type) ? float_error : quantised_error);
      for (const int threads : {2, 3}) EXPECT_EQ(routing.run(table, threads), y) << threads << " threads";
    }
  }
}

class ExpertsOnEachIsa : public testing::TestWithParam<std::string> {};

TEST_P(ExpertsOnEachIsa, MultiplyEachRowWithItsExpertForAnyNumberOfThreads) {
  expect_experts(kernels(GetParam()), std::ldexp(1, -16), std::ldexp(1, -7));
}

TEST_P(ExpertsOnEachIsa, RandomRoutingsEqualSeparateProductsOfEachExpert) {
  const Kernels& table = kernels(GetParam());
  std::mt19937 random(test::seed(7));
  for (int round = 0; round < 5; ++round) {
    std::vector<int64_t> sizes(1 + random() % 9);
    for (int64_t& size : sizes) size = random() % 3 == 0 ? 0 : static_cast<int64_t>(random() % 24);
    const RoutedProblem routing(kTypes[round], sizes, 33, 96, 512);
    const auto y = routing.run(table, 2);
    ThreadPool pool(1);
    for (size_t e = 0; e < sizes.size(); ++e) {
      if (sizes[e] == 0) continue;
      ActivationBuffer rows;
      rows.resize(sizes[e], 512);
      std::copy_n(routing.x.begin() + routing.offsets[e] * 512, sizes[e] * 512, rows.data());
      std::vector<float> alone(sizes[e] * 96);
      const Product products[] = {{&routing.experts[1][e], alone.data()}};
      matmul(pool, table, rows, products);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), y[1].begin() + routing.offsets[e] * 96)) << e;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, ExpertsOnEachIsa, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

TEST(ExpertsOnTiles, MultiplyEachRowWithItsExpertForAnyNumberOfThreads) {
  const std::optional<Kernels> table = amx_kernels();
  if (!table || !AmxEmulator::possible()) GTEST_SKIP() << "no AMX available, and no emulation of it";
  const AmxEmulator emulator;
  expect_experts(*table, std::ldexp(1, -16), std::ldexp(1, -7));
}

}  // namespace
}  // namespace fathom
