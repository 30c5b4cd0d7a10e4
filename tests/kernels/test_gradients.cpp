// Gradients of norms, activations and softmax, compared with finite differences of the functions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "random_rows.h"

namespace fathom {
namespace {

using test::gaussian;
using Floats = std::vector<float>;

double dot(const Floats& a, const Floats& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

/// Expects `gradient` to give the derivative of Σ dy·f(x) along a random direction. f: in the reference kernels.
template <class F>
void expect_gradient(const Floats& x, const Floats& dy, const Floats& gradient, const F& f) {
  const Floats direction = gaussian(static_cast<int64_t>(x.size()), 77);
  const double step = 1e-2 / std::sqrt(static_cast<double>(x.size()));
  Floats forward = x, backward = x;
  for (size_t i = 0; i < x.size(); ++i) {
    forward[i] += static_cast<float>(step * direction[i]);
    backward[i] -= static_cast<float>(step * direction[i]);
  }
  const double measured = (dot(dy, f(forward)) - dot(dy, f(backward))) / (2 * step);
  EXPECT_NEAR(dot(gradient, direction), measured, 2e-3 * (1 + std::fabs(measured) + std::sqrt(x.size())));
}

class GradientsOnEachIsa : public testing::TestWithParam<std::string> {};

constexpr int64_t kLengths[] = {1, 2, 7, 16, 31, 64, 100, 192, 1000};
constexpr float kEps = 1e-5f;

TEST_P(GradientsOnEachIsa, RmsNormGradientMatchesFiniteDifferences) {
  const Kernels& fast = kernels(GetParam());
  const Kernels& plain = kernels("reference");
  for (const int64_t n : kLengths) {
    const Floats x = gaussian(n, 1, 3.0f), w = gaussian(n, 2), dy = gaussian(n, 3);
    Floats dx(n, 5.0f), dw(n, 1.0f);  // one is overwritten, the other added to
    fast.rms_norm_backward(x.data(), w.data(), dy.data(), kEps, n, dx.data(), dw.data());
    for (float& v : dw) v -= 1.0f;
    const auto norm = [&](const Floats& in, const Floats& weight) {
      Floats out(n);
      plain.rms_norm(in.data(), weight.data(), kEps, n, out.data());
      return out;
    };
    if (n > 1) expect_gradient(x, dy, dx, [&](const Floats& in) { return norm(in, w); });
    expect_gradient(w, dy, dw, [&](const Floats& weight) { return norm(x, weight); });
  }
}

TEST_P(GradientsOnEachIsa, SwigluGradientOfGatesFarBelowZeroIsZero) {
  const Floats gate = {-90, -200, -1000}, ones(3, 1.0f);
  Floats dgate(3), dup(3);
  kernels(GetParam()).swiglu_backward(gate.data(), ones.data(), ones.data(), 3, dgate.data(), dup.data());
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(dgate[i], 0, 1e-30) << gate[i];
    EXPECT_NEAR(dup[i], 0, 1e-30) << gate[i];
  }
}

TEST_P(GradientsOnEachIsa, SwigluGradientMatchesFiniteDifferences) {
  const Kernels& fast = kernels(GetParam());
  const Kernels& plain = kernels("reference");
  for (const int64_t n : kLengths) {
    const Floats gate = gaussian(n, 1, 3.0f), up = gaussian(n, 2), dy = gaussian(n, 3);
    Floats dgate(n), dup(n);
    fast.swiglu_backward(gate.data(), up.data(), dy.data(), n, dgate.data(), dup.data());
    const auto swiglu = [&](Floats g, const Floats& u) {
      plain.swiglu(g.data(), u.data(), n);
      return g;
    };
    expect_gradient(gate, dy, dgate, [&](const Floats& g) { return swiglu(g, up); });
    expect_gradient(up, dy, dup, [&](const Floats& u) { return swiglu(gate, u); });
  }
}

TEST_P(GradientsOnEachIsa, SoftmaxGradientMatchesFiniteDifferences) {
  const Kernels& fast = kernels(GetParam());
  const Kernels& plain = kernels("reference");
  for (const int64_t n : kLengths) {
    const Floats x = gaussian(n, 1, 2.0f), dy = gaussian(n, 3);
    const auto softmax = [&](Floats in) {
      plain.softmax(in.data(), n);
      return in;
    };
    Floats shares = x, recomputed = x, dx = dy;
    const float lse = plain.softmax(shares.data(), n);
    fast.softmax_backward(lse, static_cast<float>(dot(shares, dy)), n, recomputed.data(), dx.data());
    for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(recomputed[i], shares[i], 2e-6f * shares[i]);
    expect_gradient(x, dy, dx, softmax);
  }
}

TEST_P(GradientsOnEachIsa, ExponentialsAreRelativeToTheLargest) {
  const Kernels& fast = kernels(GetParam());
  for (const int64_t n : kLengths) {
    const Floats x = gaussian(n, 5, 20.0f);
    Floats powers = x;
    float sum = 0;
    const float largest = fast.exponentials(powers.data(), n, &sum);
    ASSERT_EQ(largest, *std::max_element(x.begin(), x.end()));
    double expected = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double power = std::exp(static_cast<double>(x[i] - largest));
      ASSERT_NEAR(powers[i], power, 4e-7 * power + 1e-37) << x[i] - largest;
      expected += power;
    }
    ASSERT_NEAR(sum, expected, 1e-5 * expected);
    fast.scale(powers.data(), 0.0f, n - 1);
    for (int64_t i = 0; i < n - 1; ++i) ASSERT_EQ(powers[i], 0.0f);
    ASSERT_NE(powers[n - 1] + (x[n - 1] < largest - 80), 0.0f);
  }
}

TEST_P(GradientsOnEachIsa, ExponentialsKeepNan) {
  Floats x(40, -std::numeric_limits<float>::infinity());
  x[3] = 1;
  x[5] = std::numeric_limits<float>::quiet_NaN();
  float sum = 0;
  kernels(GetParam()).exponentials(x.data(), 40, &sum);
  EXPECT_TRUE(std::isnan(sum));
}

TEST_P(GradientsOnEachIsa, WriteNothingBeyondTheirEnds) {
  const Kernels& fast = kernels(GetParam());
  for (const int64_t n : {1, 5, 17}) {
    const Floats x = gaussian(64, 1), w = gaussian(64, 2), dy = gaussian(64, 3);
    Floats a(64, 9.0f), b(64, 9.0f), c(64, 9.0f);
    fast.rms_norm_backward(x.data(), w.data(), dy.data(), kEps, n, a.data(), b.data());
    Floats scores = x;
    fast.softmax_backward(1, 1, n, scores.data(), c.data());
    for (int64_t i = n; i < 64; ++i) ASSERT_TRUE(a[i] == 9 && b[i] == 9 && c[i] == 9) << i;
    fast.swiglu_backward(x.data(), w.data(), dy.data(), n, a.data(), b.data());
    for (int64_t i = n; i < 64; ++i) ASSERT_TRUE(a[i] == 9 && b[i] == 9) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, GradientsOnEachIsa, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace fathom
