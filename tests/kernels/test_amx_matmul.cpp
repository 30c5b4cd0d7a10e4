#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <thread>

#include "amx_emulator.h"
#include "kernels/matmul.h"
#include "random_rows.h"

namespace fathom {
namespace {

using test::AmxEmulator;
using test::gaussian;
using test::kAllTypes;
using test::OwnedMatrix;

/// Runs the tile kernels on the processor, or on the emulator.
class AmxMatmul : public testing::Test {
 protected:
  void SetUp() override {
    const std::optional<Kernels> table = amx_kernels();
    if (!table || !AmxEmulator::possible()) GTEST_SKIP() << "no AMX available, and no emulation of it";
    emulator_ = std::make_unique<AmxEmulator>();
    table_ = *table;
  }
  /// Returns y = x·Wᵀ computed on tiles: [x_rows, w.rows].
  std::vector<float> product(const Matrix& w, const std::vector<float>& x, int64_t x_rows, int threads = 1) {
    ThreadPool pool(threads);
    ActivationBuffer rows;
    rows.resize(x_rows, w.cols);
    std::copy(x.begin(), x.end(), rows.data());
    std::vector<float> y(x_rows * w.rows, NAN);
    const Product products[] = {{&w, y.data()}};
    matmul(pool, table_, rows, products);
    return y;
  }

  std::unique_ptr<AmxEmulator> emulator_;
  Kernels table_;
};

/// Expects |found − Σ w·x| to be at most 4 · error · √Σ (w·x)²: four standard deviations, if each factor is rounded
/// by a relative `error`.
void expect_close(const Matrix& w, const std::vector<float>& x, const std::vector<float>& found, int64_t x_rows,
                  double error) {
  std::vector<float> row(w.cols);
  for (int64_t r = 0; r < w.rows; ++r) {
    dequantize_row(w.type, w.row(r), row.data(), w.cols);
    for (int64_t i = 0; i < x_rows; ++i) {
      double sum = 0, squares = 0;
      for (int64_t k = 0; k < w.cols; ++k) {
        const double term = static_cast<double>(row[k]) * x[i * w.cols + k];
        sum += term;
        squares += term * term;
      }
      ASSERT_NEAR(found[i * w.rows + r], sum, 4 * error * std::sqrt(squares) + 1e-6)
          << "row " << r << ", token " << i;
    }
  }
}

TEST_F(AmxMatmul, IsWithinRoundingOfTheExactProductForEveryTypeAndShape) {
  for (const WeightType type : kAllTypes) {
    struct Shape {
      int64_t rows, cols, x_rows;
    };
    std::vector<Shape> shapes = {{16, 256, 9}, {37, 1280, 33}, {70, 512, 16}, {5, 768, 70}};
    if (info(type).block < 256) shapes.push_back({33, 96, 17});
    if (info(type).block == 1) shapes.push_back({19, 77, 21});
    for (const Shape& shape : shapes) {
      SCOPED_TRACE(testing::Message() << info(type).name << " " << shape.rows << "×" << shape.cols << ", "
                                      << shape.x_rows << " rows");
      const OwnedMatrix w(type, shape.rows, shape.cols, 7);
      const std::vector<float> x = gaussian(shape.x_rows * shape.cols, 11);
      // bfloat16 rounds by at most 2⁻⁸; with the remainders, by at most its square
      expect_close(w.matrix, x, product(w.matrix, x, shape.x_rows), shape.x_rows,
                   is_float(type) ? std::ldexp(1, -16) : std::ldexp(1, -8));
    }
  }
}

TEST_F(AmxMatmul, RoundsLessThanEightBitActivations) {
  constexpr int64_t kRows = 64, kTokens = 32;
  const OwnedMatrix w(WeightType::kQ4_K, kRows, 1024, 5);
  const std::vector<float> x = gaussian(kTokens * 1024, 6);
  const test::OwnedActivations eight_bits(x, kTokens, 1024);
  std::vector<float> by_eight_bits(kTokens * kRows);
  kernels("reference").matvec(w.matrix, 0, kRows, eight_bits.view, by_eight_bits.data(), kRows);
  const std::vector<float> by_tiles = product(w.matrix, x, kTokens);
  double error_of_tiles = 0, error_of_eight_bits = 0;
  std::vector<float> row(1024);
  for (int64_t r = 0; r < kRows; ++r) {
    dequantize_row(w.matrix.type, w.matrix.row(r), row.data(), 1024);
    for (int64_t i = 0; i < kTokens; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < 1024; ++k) sum += static_cast<double>(row[k]) * x[i * 1024 + k];
      error_of_tiles += std::pow(by_tiles[i * kRows + r] - sum, 2);
      error_of_eight_bits += std::pow(by_eight_bits[i * kRows + r] - sum, 2);
    }
  }
  EXPECT_LT(std::sqrt(error_of_tiles), 0.5 * std::sqrt(error_of_eight_bits));
}

TEST_F(AmxMatmul, ResultsDoNotDependOnBlocksThreadsOrOtherTokens) {
  // more than kBlockRows rows, kBlockTokens tokens and kBlockColumns columns
  const OwnedMatrix w(WeightType::kQ4_K, 300, 768, 3);
  const std::vector<float> x = gaussian(530 * 768, 4);
  const std::vector<float> whole = product(w.matrix, x, 530);
  expect_close(w.matrix, x, whole, 530, std::ldexp(1, -8));
  EXPECT_EQ(whole, product(w.matrix, x, 530, 2)) << "the division among threads must not matter";
  const std::vector<float> few(x.begin() + 500 * 768, x.end());
  const std::vector<float> tail = product(w.matrix, few, 30);
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), whole.begin() + 500 * 300))
      << "the other tokens must not matter";
}

}  // namespace
}  // namespace fathom
