#include <gtest/gtest.h>

#include <cmath>

#include "random_rows.h"

namespace fathom {
namespace {

class PeakOnEachIsa : public testing::TestWithParam<std::string> {};

TEST_P(PeakOnEachIsa, DoesAtLeastTheRequestedMultiplyAddsAndFewMore) {
  const Kernels& table = kernels(GetParam());
  for (auto* const peak : {table.peak, table.peak_f32, table.peak_bf16}) {
    if (!peak) continue;
    for (const int64_t n : {1, 1000, 100000}) {
      float sink = 0;
      const int64_t done = peak(n, &sink);
      EXPECT_GE(done, n);
      EXPECT_LT(done, n + (GetParam() == "amx" ? 1 << 15 : 2000)) << "rounded up to one step of the loop";
      EXPECT_TRUE(std::isfinite(sink));
    }
  }
}

TEST_P(PeakOnEachIsa, ReadSumsEveryWord) {
  const Kernels& plain = kernels("reference");
  const Kernels& fast = kernels(GetParam());
  for (const size_t steps : {0, 1, 3, 17}) {
    const size_t n = steps * kReadStep;
    std::vector<std::byte> bytes(n);
    for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(i * i + i / 251);
    EXPECT_EQ(fast.read(bytes.data(), n), plain.read(bytes.data(), n)) << n << " bytes";
    if (n == 0) continue;
    for (const size_t at : {size_t{0}, n / 2, n - 4}) {
      const uint32_t before = fast.read(bytes.data(), n);
      bytes[at] ^= std::byte{1};
      EXPECT_NE(fast.read(bytes.data(), n), before) << "byte " << at << " of " << n << " is not read";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PeakOnEachIsa, testing::ValuesIn(available_isas()));

}  // namespace
}  // namespace fathom
