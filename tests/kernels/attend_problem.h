#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "random_rows.h"

namespace fathom::test {

/// The shape of one task of attention.
struct AttendCase {
  int key_dim, value_dim, rotary_dim, rows, group, pages;
  PageFormat format;
  int value_offset = -1;  // as in AttendTask
};

/// Random pages, positions, masks and queries of one case.
struct AttendProblem {
  explicit AttendProblem(const AttendCase& c) : shape(c), random(c.rows * 100 + c.key_dim) {
    const size_t key_bytes = page_key_bytes(c.format, c.key_dim),
                 value_bytes = c.value_offset < 0 ? page_value_bytes(c.format, c.value_dim) : 0;
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
      page.values = c.value_offset < 0 ? keys + key_bytes : keys;
      if (c.rotary_dim > 0 && p % 5 != 4) {
        page.cos = cos.data() + static_cast<size_t>(p) * c.rotary_dim / 2;
        page.sin = sin.data() + static_cast<size_t>(p) * c.rotary_dim / 2;
      }
      page.mask = p % 3 == 0 ? ~uint64_t{0} : (static_cast<uint64_t>(random()) << 32) | random();
      for (int passes = p % 4; p % 3 != 0 && passes > 0;
           --passes)  // some pages have long ranges without a visible token
        page.mask &= (static_cast<uint64_t>(random()) << 32) | random();
      if (p % 2 == 1) page.row_masks = row_masks.data() + static_cast<size_t>(p) * c.rows;
      reads.push_back(page);
    }
  }

  /// Fills a page with 64 random tokens, without rotations by their offsets.
  void fill_page(std::byte* keys, std::byte* values) {
    const std::vector<float> key = gaussian(static_cast<size_t>(kPageTokens) * shape.key_dim, random());
    const std::vector<float> value = gaussian(static_cast<size_t>(kPageTokens) * shape.value_dim, random());
    PageWrite write;
    write.format = shape.format;
    write.key_dim = shape.key_dim;
    write.value_dim = shape.value_offset < 0 ? shape.value_dim : 0;
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
  Result run(const Kernels& table, int64_t first_page, int64_t page_count, const WeightFunction& weights = {},
             bool with_out = true, bool with_mass = true) const {
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
    task.value_offset = shape.value_offset;
    task.rows = shape.rows;
    task.group = shape.group;
    task.queries = queries.data();
    task.pages = reads.data() + first_page;
    task.page_count = page_count;
    task.weights = weights;
    task.out = with_out ? r.out.data() : nullptr;
    task.lse = r.lse.data();
    task.mass = with_mass ? r.mass.data() : nullptr;
    table.attend(task, scratch.data());
    return r;
  }

  AttendCase shape;
  std::mt19937 random;
  AlignedBuffer<std::byte> bytes;
  std::vector<float> queries, cos, sin;
  std::vector<uint64_t> row_masks;
  std::vector<PageRead> reads;
};

/// Weights by softplus; with parameters of each query, re-weighted by a power.
struct SoftplusFunction {
  std::vector<SoftplusQuery> queries{};
  SoftplusConstants constants{};
  WeightFunction of(const Kernels& table) const {
    return {table.softplus_weights, &constants.power, queries.empty() ? nullptr : &queries[0].lse,
            sizeof(SoftplusQuery) / sizeof(float)};
  }
};

inline void expect_near(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;  // infinities
    ASSERT_NEAR(a[i], b[i], tolerance * (1 + std::fabs(a[i]))) << i;
  }
}

/// Makes one element of some queries NaN or infinite. Expects their results to be NaN, and those of the others to
/// keep their bits, with each weight function.
inline void expect_nan_of_bad_queries(const Kernels& table, const AttendCase& c) {
  const AttendProblem good(c);
  AttendProblem bad(c);
  const int queries = c.rows * c.group;
  const float values[] = {NAN, INFINITY, -INFINITY};
  std::vector<char> is_bad(queries, 0);
  for (int i = 0; i < queries; i += 1 + i % 3) {
    const int dim = i % 2 ? c.key_dim - 1 - i % 5 : i % c.key_dim;
    bad.queries[static_cast<size_t>(i) * c.key_dim + std::max(dim, 0)] = values[i % 3];
    is_bad[i] = 1;
  }
  const SoftplusFunction plain, reweighted{std::vector<SoftplusQuery>(queries, {5.0f, 100.0f, 1.0f}), {3}};
  const CapConstants cap{2};
  for (const WeightFunction& form : {WeightFunction{}, plain.of(table), reweighted.of(table),
                                     WeightFunction{table.capped_weights, &cap.cap, nullptr, 0}}) {
    for (const bool with_mass : {true, false}) {
      const AttendProblem::Result expected = good.run(table, 0, c.pages, form, true, with_mass);
      AttendProblem::Result found = bad.run(table, 0, c.pages, form, true, with_mass);
      const AttendProblem::Result only_lse = bad.run(table, 0, c.pages, form, false, false);
      for (int i = 0; i < queries; ++i) {
        SCOPED_TRACE(testing::Message() << "query " << i << " of a weight function " << (form.apply != nullptr));
        const auto check = [&](float value, float original) {
          if (is_bad[i]) {
            ASSERT_TRUE(std::isnan(value)) << value;
          } else {
            ASSERT_EQ(value, original);
          }
        };
        ASSERT_NO_FATAL_FAILURE(check(found.lse[i], expected.lse[i]));
        ASSERT_EQ(std::isnan(only_lse.lse[i]), static_cast<bool>(is_bad[i]));
        for (int d = 0; d < c.value_dim; ++d)
          ASSERT_NO_FATAL_FAILURE(check(found.out[i * c.value_dim + d], expected.out[i * c.value_dim + d]));
        for (int p = 0; with_mass && p < c.pages; ++p)
          ASSERT_NO_FATAL_FAILURE(check(found.mass[i * c.pages + p], expected.mass[i * c.pages + p]));
        if (!is_bad[i] || c.value_dim > 64) continue;
        for (const bool bad_first : {true, false}) {  // merged with another part of the pages
          std::vector<float> a(c.value_dim, 1.0f), b(c.value_dim, NAN);
          float lse_a = 3, lse_b = found.lse[i];
          if (bad_first) std::swap(a, b), std::swap(lse_a, lse_b);
          merge_attention(a.data(), lse_a, b.data(), lse_b, c.value_dim);
          ASSERT_TRUE(std::isnan(lse_a) && std::isnan(a[0]));
        }
      }
    }
  }
}

}  // namespace fathom::test
