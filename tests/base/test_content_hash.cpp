#include "base/content_hash.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace fathom {
namespace {

TEST(ContentHash, EveryChangedBitChangesTheHash) {
  const std::string text = "The keys and values of 64 consecutive tokens.";
  std::set<uint64_t> hashes{hash_content(text)};
  for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string changed = text;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
    EXPECT_TRUE(hashes.insert(hash_content(changed)).second) << bit;
  }
}

TEST(ContentHash, DependsOnLengthsAndBoundaries) {
  EXPECT_NE(hash_content(std::string(3, '\0')), hash_content(std::string(4, '\0')));
  EXPECT_NE(hash_content(""), hash_content(std::string(1, '\0')));
  ContentHash split, whole;
  split.add(std::string_view("ab"));
  split.add(std::string_view("c"));
  whole.add(std::string_view("abc"));
  EXPECT_NE(split.value(), whole.value());
  EXPECT_EQ(whole.value(), hash_content("abc"));
}

}  // namespace
}  // namespace fathom
