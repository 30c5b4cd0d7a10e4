#include <gtest/gtest.h>

#include <cmath>

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

INSTANTIATE_TEST_SUITE_P(Isa, ElementwiseOnEachIsa, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace fathom
