#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "position/rotary.h"

namespace fathom {
namespace {

using Scaling = RotaryConfig::Scaling;

/// Returns a config as in the file of a model that was trained for 8192 tokens with Llama-3 bands.
RotaryConfig file_config() {
  RotaryConfig c;
  c.dims = 16;
  c.base = 500000;
  c.original_context = 8192;
  c.attention_factor = 1.25;
  c.divisors.assign(8, 3.0f);
  return c;
}

RotaryConfig after(const std::string& spec) {
  RotaryConfig c = file_config();
  position_methods().make(spec, c);
  return c;
}

std::vector<double> frequencies(const RotaryConfig& c) { return Rotary(c, 8192).frequencies(); }

std::string error_of(const std::string& spec) {
  try {
    after(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    return error.what();
  }
  return "";
}

TEST(PositionMethods, FileChangesNothing) {
  EXPECT_EQ(frequencies(after("file")), frequencies(file_config()));
  EXPECT_EQ(Rotary(after("file"), 8192).score_factor(), 1.5625f);
}

TEST(PositionMethods, PlainRemovesEveryScaling) {
  RotaryConfig bare;
  bare.dims = 16;
  bare.base = 500000;
  RotaryConfig scaled = file_config();
  for (const Scaling scaling : {Scaling::kNone, Scaling::kLinear, Scaling::kNtk, Scaling::kYarn}) {
    scaled.scaling = scaling;
    scaled.factor = 8;
    RotaryConfig c = scaled;
    position_methods().make("plain", c);
    EXPECT_EQ(frequencies(c), frequencies(bare));
    EXPECT_EQ(Rotary(c, 8192).score_factor(), 1.0f);
  }
}

TEST(PositionMethods, LinearAndNtkApplyTheFactorAndKeepTheFilesDivisors) {
  const std::vector<double> before = frequencies(file_config()), linear = frequencies(after("linear:factor=4")),
                            ntk = frequencies(after("ntk:factor=4"));
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(before[i] / linear[i], 4, 1e-12);
  EXPECT_EQ(ntk[0], before[0]);
  EXPECT_NEAR(before[7] / ntk[7], 4, 1e-9);
}

TEST(PositionMethods, TheDefaultFactorIsTwo) {
  for (const char* name : {"linear", "ntk", "yarn"}) EXPECT_EQ(after(name).factor, 2) << name;
}

TEST(PositionMethods, YarnUsesTheFilesTrainedLengthUnlessGiven) {
  EXPECT_EQ(after("yarn:factor=4").original_context, 8192);
  const RotaryConfig c = after("yarn:factor=4,original=2k");
  EXPECT_EQ(c.scaling, Scaling::kYarn);
  EXPECT_EQ(c.factor, 4);
  EXPECT_EQ(c.original_context, 2048);
  EXPECT_NE(frequencies(c), frequencies(after("yarn:factor=4")));
  const double factor = 1.25 * (1 + 0.1 * std::log(4));
  EXPECT_NEAR(Rotary(c, 8192).score_factor(), factor * factor, 1e-6);
}

TEST(PositionMethods, AFactorOfOneIsExact) {
  for (const char* spec : {"linear:factor=1", "ntk:factor=1", "yarn:factor=1"}) {
    const std::vector<double> a = frequencies(after(spec)), b = frequencies(file_config());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-15 * b[i]) << spec;
    EXPECT_FLOAT_EQ(Rotary(after(spec), 8192).score_factor(), 1.5625f) << spec;
  }
}

TEST(PositionMethods, InvalidSpecsAreUsageErrorsWithSuggestions) {
  EXPECT_NE(error_of("yarm").find("yarn"), std::string::npos);
  EXPECT_NE(error_of("yarn:facto=4").find("factor"), std::string::npos);
  EXPECT_NE(error_of("linear:factor=0"), "");
  EXPECT_NE(error_of("linear:factor=nan"), "");
  EXPECT_NE(error_of("linear:factor=-2"), "");
  EXPECT_NE(error_of("yarn:original=0"), "");
  EXPECT_NE(error_of("linear:original=2k"), "");
  EXPECT_NE(error_of("plain:factor=2"), "");
}

}  // namespace
}  // namespace fathom
