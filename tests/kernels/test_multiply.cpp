// Products of floats for training, compared with their definition: for any transposition, of floats unchanged or
// rounded to bfloat16.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "base/aligned.h"
#include "random_rows.h"

namespace fathom {
namespace {

using test::gaussian;
using Floats = std::vector<float>;

struct MultiplyShape {
  int64_t rows, cols, depth;
};
constexpr MultiplyShape kShapes[] = {{1, 1, 1},     {3, 5, 2},    {12, 32, 16}, {13, 33, 17},
                                     {25, 70, 300}, {7, 530, 40}, {98, 48, 31}, {5, 17, 1029}};
constexpr int64_t kPadding = 3;  // floats between the rows, which a product must not write

using MultiplyKernel = decltype(Kernels::multiply);

/// Returns the factors as the product multiplies them: unchanged, or rounded to bfloat16.
Floats factors(Floats values, bool rounded) {
  for (float& v : values) {
    if (rounded) v = std::bit_cast<float>(uint32_t{f32_to_bf16(v)} << 16);
  }
  return values;
}

void expect_product(MultiplyKernel multiply, bool rounded, const MultiplyShape& shape, bool a_transposed,
                    bool b_transposed, bool add) {
  const auto& [rows, cols, depth] = shape;
  const int64_t a_stride = (a_transposed ? rows : depth) + kPadding,
                b_stride = (b_transposed ? depth : cols) + kPadding;
  const Floats given_a = gaussian((a_transposed ? depth : rows) * a_stride, 1),
               given_b = gaussian((b_transposed ? cols : depth) * b_stride, 2);
  const Floats a = factors(given_a, rounded), b = factors(given_b, rounded);
  const int64_t y_stride = cols + kPadding;
  const Floats before = gaussian(rows * y_stride, 3);
  Floats y = before;
  AlignedBuffer<float> scratch(kMultiplyScratch);
  multiply({rows, cols, depth, given_a.data(), a_stride, a_transposed, given_b.data(), b_stride, b_transposed,
            y.data(), y_stride, add},
           scratch.data());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < y_stride; ++j) {
      const float found = y[i * y_stride + j], old = before[i * y_stride + j];
      if (j >= cols) {
        ASSERT_EQ(found, old) << "beyond row " << i;
        continue;
      }
      double sum = add ? old : 0;
      for (int64_t k = 0; k < depth; ++k) {
        sum += static_cast<double>(a[a_transposed ? k * a_stride + i : i * a_stride + k]) *
               b[b_transposed ? j * b_stride + k : k * b_stride + j];
      }
      ASSERT_NEAR(found, sum, 2e-6 * (4 + std::sqrt(depth) * 4))
          << rows << " " << cols << " " << depth << " at " << i << ", " << j;
    }
  }
}

void expect_products(MultiplyKernel multiply, bool rounded) {
  for (const MultiplyShape& shape : kShapes) {
    for (const bool a_transposed : {false, true}) {
      for (const bool b_transposed : {false, true}) {
        for (const bool add : {false, true})
          expect_product(multiply, rounded, shape, a_transposed, b_transposed, add);
      }
    }
  }
}

class MultiplyOnEachIsa : public testing::TestWithParam<std::string> {};

TEST_P(MultiplyOnEachIsa, EqualsTheSumOfProductsForAnyTransposition) {
  expect_products(kernels(GetParam()).multiply, false);
}

INSTANTIATE_TEST_SUITE_P(Isa, MultiplyOnEachIsa, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

TEST(Multiply, OfRoundedFactorsEqualsTheSumOfTheirProducts) {
  std::vector<MultiplyKernel> all;
  for (const std::string& isa : available_isas()) {
    if (const MultiplyKernel multiply = kernels(isa).multiply_bf16) all.push_back(multiply);
  }
  if (all.empty()) GTEST_SKIP() << "this machine has no AVX512-BF16";
  for (const MultiplyKernel multiply : all) expect_products(multiply, true);
}

}  // namespace
}  // namespace fathom
