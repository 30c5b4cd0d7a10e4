#include "seed.h"

#include <gtest/gtest.h>

#include <cstdio>

namespace fathom::test {
namespace {

/// Prints the seed after each failed test.
class SeedPrinter final : public testing::EmptyTestEventListener {
 public:
  void OnTestEnd(const testing::TestInfo& info) override {
    if (!info.result()->Failed()) return;
    std::printf("[  SEED  ] repeat with --gtest_random_seed=%d\n", GTEST_FLAG_GET(random_seed));
  }
};

[[maybe_unused]] const bool kPrints = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new SeedPrinter);
  return true;
}();

}  // namespace

uint32_t seed(uint32_t number) { return number + 0x9E3779B9u * static_cast<uint32_t>(GTEST_FLAG_GET(random_seed)); }

}  // namespace fathom::test
