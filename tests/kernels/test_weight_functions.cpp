#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "attend_problem.h"

namespace fathom {
namespace {

using test::AttendCase;
using test::AttendProblem;
using test::expect_near;
using test::SoftplusFunction;

constexpr PageFormat kFormats[] = {PageFormat::kBF16, PageFormat::kF32, PageFormat::kQ8, PageFormat::kQ4};

/// Returns the query parameters of the second pass, from a first pass over all pages. The first query has offset 0,
/// as the first rows of a sequence have.
std::vector<SoftplusQuery> reweighting(const AttendProblem& problem, const Kernels& table, float tokens) {
  std::vector<SoftplusQuery> queries;
  for (const float lse : problem.run(table, 0, problem.shape.pages, SoftplusFunction().of(table)).lse)
    queries.push_back({lse, tokens, queries.empty() ? 0.0f : 1.0f});
  return queries;
}

/// Writes tokens without rotations into a page of floats.
void write_tokens(std::byte* page_keys, std::byte* page_values, int value_dim, const std::vector<float>& keys,
                  const std::vector<float>& values) {
  const float no_rotations[1] = {};
  write_page({PageFormat::kF32, 2, value_dim, 0, page_keys, page_values, 0, static_cast<int>(keys.size() / 2),
              keys.data(), 2, values.data(), value_dim, no_rotations});
}

/// Returns the weights of the first keys for one query whose cosines with its keys are given, at the head width 64.
/// In the pages, keys have 2 dimensions and the first values are unit vectors.
std::vector<float> shares(const Kernels& table, const std::vector<float>& cosines, float power) {
  const int n = static_cast<int>(cosines.size()), pages = (n + kPageTokens - 1) / kPageTokens;
  const int value_dim = 8;
  const size_t key_bytes = page_key_bytes(PageFormat::kF32, 2),
               value_bytes = page_value_bytes(PageFormat::kF32, value_dim);
  AlignedBuffer<std::byte> bytes(pages * (key_bytes + value_bytes));
  std::fill(bytes.data(), bytes.data() + bytes.size(), std::byte{0});
  std::vector<PageRead> reads;
  std::byte* at = bytes.data();
  for (int p = 0; p < pages; ++p) {
    const int count = std::min(kPageTokens, n - p * kPageTokens);
    std::vector<float> keys(2 * count), values(value_dim * count);
    for (int t = 0; t < count; ++t) {
      keys[2 * t] = cosines[p * kPageTokens + t];
      if (p == 0 && t < value_dim) values[t * value_dim + t] = 1;
    }
    PageRead read;
    read.keys = at;
    read.mask = count == kPageTokens ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    read.values = at + key_bytes;
    write_tokens(at, at + key_bytes, value_dim, keys, values);
    reads.push_back(read);
    at += key_bytes + value_bytes;
  }
  const float query[] = {std::log(64.0f) * std::log(static_cast<float>(n)), 0};
  std::vector<float> out(value_dim, NAN);
  float lse = NAN;
  AttendTask task;
  task.format = PageFormat::kF32;
  task.key_dim = 2;
  task.value_dim = value_dim;
  task.rows = task.group = 1;
  task.queries = query;
  task.pages = reads.data();
  task.page_count = pages;
  task.weights = SoftplusFunction().of(table);
  task.out = power > 0 ? nullptr : out.data();
  task.lse = &lse;
  AlignedBuffer<float> scratch(attend_scratch(2, value_dim, 1));
  table.attend(task, scratch.data());
  if (power == 0) return out;
  const SoftplusFunction reweighted{{{lse, static_cast<float>(n), n > 3 ? 1.0f : 0.0f}}, {power}};
  task.weights = reweighted.of(table);
  task.out = out.data();
  table.attend(task, scratch.data());
  return out;
}

class SoftplusOnEachIsa : public testing::TestWithParam<std::string> {
 protected:
  const Kernels& table() const { return kernels(GetParam()); }
};

TEST_P(SoftplusOnEachIsa, MatchesSharesComputedByHand) {
  const std::vector<float> cosines{.35f, .30f, .25f, .2f, .1f, 0, -.1f, .28f};
  const std::vector<float> plain{.209528f, .181740f, .154783f, .129015f, .082897f, .047243f, .023954f, .170840f};
  const std::vector<float> cubed{.664103f, .200861f, .029051f, .000071f, 0, 0, 0, .105915f};
  const std::vector<float> sharp{.997373f, .002524f, 0, 0, 0, 0, 0, .000103f};
  for (const auto& [power, expected] : {std::pair{0.0f, plain}, {3.0f, cubed}, {15.0f, sharp}}) {
    const std::vector<float> found = shares(table(), cosines, power);
    for (int i = 0; i < 8; ++i) EXPECT_NEAR(found[i], expected[i], 2e-6) << "power " << power << " key " << i;
  }
}

TEST_P(SoftplusOnEachIsa, ASingleKeyHasAllTheWeight) {
  for (const float power : {0.0f, 3.0f, 15.0f}) EXPECT_NEAR(shares(table(), {0.4f}, power)[0], 1, 1e-6) << power;
}

TEST_P(SoftplusOnEachIsa, AStrongKeyAmongManyKeepsItsWeight) {
  std::vector<float> cosines(16384, 0.0f);
  cosines[3] = 0.8f;
  EXPECT_GT(shares(table(), cosines, 15)[3], 0.999f);
  EXPECT_LT(shares(table(), cosines, 0)[3], 0.01f) << "without re-weighting it is small";
}

TEST_P(SoftplusOnEachIsa, EqualKeysHaveEqualWeightsOrNone) {
  const std::vector<float> cosines(8, 0.25f);
  for (const float share : shares(table(), cosines, 0)) EXPECT_NEAR(share, 0.125f, 1e-6);
  float sum = 0;
  for (const float share : shares(table(), cosines, 3)) sum += share;
  EXPECT_TRUE(sum == 0 || std::fabs(sum - 1) < 1e-5) << sum;
}

TEST_P(SoftplusOnEachIsa, EqualsReferenceOverShapesMasksAndPositions) {
  for (const PageFormat format : kFormats) {
    const float tolerance = quant_bits(format) ? 1e-3f : 2e-5f;
    for (const AttendCase c : {AttendCase{64, 64, 64, 1, 4, 9, format}, AttendCase{128, 128, 128, 3, 2, 5, format},
                               AttendCase{80, 80, 32, 7, 3, 4, format}, AttendCase{128, 64, 64, 16, 4, 4, format},
                               AttendCase{12, 20, 4, 2, 5, 3, format}, AttendCase{12, 20, 4, 33, 2, 3, format}}) {
      SCOPED_TRACE(testing::Message() << "key " << c.key_dim << " value " << c.value_dim << " rows " << c.rows
                                      << " format " << static_cast<int>(format) << " group " << c.group);
      const AttendProblem problem(c);
      const auto queries = reweighting(problem, kernels("reference"), 64.0f * static_cast<float>(c.pages));
      for (const SoftplusFunction& form : {SoftplusFunction(), SoftplusFunction{queries, {3}}}) {
        const auto expected = problem.run(kernels("reference"), 0, c.pages, form.of(kernels("reference")));
        const auto found = problem.run(table(), 0, c.pages, form.of(table()));
        expect_near(expected.out, found.out, tolerance);
        expect_near(expected.lse, found.lse, tolerance);
        expect_near(expected.mass, found.mass, tolerance);
        const auto gathered = problem.run(table(), 0, c.pages, form.of(table()), true, false);
        expect_near(expected.out, gathered.out, tolerance);
        expect_near(expected.lse, gathered.lse, tolerance);
      }
    }
  }
}

TEST_P(SoftplusOnEachIsa, WithoutAnOutputTheLogSumIsTheSame) {
  for (const int rows : {1, 20}) {
    const AttendProblem problem({64, 64, 64, rows, 2, 5, PageFormat::kBF16});
    const auto whole = problem.run(table(), 0, 5, SoftplusFunction().of(table()));
    const auto sums = problem.run(table(), 0, 5, SoftplusFunction().of(table()), false);
    EXPECT_EQ(sums.lse, whole.lse);
    for (const float v : sums.out) EXPECT_TRUE(std::isnan(v)) << "written to";
  }
}

TEST_P(SoftplusOnEachIsa, PartsOfThePagesMergeToTheWhole) {
  for (const int rows : {5, 40}) {
    const AttendProblem problem({64, 64, 64, rows, 3, 8, PageFormat::kF32});
    const auto queries = reweighting(problem, table(), 512);
    for (const SoftplusFunction& form : {SoftplusFunction(), SoftplusFunction{queries, {15}}}) {
      const auto whole = problem.run(table(), 0, 8, form.of(table()));
      auto left = problem.run(table(), 0, 3, form.of(table()));
      const auto right = problem.run(table(), 3, 5, form.of(table()));
      for (size_t i = 0; i < left.lse.size(); ++i)
        merge_attention(left.out.data() + i * 64, left.lse[i], right.out.data() + i * 64, right.lse[i], 64);
      expect_near(whole.out, left.out, 1e-4f);
      expect_near(whole.lse, left.lse, 1e-4f);
    }
  }
}

TEST_P(SoftplusOnEachIsa, HugeScoresGiveFiniteResults) {
  for (const float factor : {-1e6f, -300.0f, -30.0f, 300.0f, 1e6f}) {
    AttendProblem problem({64, 64, 64, 20, 2, 3, PageFormat::kF32});
    for (float& q : problem.queries) q *= factor;
    const auto queries = reweighting(problem, table(), 192);
    for (const SoftplusFunction& form : {SoftplusFunction(), SoftplusFunction{queries, {15}}}) {
      const auto expected = problem.run(kernels("reference"), 0, 3, form.of(kernels("reference")));
      const auto found = problem.run(table(), 0, 3, form.of(table()));
      for (const float v : found.out) ASSERT_TRUE(std::isfinite(v)) << factor;
      for (const float v : found.lse) ASSERT_TRUE(!std::isnan(v) && v < INFINITY) << factor;
      if (std::fabs(factor) < 1e3f) expect_near(expected.out, found.out, 0.02f);
    }
  }
}

TEST_P(SoftplusOnEachIsa, LowScoresAreWeightedLikeASoftmax) {
  // Far below 0, ln(1 + e^x) is e^x, even where neither it nor its sum is representable as a float.
  AttendProblem problem({2, 8, 0, 1, 1, 1, PageFormat::kF32});
  std::fill(problem.bytes.data(), problem.bytes.data() + problem.bytes.size(), std::byte{0});
  std::vector<float> keys(2 * kPageTokens), values(8 * kPageTokens);
  for (int t = 0; t < kPageTokens; ++t) keys[2 * t] = t == 5 ? -199.0f : -200.0f;
  for (int i = 0; i < 8; ++i) values[i * 8 + i] = 1;
  write_tokens(problem.bytes.data(), problem.bytes.data() + page_key_bytes(PageFormat::kF32, 2), 8, keys, values);
  problem.queries = {1, 0};
  const float sum = 63 + std::exp(1.0f);
  const auto plain = problem.run(table(), 0, 1, SoftplusFunction().of(table()));
  EXPECT_NEAR(plain.out[0], 1 / sum, 1e-6);
  EXPECT_NEAR(plain.out[5], std::exp(1.0f) / sum, 1e-5);
  EXPECT_NEAR(plain.lse[0], -200 + std::log(sum), 1e-4);
  const SoftplusFunction reweighted{{{plain.lse[0], 64, 1}}, {3}};
  EXPECT_NEAR(problem.run(table(), 0, 1, reweighted.of(table())).out[5], 1, 1e-6);
}

TEST_P(SoftplusOnEachIsa, CappedScoresEqualTheReference) {
  const CapConstants cap{1.5f};
  const auto weights = [&](const Kernels& of) { return WeightFunction{of.capped_weights, &cap.cap, nullptr, 0}; };
  for (const int rows : {1, 20}) {
    AttendProblem problem({64, 64, 64, rows, 2, 5, PageFormat::kF32});
    for (float& q : problem.queries) q *= 4;  // so that the cap has an effect
    const auto expected = problem.run(kernels("reference"), 0, 5, weights(kernels("reference")));
    const auto found = problem.run(table(), 0, 5, weights(table()));
    expect_near(expected.out, found.out, 2e-5f);
    expect_near(expected.lse, found.lse, 2e-5f);
    const float limit = cap.cap + std::log(5.0f * kPageTokens);
    for (const float lse : found.lse) EXPECT_LE(lse, limit) << "no score is above the cap";
    EXPECT_NE(problem.run(table(), 0, 5).lse, found.lse);
  }
}

TEST(SoftplusOnTiles, UsesTheFloatKernel) {
  const auto tiles = amx_kernels();
  if (!tiles) GTEST_SKIP() << "no AVX-512 here, which these kernels also use";
  const AttendProblem problem({64, 64, 64, 20, 2, 3, PageFormat::kBF16});
  const auto expected = problem.run(kernels("avx512"), 0, 3, SoftplusFunction().of(kernels("avx512")));
  const auto found = problem.run(*tiles, 0, 3, SoftplusFunction().of(*tiles));
  EXPECT_EQ(found.out, expected.out);
  EXPECT_EQ(found.lse, expected.lse);
}

INSTANTIATE_TEST_SUITE_P(Isa, SoftplusOnEachIsa, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace fathom
