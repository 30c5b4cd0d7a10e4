#include "kernels/pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "random_rows.h"

namespace fathom {
namespace {

using test::gaussian;

constexpr PageFormat kFormats[] = {PageFormat::kBF16, PageFormat::kF32, PageFormat::kQ8, PageFormat::kQ4};

/// A page and the data that is written into it.
struct TestPage {
  TestPage(PageFormat format, int key_dim, int value_dim, int rotary_dim, uint32_t seed)
      : keys(gaussian(static_cast<size_t>(kPageTokens) * key_dim, seed)),
        values(gaussian(static_cast<size_t>(kPageTokens) * value_dim, seed + 1)),
        bytes(page_key_bytes(format, key_dim) + page_value_bytes(format, value_dim)) {
    for (int o = 0; o < kPageTokens; ++o) {
      for (int half = 0; half < 2; ++half) {
        for (int i = 0; i < rotary_dim / 2; ++i) {
          const double angle = o / (1.0 + i);
          rotations.push_back(static_cast<float>(half ? std::sin(angle) : std::cos(angle)));
        }
      }
    }
    std::fill(bytes.data(), bytes.data() + bytes.size(), std::byte{0});
    write.format = format;
    write.key_dim = key_dim;
    write.value_dim = value_dim;
    write.rotary_dim = rotary_dim;
    write.page_keys = bytes.data();
    write.page_values = bytes.data() + page_key_bytes(format, key_dim);
    write.keys = keys.data();
    write.key_stride = key_dim;
    write.values = values.data();
    write.value_stride = value_dim;
    write.rotations = rotations.data();
  }

  /// Token i of the source goes to offset i.
  void put(void (*writer)(const PageWrite&), int first, int count) {
    PageWrite some = write;
    some.first = first;
    some.count = count;
    some.keys += first * write.key_stride;
    some.values += first * write.value_stride;
    writer(some);
  }
  float key(int token, int d) const { return page_key(write.format, write.key_dim, write.page_keys, token, d); }
  float value(int token, int d) const {
    return page_value(write.format, write.value_dim, write.page_values, token, d);
  }

  std::vector<float> keys, values, rotations;
  AlignedBuffer<std::byte> bytes;
  PageWrite write;
};

bool same_bytes(const TestPage& a, const TestPage& b) { return std::ranges::equal(a.bytes.span(), b.bytes.span()); }

TEST(Pages, QuantisedPagesTakeAHalfOrAQuarterOfTheBytesPlusScales) {
  const size_t scales = 64 / 32 * kPageTokens * 2;
  EXPECT_EQ(page_key_bytes(PageFormat::kBF16, 64), 64u * 64 * 2);
  EXPECT_EQ(page_key_bytes(PageFormat::kQ8, 64), 64u * 64 + scales);
  EXPECT_EQ(page_value_bytes(PageFormat::kQ8, 64), 64u * 64 + scales);
  EXPECT_EQ(page_key_bytes(PageFormat::kQ4, 64), 64u * 64 / 2 + scales);
  EXPECT_EQ(page_value_bytes(PageFormat::kQ4, 64), 64u * 64 / 2 + scales);
  EXPECT_EQ(page_key_bytes(PageFormat::kQ4, 12), 2u * 64 * 4 + 64 * 2);  // 6 pairs take 2 words of 4
  EXPECT_EQ(page_value_bytes(PageFormat::kQ4, 5) % 64, 0u);
}

TEST(Pages, HoldTheWrittenValuesWithinTheFormatsStep) {
  for (const PageFormat format : kFormats) {
    for (const auto& [key_dim, value_dim] : {std::pair{64, 64}, std::pair{80, 20}, std::pair{6, 5}}) {
      TestPage page(format, key_dim, value_dim, 0, 3);
      page.put(write_page, 0, kPageTokens);
      const int bits = quant_bits(format);
      for (int t = 0; t < kPageTokens; ++t) {
        const auto expect_row = [&](const float* row, int dim, const auto& stored) {
          for (int d = 0; d < dim; ++d) {
            const int group = d / kScaleGroup * kScaleGroup;
            float largest = 0;
            for (int i = group; i < std::min(group + kScaleGroup, dim); ++i)
              largest = std::max(largest, std::fabs(row[i]));
            float step = 0;
            if (format == PageFormat::kBF16) step = std::fabs(row[d]) / 128;
            if (bits) step = largest / (static_cast<float>((1 << bits) - 1) / 2) * (1 + 1.0f / 64);
            ASSERT_LE(std::fabs(stored(t, d) - row[d]), step / 2 * 1.0001f) << "token " << t << " dimension " << d;
          }
        };
        expect_row(page.keys.data() + t * key_dim, key_dim, [&](int i, int d) { return page.key(i, d); });
        expect_row(page.values.data() + t * value_dim, value_dim, [&](int i, int d) { return page.value(i, d); });
      }
    }
  }
}

TEST(Pages, KeysAreRotatedByTheirOffset) {
  TestPage page(PageFormat::kF32, 8, 4, 4, 5);
  page.put(write_page, 0, kPageTokens);
  for (int t = 0; t < kPageTokens; ++t) {
    for (int i = 0; i < 4; ++i) {
      const double angle = i < 2 ? t / (1.0 + i) : 0;
      const float* key = page.keys.data() + t * 8 + 2 * i;
      ASSERT_NEAR(page.key(t, 2 * i), key[0] * std::cos(angle) - key[1] * std::sin(angle), 1e-5);
      ASSERT_NEAR(page.key(t, 2 * i + 1), key[0] * std::sin(angle) + key[1] * std::cos(angle), 1e-5);
    }
  }
}

class PagesOnEachIsa : public testing::TestWithParam<std::string> {};

TEST_P(PagesOnEachIsa, HaveTheSameBitsForAnySplitOfTheWrites) {
  for (const PageFormat format : kFormats) {
    for (const auto& [key_dim, value_dim, rotary_dim] :
         {std::tuple{64, 64, 64}, std::tuple{128, 96, 128}, std::tuple{80, 20, 24}, std::tuple{6, 5, 4}}) {
      SCOPED_TRACE(testing::Message() << "format " << static_cast<int>(format) << " key " << key_dim);
      TestPage plain(format, key_dim, value_dim, rotary_dim, 7), fast(format, key_dim, value_dim, rotary_dim, 7);
      plain.put(write_page, 0, kPageTokens);
      for (const auto& [first, count] : {std::pair{0, 1}, std::pair{1, 30}, std::pair{31, 2}, std::pair{33, 31}})
        fast.put(kernels(GetParam()).write_page, first, count);
      EXPECT_TRUE(same_bytes(plain, fast));
    }
  }
}

TEST_P(PagesOnEachIsa, RewritingATokenDoesNotChangeOthers) {
  for (const PageFormat format : kFormats) {
    TestPage page(format, 40, 12, 16, 11), expected(format, 40, 12, 16, 11);
    page.put(kernels(GetParam()).write_page, 0, kPageTokens);
    std::fill(page.keys.begin() + 9 * 40, page.keys.begin() + 10 * 40, 3.0f);
    std::fill(page.values.begin() + 9 * 12, page.values.begin() + 10 * 12, -5.0f);
    expected.keys = page.keys;
    expected.values = page.values;
    expected.write.keys = expected.keys.data();
    expected.write.values = expected.values.data();
    page.put(kernels(GetParam()).write_page, 9, 1);
    expected.put(write_page, 0, kPageTokens);
    EXPECT_TRUE(same_bytes(page, expected)) << static_cast<int>(format);
  }
}

TEST_P(PagesOnEachIsa, ExtremeNumbersStayFinite) {
  for (const PageFormat format : {PageFormat::kQ8, PageFormat::kQ4}) {
    TestPage page(format, 32, 32, 0, 13);
    const float extremes[] = {0.0f,  -0.0f, 1e-38f, -1e-31f, std::numeric_limits<float>::denorm_min(),
                              1e30f, -1e30f};
    for (size_t i = 0; i < page.keys.size(); ++i) page.keys[i] = extremes[i % 7];
    for (size_t i = 0; i < page.values.size(); ++i) page.values[i] = extremes[i % 5];
    page.put(kernels(GetParam()).write_page, 0, kPageTokens);
    for (int t = 0; t < kPageTokens; ++t) {
      for (int d = 0; d < 32; ++d) {
        ASSERT_TRUE(std::isfinite(page.key(t, d)));
        ASSERT_EQ(page.value(t, d), 0.0f);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, PagesOnEachIsa, testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace fathom
