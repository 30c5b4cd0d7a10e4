#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "random_rows.h"

namespace fathom {
namespace {

using test::gaussian;

class ElementwiseOnEachIsa : public testing::TestWithParam<std::string> {};

void expect_near(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_NEAR(a[i], b[i], tolerance * (1 + std::fabs(a[i]))) << i << " of " << a.size();
}

TEST_P(ElementwiseOnEachIsa, EqualsReferenceForEveryLength) {
  const Kernels& plain = kernels("reference");
  const Kernels& fast = kernels(GetParam());
  for (const int64_t n : {1, 2, 7, 16, 31, 64, 100, 192, 1000}) {
    const std::vector<float> x = gaussian(n, 1, 3.0f), w = gaussian(n, 2), b = gaussian(n, 3);
    std::vector<float> expected(n), found(n);
    plain.rms_norm(x.data(), w.data(), 1e-5f, n, expected.data());
    fast.rms_norm(x.data(), w.data(), 1e-5f, n, found.data());
    expect_near(expected, found, 1e-5f);
    plain.layer_norm(x.data(), w.data(), b.data(), 1e-5f, n, expected.data());
    fast.layer_norm(x.data(), w.data(), b.data(), 1e-5f, n, found.data());
    expect_near(expected, found, 2e-5f);
    expected = found = x;
    plain.swiglu(expected.data(), w.data(), n);
    fast.swiglu(found.data(), w.data(), n);
    expect_near(expected, found, 1e-5f);
    expected = found = x;
    plain.gelu(expected.data(), n);
    fast.gelu(found.data(), n);
    expect_near(expected, found, 1e-5f);
    const auto activation = [&](void (*Kernels::*function)(float*, int64_t)) {
      expected = found = x;
      (plain.*function)(expected.data(), n);
      (fast.*function)(found.data(), n);
      expect_near(expected, found, 1e-5f);
    };
    activation(&Kernels::silu);
    activation(&Kernels::relu_squared);
    activation(&Kernels::softplus);
    const auto gated = [&](void (*Kernels::*function)(float*, const float*, int64_t)) {
      expected = found = x;
      (plain.*function)(expected.data(), w.data(), n);
      (fast.*function)(found.data(), w.data(), n);
      expect_near(expected, found, 1e-5f);
    };
    gated(&Kernels::geglu);
    gated(&Kernels::swiglu_oai);
    expected = found = x;
    plain.add(expected.data(), w.data(), n);
    fast.add(found.data(), w.data(), n);
    EXPECT_EQ(expected, found);
    expected = found = x;
    const float lse = plain.softmax(expected.data(), n);
    EXPECT_NEAR(lse, fast.softmax(found.data(), n), 1e-5f * (1 + std::fabs(lse)));
    expect_near(expected, found, 1e-5f);
    expected = found = x;
    plain.rotate_pairs(expected.data(), w.data(), b.data(), n / 2);
    fast.rotate_pairs(found.data(), w.data(), b.data(), n / 2);
    expect_near(expected, found, 1e-5f);
  }
}

TEST_P(ElementwiseOnEachIsa, ActivationsOfExtremeNumbersEqualTheirLimits) {
  const Kernels& table = kernels(GetParam());
  const std::vector<float> input = {0.0f, -90.0f, 90.0f, -1000.0f, 1000.0f, -1e30f, 20.0f, 20.5f, NAN};
  const auto n = static_cast<int64_t>(input.size());
  std::vector<float> x = input;
  table.silu(x.data(), n);
  expect_near({0, 0, 90, 0, 1000, 0, 20, 20.5f}, {x.begin(), x.end() - 1}, 1e-6f);
  EXPECT_TRUE(std::isnan(x.back()));
  x = input;
  table.softplus(x.data(), n);
  expect_near({std::log(2.0f), 0, 90, 0, 1000, 0, 20, 20.5f}, {x.begin(), x.end() - 1}, 1e-6f);
  EXPECT_TRUE(std::isnan(x.back()));
  EXPECT_EQ(x[2], 90);
  x = input;
  table.relu_squared(x.data(), n);
  expect_near({0, 0, 8100, 0, 1e6f, 0, 400, 420.25f}, {x.begin(), x.end() - 1}, 1e-6f);
  EXPECT_TRUE(std::isnan(x.back()));
  x = input;
  const std::vector<float> up = {9, 1, 9, 1, -9, 1, 0, -1, 1};
  table.swiglu_oai(x.data(), up.data(), n);
  const float seven = 7.0f / (1.0f + std::exp(-1.702f * 7.0f));
  expect_near({0, 0, 8 * seven, 0, -6 * seven, 0, seven, 0}, {x.begin(), x.end() - 1}, 1e-5f);
  EXPECT_TRUE(std::isnan(x.back()));
}

TEST_P(ElementwiseOnEachIsa, SoftplusIsPreciseFarBelowZero) {
  std::vector<float> x(80);
  for (int i = 0; i < 80; ++i) x[i] = -static_cast<float>(i);
  std::vector<float> found = x;
  kernels(GetParam()).softplus(found.data(), 80);
  for (int i = 0; i < 80; ++i) {
    const double expected = std::log1p(std::exp(-static_cast<double>(i)));
    EXPECT_NEAR(found[i] / expected, 1, 1e-6) << i;
  }
}

TEST_P(ElementwiseOnEachIsa, GatedGroupNormEqualsReferenceAndWorksInPlace) {
  const Kernels& plain = kernels("reference");
  const Kernels& fast = kernels(GetParam());
  for (const auto& [groups, width] : {std::pair<int64_t, int64_t>{1, 64}, {8, 16}, {3, 7}, {2, 1000}}) {
    const int64_t n = groups * width;
    std::vector<float> x = gaussian(n, 1, 3.0f);
    const std::vector<float> z = gaussian(n, 2, 3.0f), weight = gaussian(n, 3);
    std::fill_n(x.begin(), width, 0.0f);  // a group of zeros stays zero
    std::vector<float> expected(n);
    plain.gated_group_norm(x.data(), z.data(), weight.data(), 1e-5f, groups, width, expected.data());
    fast.gated_group_norm(x.data(), z.data(), weight.data(), 1e-5f, groups, width, x.data());
    expect_near(expected, x, 1e-5f);
    EXPECT_EQ(x[0], 0);
    for (int64_t g = 1; g < groups; ++g) {
      double squares = 0;
      for (int64_t i = g * width; i < (g + 1) * width; ++i) squares += std::pow(x[i] / weight[i], 2);
      EXPECT_NEAR(squares / static_cast<double>(width), 1, 1e-2);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, ElementwiseOnEachIsa, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace fathom
