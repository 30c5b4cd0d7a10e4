#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "attend_problem.h"

namespace fathom {
namespace {

using test::AttendCase;
using test::AttendProblem;
using test::expect_near;

class AttendOnEachIsa : public testing::TestWithParam<std::string> {};

TEST_P(AttendOnEachIsa, EqualsReferenceOverShapesMasksAndPositions) {
  for (const PageFormat format : {PageFormat::kBF16, PageFormat::kF32, PageFormat::kQ8, PageFormat::kQ4}) {
    // few queries are multiplied with quantised values as numbers of 16 bits
    const float tolerance = quant_bits(format) ? 3e-4f : 1e-5f;
    for (const AttendCase c : {AttendCase{64, 64, 64, 1, 4, 9, format}, AttendCase{128, 128, 128, 3, 2, 5, format},
                               AttendCase{64, 64, 0, 20, 1, 3, format}, AttendCase{80, 80, 32, 7, 3, 4, format},
                               AttendCase{128, 64, 64, 64, 4, 4, format}, AttendCase{12, 20, 4, 2, 5, 3, format},
                               AttendCase{12, 20, 4, 33, 2, 3, format}, AttendCase{80, 48, 64, 1, 1, 3, format},
                               AttendCase{128, 128, 128, 1, 8, 3, format}, AttendCase{96, 96, 96, 70, 1, 3, format},
                               AttendCase{4, 2, 2, 2, 2, 7, format}, AttendCase{576, 512, 64, 1, 3, 12, format}}) {
      SCOPED_TRACE(testing::Message() << "key " << c.key_dim << " value " << c.value_dim << " rows " << c.rows
                                      << " format " << static_cast<int>(format) << " group " << c.group);
      const AttendProblem problem(c);
      const auto expected = problem.run(kernels("reference"), 0, c.pages);
      const auto found = problem.run(kernels(GetParam()), 0, c.pages);
      expect_near(expected.out, found.out, tolerance);
      expect_near(expected.lse, found.lse, tolerance);
      expect_near(expected.mass, found.mass, tolerance);
      // visible tokens of several pages may be gathered if the masses of pages are not computed
      const auto gathered = problem.run(kernels(GetParam()), 0, c.pages, {}, true, false);
      expect_near(expected.out, gathered.out, tolerance);
      expect_near(expected.lse, gathered.lse, tolerance);
    }
  }
}

TEST_P(AttendOnEachIsa, PageScoresEqualTheReference) {
  for (const PageFormat format : {PageFormat::kBF16, PageFormat::kF32, PageFormat::kQ8, PageFormat::kQ4}) {
    for (const auto& [key_dim, count] : {std::pair{64, 1}, {128, 5}, {12, 3}, {80, 33}, {96, 16}}) {
      SCOPED_TRACE(testing::Message() << "key " << key_dim << " queries " << count << " format "
                                      << static_cast<int>(format));
      const AttendProblem problem({key_dim, 8, 0, count, 1, 1, format});
      ScoreTask task{format, key_dim, problem.reads[0].keys, problem.queries.data(), count, nullptr};
      AlignedBuffer<float> scratch(static_cast<size_t>(kPageTokens) * key_dim);
      std::vector<float> expected(static_cast<size_t>(count) * kPageTokens, NAN), found = expected;
      task.scores = expected.data();
      kernels("reference").score_page(task, scratch.data());
      task.scores = found.data();
      kernels(GetParam()).score_page(task, scratch.data());
      expect_near(expected, found, 1e-5f);
    }
  }
}

TEST_P(AttendOnEachIsa, BoundsOfGroupsOfKeysEqualTheReference) {
  for (const int64_t n : {16, 64, 240}) {
    for (const int columns : {1, 2, 4}) {
      for (const int count : {0, 1, 4, 7}) {
        const int64_t pages = 1 + n / 64 + columns;  // odd and even
        std::vector<uint32_t> bounds;
        for (const float x : test::gaussian(pages * n, columns))
          bounds.push_back(f32_to_bf16(x - 0.5f) | static_cast<uint32_t>(f32_to_bf16(x + 0.5f)) << 16);
        const std::vector<float> below = test::gaussian(count * n, 1), above = test::gaussian(count * n, 2);
        std::vector<float> expected(pages * columns, NAN), found = expected;
        BoundTask task{bounds.data(), pages, below.data(), above.data(), n, count, columns, expected.data()};
        kernels("reference").largest_bounds(task);
        task.out = found.data();
        kernels(GetParam()).largest_bounds(task);
        SCOPED_TRACE(testing::Message() << n << " words, " << columns << " groups, " << count << " queries");
        if (count == 0) {
          EXPECT_EQ(found, expected);
        } else {
          expect_near(expected, found, 1e-4f);
        }
      }
    }
  }
}

TEST_P(AttendOnEachIsa, RoundedPagesAreCloseToFloats) {
  for (const int rows : {1, 24}) {  // few queries, and many
    const AttendCase floats{64, 64, 64, rows, 4, 6, PageFormat::kF32};
    const auto expected = AttendProblem(floats).run(kernels("reference"), 0, 6);
    double length = 0;
    for (const float v : expected.out) length += static_cast<double>(v) * v;
    for (const auto& [format, bound] : {std::pair{PageFormat::kBF16, 0.005}, std::pair{PageFormat::kQ8, 0.015},
                                        std::pair{PageFormat::kQ4, 0.25}}) {
      AttendCase rounded = floats;
      rounded.format = format;  // of the same numbers
      const auto found = AttendProblem(rounded).run(kernels(GetParam()), 0, 6);
      double error = 0;
      for (size_t i = 0; i < found.out.size(); ++i) error += std::pow(found.out[i] - expected.out[i], 2);
      EXPECT_LT(std::sqrt(error / length), bound) << "format " << static_cast<int>(format) << " rows " << rows;
      EXPECT_GT(std::sqrt(error / length), bound / 8) << "the bound is too loose";
    }
  }
}

TEST_P(AttendOnEachIsa, PartsOfThePagesMergeToTheWhole) {
  const AttendCase c{64, 64, 64, 5, 3, 8, PageFormat::kF32};
  const AttendProblem problem(c);
  const Kernels& table = kernels(GetParam());
  const auto whole = problem.run(table, 0, 8);
  auto left = problem.run(table, 0, 3);
  const auto right = problem.run(table, 3, 5);
  for (size_t i = 0; i < left.lse.size(); ++i) {
    merge_attention(left.out.data() + i * 64, left.lse[i], right.out.data() + i * 64, right.lse[i], 64);
  }
  expect_near(whole.out, left.out, 1e-5f);
  expect_near(whole.lse, left.lse, 1e-5f);
}

TEST_P(AttendOnEachIsa, MassesOfAllPagesSumToOne) {
  for (const PageFormat format : {PageFormat::kBF16, PageFormat::kQ8}) {
    const auto result = AttendProblem({64, 64, 64, 2, 2, 6, format}).run(kernels(GetParam()), 0, 6);
    for (int i = 0; i < 4; ++i) {
      float total = 0;
      for (int p = 0; p < 6; ++p) total += result.mass[i * 6 + p];
      EXPECT_NEAR(total, 1.0f, 1e-5f);
    }
  }
}

TEST_P(AttendOnEachIsa, RowsWithoutVisibleTokensGiveZeroAndMinusInfinity) {
  AttendProblem problem({64, 64, 64, 2, 2, 3, PageFormat::kBF16});
  for (PageRead& page : problem.reads) page.mask = 0;
  const auto result = problem.run(kernels(GetParam()), 0, 3);
  for (const float v : result.out) EXPECT_EQ(v, 0.0f);
  for (const float v : result.lse) EXPECT_EQ(v, -std::numeric_limits<float>::infinity());
  for (const float v : result.mass) EXPECT_EQ(v, 0.0f);
}

class NonFiniteQueriesOnEachIsa : public testing::TestWithParam<std::string> {};

TEST_P(NonFiniteQueriesOnEachIsa, NonFiniteQueriesGiveNanAndDoNotAffectOthers) {
  for (const PageFormat format : {PageFormat::kBF16, PageFormat::kF32, PageFormat::kQ8, PageFormat::kQ4}) {
    for (const AttendCase c :
         {AttendCase{64, 64, 64, 1, 4, 9, format}, AttendCase{128, 128, 128, 3, 2, 5, format},
          AttendCase{80, 80, 32, 7, 3, 4, format}, AttendCase{12, 20, 4, 33, 2, 3, format},
          AttendCase{96, 96, 96, 70, 1, 3, format}, AttendCase{576, 512, 64, 1, 3, 3, format}}) {
      SCOPED_TRACE(testing::Message() << "key " << c.key_dim << " rows " << c.rows << " format "
                                      << static_cast<int>(format));
      ASSERT_NO_FATAL_FAILURE(test::expect_nan_of_bad_queries(kernels(GetParam()), c));
    }
  }
}

TEST_P(NonFiniteQueriesOnEachIsa, NonFiniteQueriesGiveNanUnderAnyMask) {
  const Kernels& table = kernels(GetParam());
  for (const PageFormat format : {PageFormat::kBF16, PageFormat::kF32, PageFormat::kQ8, PageFormat::kQ4}) {
    for (const int rows : {1, 24}) {
      AttendProblem problem({64, 64, 64, rows, 2, 2, format});
      problem.queries[5] = NAN;
      for (const uint64_t mask : {uint64_t{1}, uint64_t{0xffff}, uint64_t{1} << 63, uint64_t{0}}) {
        for (PageRead& page : problem.reads) page.mask = mask;
        const auto result = problem.run(table, 0, 2);
        EXPECT_TRUE(std::isnan(result.lse[0])) << mask;
        EXPECT_TRUE(std::isnan(result.out[0]) && std::isnan(result.out[63])) << mask;
        EXPECT_FALSE(std::isnan(result.lse[1])) << mask;
        EXPECT_FALSE(std::isnan(result.out[64])) << mask;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, NonFiniteQueriesOnEachIsa, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });
INSTANTIATE_TEST_SUITE_P(Isa, AttendOnEachIsa, testing::ValuesIn(test::isas_without_tiles()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace fathom
