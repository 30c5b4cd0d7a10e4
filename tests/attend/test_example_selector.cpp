// The selector of docs/howto/write-a-selector.md.
#include <gtest/gtest.h>

#include "../../examples/selector/strided.cpp"
#include "reading.h"

namespace fathom {
namespace {

/// The tokens that the newest of 2,000 tokens attends to, in the first head.
std::vector<int64_t> attended(const std::string& spec) {
  const SelectorEntry entry = strided_method();
  test::Reading reading({}, "dense");
  reading.selector = entry.make(check_values(parse_spec(spec), entry.info.parameters));
  reading.read(1999);
  reading.read(1);
  return reading.attended(0);
}

TEST(ExampleSelector, StrideOneEqualsDense) {
  std::vector<int64_t> all(2000);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(attended("strided:stride=1"), all);
  EXPECT_EQ(attended("strided:window=2000"), all);
}

TEST(ExampleSelector, SelectsTheWindowAndEveryNthPageBeforeIt) {
  std::vector<int64_t> expected;
  for (int64_t token = 0; token < 2000; ++token) {
    const bool newest = (token / 64 + 1) * 64 > 2000 - 100;
    if (newest || token / 64 % 4 == 0) expected.push_back(token);
  }
  EXPECT_EQ(attended("strided:window=100,stride=4"), expected);
  EXPECT_LT(expected.size(), 700);
}

}  // namespace
}  // namespace fathom
