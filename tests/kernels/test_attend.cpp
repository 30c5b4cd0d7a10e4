#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "random_rows.h"

namespace fathom {
namespace {

using test::gaussian;

struct Case {
  int key_dim, value_dim, rotary_dim, rows, group, pages;
  PageFormat format;
};

/// Random pages, places, masks and queries of one case.
struct Problem {
  explicit Problem(const Case& c) : shape(c), random(c.rows * 100 + c.key_dim) {
    const size_t key_bytes = page_key_bytes(c.format, c.key_dim),
                 value_bytes = page_value_bytes(c.format, c.value_dim);
    bytes = AlignedBuffer<std::byte>(c.pages * (key_bytes + value_bytes));
    std::fill(bytes.data(), bytes.data() + bytes.size(), std::byte{0});
    queries = gaussian(static_cast<size_t>(c.rows) * c.group * c.key_dim, random(), 0.3f);
    row_masks.resize(static_cast<size_t>(c.pages) * c.rows);
    for (uint64_t& m : row_masks) m = (static_cast<uint64_t>(random()) << 32) | random();
    cos.resize(static_cast<size_t>(c.pages) * c.rotary_dim / 2);
    sin.resize(cos.size());
    for (size_t i = 0; i < cos.size(); ++i) {
      const double angle = random() % 1000;
      cos[i] = static_cast<float>(std::cos(angle));
      sin[i] = static_cast<float>(std::sin(angle));
    }
    for (int p = 0; p < c.pages; ++p) {
      PageRead page;
      std::byte* keys = bytes.data() + p * (key_bytes + value_bytes);
      fill_page(keys, keys + key_bytes);
      page.keys = keys;
      page.values = keys + key_bytes;
      if (c.rotary_dim > 0 && p % 5 != 4) {
        page.cos = cos.data() + static_cast<size_t>(p) * c.rotary_dim / 2;
        page.sin = sin.data() + static_cast<size_t>(p) * c.rotary_dim / 2;
      }
      page.mask = p % 3 == 0 ? ~uint64_t{0} : (static_cast<uint64_t>(random()) << 32) | random();
      if (p % 2 == 1) page.row_masks = row_masks.data() + static_cast<size_t>(p) * c.rows;
      reads.push_back(page);
    }
  }

  /// 64 random tokens, as they lie: rotations by offsets are the memory's matter.
  void fill_page(std::byte* keys, std::byte* values) {
    const std::vector<float> key = gaussian(static_cast<size_t>(kPageTokens) * shape.key_dim, random());
    const std::vector<float> value = gaussian(static_cast<size_t>(kPageTokens) * shape.value_dim, random());
    PageWrite write;
    write.format = shape.format;
    write.key_dim = shape.key_dim;
    write.value_dim = shape.value_dim;
    write.page_keys = keys;
    write.page_values = values;
    write.count = kPageTokens;
    write.keys = key.data();
    write.key_stride = shape.key_dim;
    write.values = value.data();
    write.value_stride = shape.value_dim;
    write_page(write);
  }

  struct Result {
    std::vector<float> out, lse, mass;
  };
  Result run(const Kernels& table, int64_t first_page, int64_t page_count) const {
    const int queries_count = shape.rows * shape.group;
    Result r;
    r.out.assign(static_cast<size_t>(queries_count) * shape.value_dim, NAN);
    r.lse.assign(queries_count, NAN);
    r.mass.assign(queries_count * page_count, NAN);
    AlignedBuffer<float> scratch(attend_scratch(shape.key_dim, shape.value_dim, queries_count));
    AttendTask task;
    task.format = shape.format;
    task.key_dim = shape.key_dim;
    task.value_dim = shape.value_dim;
    task.rotary_dim = shape.rotary_dim;
    task.rows = shape.rows;
    task.group = shape.group;
    task.queries = queries.data();
    task.pages = reads.data() + first_page;
    task.page_count = page_count;
    task.out = r.out.data();
    task.lse = r.lse.data();
    task.mass = r.mass.data();
    table.attend(task, scratch.data());
    return r;
  }

  Case shape;
  std::mt19937 random;
  AlignedBuffer<std::byte> bytes;
  std::vector<float> queries, cos, sin;
  std::vector<uint64_t> row_masks;
  std::vector<PageRead> reads;
};

void expect_near(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;  // infinities
    ASSERT_NEAR(a[i], b[i], tolerance * (1 + std::fabs(a[i]))) << i;
  }
}

class AttendOnEachIsa : public testing::TestWithParam<std::string> {};

TEST_P(AttendOnEachIsa, EqualsReferenceOverShapesMasksAndPlaces) {
  for (const PageFormat format : {PageFormat::kBF16, PageFormat::kF32, PageFormat::kQ8, PageFormat::kQ4}) {
    // few queries meet codes with numbers of 16 bits
    const float tolerance = code_bits(format) ? 3e-4f : 1e-5f;
    for (const Case c :
         {Case{64, 64, 64, 1, 4, 9, format}, Case{128, 128, 128, 3, 2, 5, format},
          Case{64, 64, 0, 20, 1, 3, format}, Case{80, 80, 32, 7, 3, 4, format}, Case{128, 64, 64, 64, 4, 4, format},
          Case{12, 20, 4, 2, 5, 3, format}, Case{12, 20, 4, 33, 2, 3, format}, Case{80, 48, 64, 1, 1, 3, format},
          Case{128, 128, 128, 1, 8, 3, format}, Case{96, 96, 96, 70, 1, 3, format}}) {
      SCOPED_TRACE(testing::Message() << "key " << c.key_dim << " value " << c.value_dim << " rows " << c.rows
                                      << " format " << static_cast<int>(format) << " group " << c.group);
      const Problem problem(c);
      const auto expected = problem.run(kernels("reference"), 0, c.pages);
      const auto found = problem.run(kernels(GetParam()), 0, c.pages);
      expect_near(expected.out, found.out, tolerance);
      expect_near(expected.lse, found.lse, tolerance);
      expect_near(expected.mass, found.mass, tolerance);
    }
  }
}

TEST_P(AttendOnEachIsa, PartsOfThePagesMergeToTheWhole) {
  const Case c{64, 64, 64, 5, 3, 8, PageFormat::kF32};
  const Problem problem(c);
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

TEST_P(AttendOnEachIsa, MassOfAllPagesIsOne) {
  for (const PageFormat format : {PageFormat::kBF16, PageFormat::kQ8}) {
    const auto result = Problem({64, 64, 64, 2, 2, 6, format}).run(kernels(GetParam()), 0, 6);
    for (int i = 0; i < 4; ++i) {
      float total = 0;
      for (int p = 0; p < 6; ++p) total += result.mass[i * 6 + p];
      EXPECT_NEAR(total, 1.0f, 1e-5f);
    }
  }
}

TEST_P(AttendOnEachIsa, NothingVisibleGivesZeroAndMinusInfinity) {
  Problem problem({64, 64, 64, 2, 2, 3, PageFormat::kBF16});
  for (PageRead& page : problem.reads) page.mask = 0;
  const auto result = problem.run(kernels(GetParam()), 0, 3);
  for (const float v : result.out) EXPECT_EQ(v, 0.0f);
  for (const float v : result.lse) EXPECT_EQ(v, -std::numeric_limits<float>::infinity());
  for (const float v : result.mass) EXPECT_EQ(v, 0.0f);
}

INSTANTIATE_TEST_SUITE_P(Isa, AttendOnEachIsa, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace fathom
