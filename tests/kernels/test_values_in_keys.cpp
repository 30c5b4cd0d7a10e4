// Attention over pages whose values are dimensions of their keys.
#include <gtest/gtest.h>

#include <cmath>

#include "attend_problem.h"

namespace fathom {
namespace {

using test::AttendCase;
using test::AttendProblem;
using test::expect_near;

constexpr PageFormat kFormats[] = {PageFormat::kBF16, PageFormat::kF32, PageFormat::kQ8, PageFormat::kQ4};
constexpr float kTolerance = 1e-5f;  // pages are read as floats in all formats

/// Few and many queries, with and without rotations, and offsets and dimensions that are not multiples of a vector.
std::vector<AttendCase> cases(PageFormat format) {
  return {
      {64, 48, 16, 1, 1, 9, format, 16},   {96, 64, 32, 3, 2, 5, format, 32},    {80, 80, 0, 7, 1, 3, format, 0},
      {12, 7, 4, 2, 5, 3, format, 5},      {12, 3, 4, 33, 2, 3, format, 4},      {64, 17, 32, 1, 16, 6, format, 40},
      {128, 64, 64, 64, 4, 4, format, 64}, {576, 512, 64, 1, 3, 12, format, 64}, {4, 1, 2, 1, 4, 4, format, 3}};
}

testing::Message describe(const AttendCase& c) {
  return testing::Message() << "key " << c.key_dim << " value " << c.value_dim << " at " << c.value_offset
                            << " rows " << c.rows << " group " << c.group << " format "
                            << static_cast<int>(c.format);
}

/// Returns the same queries, masks and rotations over ordinary pages of floats, with the same keys and with copies
/// of key dimensions as values.
AttendProblem with_copies(const AttendProblem& problem) {
  AttendCase c = problem.shape;
  const PageFormat format = c.format;
  const int value_offset = c.value_offset;
  c.format = PageFormat::kF32;
  c.value_offset = -1;
  AttendProblem copies(c);
  copies.queries = problem.queries;
  copies.row_masks = problem.row_masks;
  copies.cos = problem.cos;
  copies.sin = problem.sin;
  std::vector<float> keys(static_cast<size_t>(kPageTokens) * c.key_dim);
  for (size_t p = 0; p < copies.reads.size(); ++p) {
    PageRead& page = copies.reads[p];
    const PageRead& from = problem.reads[p];
    read_keys(format, c.key_dim, from.keys, kPageTokens, keys.data());
    PageWrite write;
    write.format = PageFormat::kF32;
    write.key_dim = c.key_dim;
    write.value_dim = c.value_dim;
    write.page_keys = const_cast<std::byte*>(page.keys);
    write.page_values = const_cast<std::byte*>(page.values);
    write.count = kPageTokens;
    write.keys = keys.data();
    write.values = keys.data() + value_offset;
    write.key_stride = write.value_stride = c.key_dim;
    write_page(write);
    page.mask = from.mask;
    page.cos = from.cos ? copies.cos.data() + p * c.rotary_dim / 2 : nullptr;
    page.sin = from.sin ? copies.sin.data() + p * c.rotary_dim / 2 : nullptr;
    page.row_masks = from.row_masks ? copies.row_masks.data() + p * c.rows : nullptr;
  }
  return copies;
}

void expect_same(const AttendProblem::Result& expected, const AttendProblem::Result& found) {
  expect_near(expected.out, found.out, kTolerance);
  expect_near(expected.lse, found.lse, kTolerance);
}

class ValuesInKeys : public testing::TestWithParam<std::string> {};

TEST_P(ValuesInKeys, EqualPagesWithCopiesAsValues) {
  for (const PageFormat format : kFormats) {
    for (const AttendCase& c : cases(format)) {
      SCOPED_TRACE(describe(c));
      const AttendProblem problem(c);
      const auto expected = with_copies(problem).run(kernels("reference"), 0, c.pages);
      const auto found = problem.run(kernels(GetParam()), 0, c.pages);
      expect_same(expected, found);
      expect_near(expected.mass, found.mass, kTolerance);
      expect_same(expected, problem.run(kernels(GetParam()), 0, c.pages, {}, true, false));
    }
  }
}

TEST_P(ValuesInKeys, WorkWithWeightFunctions) {
  const Kernels& table = kernels(GetParam());
  const CapConstants cap{2};
  for (const PageFormat format : kFormats) {
    for (const int rows : {1, 24}) {
      const AttendProblem problem({96, 64, 32, rows, 2, 4, format, 32});
      expect_same(with_copies(problem).run(kernels("reference"), 0, 4,
                                           {kernels("reference").capped_weights, &cap.cap, nullptr, 0}),
                  problem.run(table, 0, 4, {table.capped_weights, &cap.cap, nullptr, 0}));
    }
  }
}

TEST_P(ValuesInKeys, ComeFromTheirOwnKeysWhenOthersGiveTheScores) {
  for (const PageFormat format : kFormats) {
    for (const AttendCase& c : cases(format)) {
      SCOPED_TRACE(describe(c));
      AttendProblem problem(c);
      AttendProblem copies = with_copies(problem);
      for (size_t p = 0; p + 1 < problem.reads.size(); p += 2) {  // scores by the keys of the page that follows
        problem.reads[p].keys = problem.reads[p + 1].keys;
        copies.reads[p].keys = copies.reads[p + 1].keys;
      }
      const Kernels& table = kernels(GetParam());
      expect_same(copies.run(table, 0, c.pages), problem.run(table, 0, c.pages));
    }
  }
}

TEST_P(ValuesInKeys, LogSumsAloneNeedNoValues) {
  for (const PageFormat format : kFormats) {
    const float tolerance =
        quant_bits(format) ? 3e-4f
                           : kTolerance;  // few queries are multiplied with quantised values as numbers of 16 bits
    for (const AttendCase& c : cases(format)) {
      SCOPED_TRACE(describe(c));
      AttendProblem problem(c);
      const auto expected = problem.run(kernels("reference"), 0, c.pages);
      for (PageRead& page : problem.reads) page.values = nullptr;
      expect_near(expected.lse, problem.run(kernels(GetParam()), 0, c.pages, {}, false, false).lse, tolerance);
    }
  }
}

TEST_P(ValuesInKeys, NonFiniteQueriesGiveNanAndDoNotAffectOthers) {
  for (const PageFormat format : kFormats) {
    for (const int rows : {3, 33}) {
      ASSERT_NO_FATAL_FAILURE(
          test::expect_nan_of_bad_queries(kernels(GetParam()), {96, 64, 32, rows, 2, 3, format, 32}));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, ValuesInKeys, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace fathom
