#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <thread>

#include "amx_emulator.h"
#include "attend_problem.h"

namespace fathom {
namespace {

using test::AmxEmulator;
using test::AttendCase;
using test::AttendProblem;

constexpr PageFormat kFormats[] = {PageFormat::kBF16, PageFormat::kQ8, PageFormat::kQ4, PageFormat::kF32};

/// Runs the tile kernels on the processor, or on the emulator.
class AmxAttend : public testing::Test {
 protected:
  void SetUp() override {
    const std::optional<Kernels> table = amx_kernels();
    if (!table || !AmxEmulator::possible()) GTEST_SKIP() << "no AMX available, and no emulation of it";
    emulator_ = std::make_unique<AmxEmulator>();
    table_ = *table;
  }
  std::unique_ptr<AmxEmulator> emulator_;
  Kernels table_;
};

/// Queries, keys, weights and values are rounded once to bfloat16 (8 significant bits). Each result is within a few
/// of these roundings; the root mean square error is less than one.
void expect_bf16_near(const std::vector<float>& expected, const std::vector<float>& found) {
  ASSERT_EQ(expected.size(), found.size());
  double squares = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == found[i]) continue;  // infinities
    ASSERT_NEAR(expected[i], found[i], 0.025f * (1 + std::fabs(expected[i]))) << i;
    squares += std::pow((expected[i] - found[i]) / (1 + std::fabs(expected[i])), 2);
  }
  EXPECT_LT(std::sqrt(squares / static_cast<double>(expected.size())), 1.0 / 256);
}

TEST_F(AmxAttend, ValuesInKeysAreReadAsFloats) {
  for (const PageFormat format : kFormats) {
    const AttendProblem problem({96, 64, 32, 33, 2, 3, format, 32});
    const auto expected = problem.run(kernels("reference"), 0, 3);
    const auto found = problem.run(table_, 0, 3);
    test::expect_near(expected.out, found.out, 1e-5f);
    test::expect_near(expected.lse, found.lse, 1e-5f);
  }
}

TEST_F(AmxAttend, IsWithinRoundingOfReferenceOverShapesMasksAndPositions) {
  for (const PageFormat format : kFormats) {
    for (const AttendCase c : {AttendCase{64, 64, 64, 16, 1, 3, format}, AttendCase{64, 64, 0, 20, 1, 3, format},
                               AttendCase{128, 128, 128, 5, 4, 4, format}, AttendCase{80, 80, 32, 7, 3, 4, format},
                               AttendCase{128, 64, 64, 70, 1, 2, format}, AttendCase{96, 48, 96, 33, 2, 3, format},
                               AttendCase{64, 96, 64, 3, 8, 6, format}, AttendCase{12, 20, 4, 33, 2, 3, format},
                               AttendCase{64, 64, 64, 15, 1, 3, format}}) {
      SCOPED_TRACE(testing::Message() << "key " << c.key_dim << " value " << c.value_dim << " rows " << c.rows
                                      << " format " << static_cast<int>(format) << " group " << c.group);
      const AttendProblem problem(c);
      const auto expected = problem.run(kernels("reference"), 0, c.pages);
      const auto found = problem.run(table_, 0, c.pages);
      expect_bf16_near(expected.out, found.out);
      expect_bf16_near(expected.lse, found.lse);
      expect_bf16_near(expected.mass, found.mass);
    }
  }
}

TEST_F(AmxAttend, RowsDoNotDependOnTheNumberOfRows) {
  const AttendProblem all({64, 64, 64, 70, 1, 3, PageFormat::kBF16});
  const auto expected = all.run(table_, 0, 3);
  for (int rows = 16; rows < 70; rows += 1 + rows % 5) {
    AttendProblem some({64, 64, 64, 70, 1, 3, PageFormat::kBF16});
    some.shape.rows = rows;
    const auto found = some.run(table_, 0, 3);
    for (int i = 0; i < rows; ++i) {
      ASSERT_EQ(found.lse[i], expected.lse[i]) << rows;
      for (int d = 0; d < 64; ++d) ASSERT_EQ(found.out[i * 64 + d], expected.out[i * 64 + d]) << rows;
    }
  }
}

TEST_F(AmxAttend, RowsWithoutVisibleTokensGiveZeroAndMinusInfinity) {
  AttendProblem problem({64, 64, 64, 20, 2, 3, PageFormat::kBF16});
  std::vector<uint64_t> none(20, ~uint64_t{0});
  none[7] = 0;
  for (PageRead& page : problem.reads) page.row_masks = none.data();
  const auto result = problem.run(table_, 0, 3);
  for (int i = 0; i < 40; ++i) {
    const bool masked = i / 2 == 7;
    EXPECT_EQ(result.lse[i] == -std::numeric_limits<float>::infinity(), masked);
    for (int p = 0; p < 3; ++p) EXPECT_EQ(result.mass[i * 3 + p] == 0.0f, masked);
    for (int d = 0; masked && d < 64; ++d) EXPECT_EQ(result.out[i * 64 + d], 0.0f);
  }
}

TEST_F(AmxAttend, NonFiniteQueriesGiveNanAndDoNotAffectOthers) {
  for (const PageFormat format : kFormats) {
    for (const AttendCase c : {AttendCase{64, 64, 64, 20, 1, 3, format}, AttendCase{80, 48, 32, 7, 3, 2, format},
                               AttendCase{64, 64, 64, 1, 4, 2, format}}) {
      SCOPED_TRACE(testing::Message() << "key " << c.key_dim << " rows " << c.rows << " format "
                                      << static_cast<int>(format));
      ASSERT_NO_FATAL_FAILURE(test::expect_nan_of_bad_queries(table_, c));
    }
  }
}

TEST_F(AmxAttend, LargeScoresDoNotOverflow) {
  AttendProblem problem({64, 64, 64, 32, 1, 4, PageFormat::kBF16});
  for (float& q : problem.queries) q *= 300;
  const auto result = problem.run(table_, 0, 4);
  for (const float v : result.out) ASSERT_TRUE(std::isfinite(v));
  for (const float v : result.lse) ASSERT_TRUE(std::isfinite(v));
}

TEST_F(AmxAttend, ThreadsHaveSeparateTiles) {
  const AttendProblem problem({64, 64, 64, 40, 1, 4, PageFormat::kQ8});
  const auto alone = problem.run(table_, 0, 4);
  std::vector<AttendProblem::Result> results(2);
  std::vector<std::thread> threads;
  for (auto& result : results) threads.emplace_back([&] { result = problem.run(table_, 0, 4); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result.out, alone.out);
}

}  // namespace
}  // namespace fathom
