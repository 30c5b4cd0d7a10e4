#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "random_rows.h"
#include "seed.h"

namespace fathom {
namespace {

using test::gaussian;
using test::kAllTypes;
using test::OwnedActivations;
using test::OwnedMatrix;

struct MatmulShape {
  int64_t rows, cols, x_rows;
};

class MatmulOnEachIsa : public testing::TestWithParam<std::string> {};

void expect_products_agree(const Kernels& fast, WeightType type, MatmulShape shape) {
  SCOPED_TRACE(testing::Message() << info(type).name << " " << shape.rows << "×" << shape.cols << ", "
                                  << shape.x_rows << " rows");
  const OwnedMatrix w(type, shape.rows, shape.cols, 7);
  const std::vector<float> values = gaussian(shape.x_rows * shape.cols, 11);
  const OwnedActivations plain(values, shape.x_rows, shape.cols), x(values, shape.x_rows, shape.cols, fast);
  std::vector<float> expected(shape.x_rows * shape.rows), found(expected.size(), NAN);
  kernels("reference").matvec(w.matrix, 0, shape.rows, plain.view, expected.data(), shape.rows);
  const float tolerance = 2e-6f * std::sqrt(static_cast<float>(shape.cols)) * 0.05f * 40;
  for (const bool panels : {false, true}) {
    std::fill(found.begin(), found.end(), NAN);
    (panels ? fast.matmul : fast.matvec)(w.matrix, 0, shape.rows, x.view, found.data(), shape.rows);
    for (size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(expected[i], found[i], tolerance) << (panels ? "panels, " : "rows, ") << i;
  }
}

TEST_P(MatmulOnEachIsa, EqualsReferenceForEveryWeightType) {
  for (const WeightType type : kAllTypes) {
    const int64_t block = info(type).block;
    for (const MatmulShape shape :
         {MatmulShape{16, 256, 1}, MatmulShape{37, 1280, 3}, MatmulShape{64, 2304, 13}, MatmulShape{5, 512, 8}}) {
      expect_products_agree(kernels(GetParam()), type, shape);
    }
    if (block < 256) expect_products_agree(kernels(GetParam()), type, {33, 192, 7});
    if (block == 1) expect_products_agree(kernels(GetParam()), type, {19, 77, 7});
  }
}

TEST_P(MatmulOnEachIsa, EqualsReferenceForAllValuesAndScalesOfMXFP4) {
  constexpr int64_t kRows = 37, kCols = 352, kXRows = 9;
  std::mt19937 random(test::seed(5));
  std::vector<std::byte> bytes(kRows * row_bytes(WeightType::kMXFP4, kCols));
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(i % 17 == 0 ? 100 + random() % 40 : random() % 256);
  const Matrix w{WeightType::kMXFP4, bytes.data(), kRows, kCols};
  const Kernels& fast = kernels(GetParam());
  const std::vector<float> values = gaussian(kXRows * kCols, 11);
  const OwnedActivations plain(values, kXRows, kCols), x(values, kXRows, kCols, fast);
  std::vector<float> expected(kXRows * kRows), found(expected.size()), weights(kCols);
  kernels("reference").matvec(w, 0, kRows, plain.view, expected.data(), kRows);
  for (const bool panels : {false, true}) {
    (panels ? fast.matmul : fast.matvec)(w, 0, kRows, x.view, found.data(), kRows);
    for (int64_t r = 0; r < kRows; ++r) {
      dequantize_row(w.type, w.row(r), weights.data(), kCols);
      const float largest = std::abs(*std::max_element(weights.begin(), weights.end(),
                                                       [](float a, float b) { return std::abs(a) < std::abs(b); }));
      for (int64_t i = 0; i < kXRows; ++i)
        ASSERT_NEAR(expected[i * kRows + r], found[i * kRows + r], 3e-5f * largest) << r << ", " << i;
    }
  }
}

TEST_P(MatmulOnEachIsa, AnyRangeOfRowsGivesTheSameBits) {
  const Kernels& fast = kernels(GetParam());
  const OwnedMatrix w(WeightType::kQ4_K, 150, 512, 3);
  const OwnedActivations x(gaussian(9 * 512, 4), 9, 512, fast);
  for (const bool panels : {false, true}) {
    const auto product = panels ? fast.matmul : fast.matvec;
    std::vector<float> whole(9 * 150), parts(9 * 150);
    product(w.matrix, 0, 150, x.view, whole.data(), 150);
    for (int64_t begin = 0; begin < 150; begin += fast.panel_rows) {
      product(w.matrix, begin, std::min<int64_t>(begin + fast.panel_rows, 150), x.view, parts.data(), 150);
    }
    EXPECT_EQ(whole, parts);
  }
}

TEST_P(MatmulOnEachIsa, ActivationsRoundToNearestOf127Steps) {
  for (const int64_t cols : {1, 31, 32, 77, 256, 300}) {
    const std::vector<float> x = gaussian(cols, 5);
    const Kernels& table = kernels(GetParam());
    const OwnedActivations expected(x, 1, cols, table);
    const int64_t padded = padded_columns(cols);
    std::vector<int8_t> q(padded, 99);
    std::vector<float> scale(padded / 16, 9), sum(padded / 16, 9), pair_sum(padded / 32, 9);
    table.quantize_activations(x.data(), cols, q.data(), scale.data(), sum.data(), pair_sum.data());
    EXPECT_EQ(q, expected.q);
    EXPECT_EQ(scale, expected.scale);
    EXPECT_EQ(sum, expected.sum);
    EXPECT_EQ(pair_sum, expected.pair_sum);
    for (int64_t i = 0; i < cols; ++i) {
      const int8_t quant = q[table.interleaved_activations ? interleaved_column(i) : i];
      EXPECT_NEAR(quant * scale[i / 16], x[i], scale[i / 16] * 0.5001f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, MatmulOnEachIsa, testing::ValuesIn(test::isas_without_tiles()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace fathom
