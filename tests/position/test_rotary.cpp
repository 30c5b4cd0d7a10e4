#include "position/rotary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "base/error.h"

namespace fathom {
namespace {

using Scaling = RotaryConfig::Scaling;
constexpr int kDims = 128;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

RotaryConfig config(double base, Scaling scaling = Scaling::kNone, double factor = 1, double original = 0) {
  RotaryConfig c;
  c.dims = kDims;
  c.base = base;
  c.scaling = scaling;
  c.factor = factor;
  c.original_context = original;
  return c;
}

std::vector<double> frequencies(const RotaryConfig& c, int64_t context = 4096) {
  return Rotary(c, context).frequencies();
}

/// Returns for each pair the ratio of the unscaled to the scaled frequency.
std::vector<double> slowdown(const RotaryConfig& c, int64_t context = 4096) {
  const std::vector<double> plain = frequencies(config(c.base)), scaled = frequencies(c, context);
  std::vector<double> ratio(plain.size());
  for (size_t i = 0; i < ratio.size(); ++i) ratio[i] = plain[i] / scaled[i];
  return ratio;
}

/// Returns the error of a valid config after `change` is applied to it; empty if there is no error.
std::string error_of(const std::function<void(RotaryConfig&)>& change) {
  RotaryConfig c = config(10000, Scaling::kYarn, 4, 4096);
  change(c);
  try {
    const Rotary rotary(c, 4096);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Rotary, PlainFrequenciesFallGeometricallyFromOneToTheBase) {
  const std::vector<double> f = frequencies(config(10000));
  ASSERT_EQ(f.size(), kDims / 2);
  EXPECT_EQ(f[0], 1.0);
  for (size_t i = 1; i < f.size(); ++i) EXPECT_NEAR(f[i] / f[i - 1], std::pow(10000, -2.0 / kDims), 1e-12) << i;
  EXPECT_NEAR(f[32], 0.01, 1e-15);
  EXPECT_EQ(Rotary(config(10000), 1).score_factor(), 1.0f);
}

TEST(Rotary, ZeroDimensionsHaveNoPairs) {
  RotaryConfig c;
  const Rotary rotary(c, 4096);
  EXPECT_EQ(rotary.pairs(), 0);
  EXPECT_EQ(rotary.dims(), 0);
  EXPECT_EQ(rotary.score_factor(), 1.0f);
}

TEST(Rotary, LinearDividesEveryFrequency) {
  for (const double ratio : slowdown(config(500000, Scaling::kLinear, 2.5))) EXPECT_NEAR(ratio, 2.5, 1e-12);
}

TEST(Rotary, NtkRaisesTheBaseToTheGoldenValue) {
  const std::vector<double> f = frequencies(config(10000, Scaling::kNtk, 8));
  EXPECT_NEAR(std::pow(f[1], -kDims / 2.0), 82684.62, 0.01);
  EXPECT_EQ(f[0], 1.0);
  // the slowest pair is slowed by the whole factor
  EXPECT_NEAR(slowdown(config(10000, Scaling::kNtk, 8)).back(), 8, 1e-9);
}

TEST(Rotary, NtkOfATwoDimensionalHeadKeepsItsOnlyPair) {
  RotaryConfig c = config(10000, Scaling::kNtk, 8);
  c.dims = 2;
  EXPECT_EQ(frequencies(c), std::vector<double>{1.0});
}

TEST(Rotary, YarnRampsBetweenTheGoldenBoundaries) {
  struct Golden {
    double base, original;
    int low, high;
  };
  for (const Golden g : {Golden{10000, 2048, 16, 41}, Golden{10000, 4096, 20, 46}, Golden{500000, 8192, 18, 35},
                         Golden{1e6, 32768, 23, 40}}) {
    SCOPED_TRACE(testing::Message() << "base " << g.base << " original " << g.original);
    const std::vector<double> ratio = slowdown(config(g.base, Scaling::kYarn, 8, g.original));
    for (int i = 0; i < kDims / 2; ++i) {
      if (i <= g.low) {
        EXPECT_NEAR(ratio[i], 1, 1e-12) << i;
      } else if (i >= g.high) {
        EXPECT_NEAR(ratio[i], 8, 1e-12) << i;
      } else {
        EXPECT_GT(ratio[i], ratio[i - 1] + 1e-3) << i;
        EXPECT_LT(ratio[i], 8 - 1e-3) << i;
      }
    }
  }
}

TEST(Rotary, YarnGivesTheGoldenRatiosAndFactor) {
  const RotaryConfig c = config(10000, Scaling::kYarn, 8, 4096);
  const std::vector<double> ratio = slowdown(c);
  EXPECT_NEAR(ratio[20], 1, 1e-12);
  EXPECT_NEAR(ratio[21], 1.03483, 1e-5);
  EXPECT_NEAR(ratio[33], 1.77778, 1e-5);
  EXPECT_NEAR(ratio[40], 3.05882, 1e-5);
  EXPECT_NEAR(ratio[45], 6.30303, 1e-5);
  EXPECT_NEAR(ratio[46], 8, 1e-12);
  EXPECT_NEAR(Rotary(c, 4096).score_factor(), 1.2079442 * 1.2079442, 1e-6);
}

TEST(Rotary, YarnWithoutExtrapolationIsLinearAndKeepsScores) {
  RotaryConfig c = config(10000, Scaling::kYarn, 8, 4096);
  c.yarn_ext_factor = 0;
  for (const double ratio : slowdown(c)) EXPECT_NEAR(ratio, 8, 1e-12);
  EXPECT_EQ(Rotary(c, 4096).score_factor(), 1.0f);
  c.yarn_attn_factor = 1.5;
  EXPECT_FLOAT_EQ(Rotary(c, 4096).score_factor(), 2.25f);
}

TEST(Rotary, AttentionFactorsMultiply) {
  RotaryConfig c = config(10000, Scaling::kYarn, 8, 4096);
  c.attention_factor = 1 / 1.2079442;  // cancels YaRN's own factor
  EXPECT_NEAR(Rotary(c, 4096).score_factor(), 1, 1e-6);
  c.yarn_attn_factor = 2;
  EXPECT_NEAR(Rotary(c, 4096).score_factor(), 4, 1e-5);
}

TEST(Rotary, LongRopeSelectsDivisorsByTheContext) {
  RotaryConfig c = config(10000, Scaling::kLongRope, 32, 4096);
  for (int i = 0; i < kDims / 2; ++i) {
    c.short_divisors.push_back(1 + 0.01f * i);
    c.long_divisors.push_back(2 + 0.5f * i);
  }
  c.attention_factor = 1.1902381;  // √(1 + ln 32 / ln 4096)
  for (const auto& [context, divisors] :
       {std::pair{int64_t{100}, &c.short_divisors}, std::pair{int64_t{4096}, &c.short_divisors},
        std::pair{int64_t{4097}, &c.long_divisors}, std::pair{int64_t{131072}, &c.long_divisors}}) {
    const std::vector<double> ratio = slowdown(c, context);
    for (int i = 0; i < kDims / 2; ++i) EXPECT_NEAR(ratio[i], (*divisors)[i], 1e-12 * ratio[i]) << context;
    EXPECT_NEAR(Rotary(c, context).score_factor(), 1 + std::log(32) / std::log(4096), 1e-6);
  }
}

/// Returns the divisors of Llama-3's bands for base 500000 and factor 8.
std::vector<float> llama3_divisors() {
  std::vector<float> divisors(kDims / 2, 1.0f);
  const float ramp[] = {1.207484f, 1.553415f, 2.026313f, 2.694530f, 3.684253f, 5.257327f};
  std::copy(std::begin(ramp), std::end(ramp), divisors.begin() + 29);
  std::fill(divisors.begin() + 35, divisors.end(), 8.0f);
  return divisors;
}

TEST(Rotary, Llama3DivisorsDivideTheAngles) {
  RotaryConfig c = config(500000);
  c.divisors = llama3_divisors();
  const std::vector<double> ratio = slowdown(c);
  for (int i = 0; i < kDims / 2; ++i) EXPECT_NEAR(ratio[i], c.divisors[i], 1e-12 * ratio[i]) << i;
  // the divisors agree with the formula of the bands for these frequencies; pair 32 is in the ramp
  const double wavelength = 2 * M_PI / frequencies(config(500000))[32];
  const double sharpness = (8192 / wavelength - 1) / (4 - 1);
  EXPECT_NEAR(ratio[32], 1 / ((1 - sharpness) / 8 + sharpness), 1e-5);
}

TEST(Rotary, DivisorsAndScalingMultiply) {
  RotaryConfig c = config(500000, Scaling::kLinear, 4);
  c.divisors = llama3_divisors();
  const std::vector<double> ratio = slowdown(c);
  for (int i = 0; i < kDims / 2; ++i) EXPECT_NEAR(ratio[i], 4 * c.divisors[i], 1e-12 * ratio[i]) << i;
}

TEST(Rotary, AnInfiniteDivisorStopsAPair) {
  RotaryConfig c = config(10000);
  c.divisors.assign(kDims / 2, 1.0f);
  c.divisors[63] = std::numeric_limits<float>::infinity();
  std::vector<float> cos(kDims / 2), sin(kDims / 2);
  Rotary(c, 4096).angles(123456, cos.data(), sin.data());
  EXPECT_EQ(cos[63], 1.0f);
  EXPECT_EQ(sin[63], 0.0f);
}

TEST(Rotary, AnglesAreComputedInDouble) {
  const Rotary rotary(config(10000), 4096);
  std::vector<float> cos(kDims / 2), sin(kDims / 2);
  for (const double position : {0.0, 1.0, 0.5, 1e6 + 3, 123456789.25}) {
    rotary.angles(position, cos.data(), sin.data());
    for (int i = 0; i < kDims / 2; ++i) {
      const long double angle = static_cast<long double>(position) * rotary.frequencies()[i];
      EXPECT_NEAR(cos[i], std::cos(angle), 1e-7) << position << " pair " << i;
      EXPECT_NEAR(sin[i], std::sin(angle), 1e-7) << position << " pair " << i;
    }
  }
}

TEST(RotaryErrors, AValidConfigHasNoError) {
  EXPECT_EQ(error_of([](RotaryConfig&) {}), "");
}

TEST(RotaryErrors, OddOrNegativeDimensionsAreNamed) {
  EXPECT_NE(error_of([](RotaryConfig& c) { c.dims = 127; }).find("127"), std::string::npos);
  EXPECT_NE(error_of([](RotaryConfig& c) { c.dims = -2; }).find("-2"), std::string::npos);
}

TEST(RotaryErrors, NonPositiveOrNonFiniteNumbersAreRefused) {
  for (const double bad : {0.0, -1.0, kNan, kInfinity}) {
    SCOPED_TRACE(bad);
    EXPECT_NE(error_of([&](RotaryConfig& c) { c.factor = bad; }), "");
    EXPECT_NE(error_of([&](RotaryConfig& c) { c.base = bad; }), "");
    EXPECT_NE(error_of([&](RotaryConfig& c) { c.original_context = bad; }), "");
    EXPECT_NE(error_of([&](RotaryConfig& c) { c.attention_factor = bad; }), "");
    EXPECT_NE(error_of([&](RotaryConfig& c) { c.yarn_attn_factor = bad; }), "");
    EXPECT_NE(error_of([&](RotaryConfig& c) { c.yarn_beta_fast = bad; }), "");
    EXPECT_NE(error_of([&](RotaryConfig& c) { c.yarn_beta_slow = bad; }), "");
  }
  EXPECT_NE(error_of([](RotaryConfig& c) { c.base = 1; }), "");
  EXPECT_NE(error_of([](RotaryConfig& c) { c.yarn_ext_factor = kNan; }), "");
}

TEST(RotaryErrors, AWrongNumberOfDivisorsIsReported) {
  for (auto member : {&RotaryConfig::divisors, &RotaryConfig::short_divisors, &RotaryConfig::long_divisors}) {
    const std::string text = error_of([&](RotaryConfig& c) { (c.*member).assign(63, 1.0f); });
    EXPECT_NE(text.find("64"), std::string::npos) << text;
    EXPECT_NE(text.find("63"), std::string::npos) << text;
  }
}

TEST(RotaryErrors, DivisorsMustBePositive) {
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_NE(error_of([&](RotaryConfig& c) {
                c.divisors.assign(64, 1.0f);
                c.divisors[5] = bad;
              }),
              "")
        << bad;
  }
}

TEST(RotaryErrors, YarnAndLongRopeNeedTheTrainedLength) {
  for (const Scaling scaling : {Scaling::kYarn, Scaling::kLongRope}) {
    EXPECT_NE(error_of([&](RotaryConfig& c) {
                c.scaling = scaling;
                c.original_context = 0;
              }),
              "");
  }
}

}  // namespace
}  // namespace fathom
