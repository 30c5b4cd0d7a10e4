// Pages that hold only keys; the values are dimensions of the keys (PageShape::value_offset).
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "memory/page_pool.h"
#include "seed.h"
#include "token_pages.h"

namespace fathom {
namespace {

using test::element;
using test::following;
using test::kKeyDim;
using test::kRotaryDim;

constexpr int kLayoutHeads = 2, kLayoutValues = 3, kOffset = 5;
constexpr PageFormat kLayoutFormats[] = {PageFormat::kBF16, PageFormat::kF32, PageFormat::kQ8, PageFormat::kQ4};
static_assert(kOffset >= kRotaryDim && kOffset + kLayoutValues == kKeyDim);

PageShape shape_of(PageFormat format) { return {format, kKeyDim, kLayoutValues, kOffset}; }

/// A sequence of one layer whose pages hold only keys.
class KeyOnlySequence {
 public:
  explicit KeyOnlySequence(PageFormat format)
      : store(std::make_shared<PageStore>(shape_of(format))),
        sequence(test::small_sequence(store, 1, kLayoutHeads)) {}

  /// Writes the keys of tokens `ids` in all heads.
  static void write(Sequence& to, const std::vector<int64_t>& ids) {
    std::vector<float> keys(ids.size() * kKeyDim);
    for (int head = 0; head < kLayoutHeads; ++head) {
      for (size_t i = 0; i < ids.size(); ++i)
        for (int d = 0; d < kKeyDim; ++d) keys[i * kKeyDim + d] = element(ids[i], head, 0, d);
      to.kv(0).write(kernels(), head, std::ssize(ids), keys.data(), kKeyDim, nullptr, 0);
    }
  }
  static void read(Sequence& to, const std::vector<int64_t>& ids) {
    to.open(following(to.next_position(), std::ssize(ids)));
    write(to, ids);
    to.commit();
  }

  /// Expects these visible tokens in each head. rounded: number of times a key may have been rounded.
  static void expect(const Sequence& found, const std::vector<int64_t>& ids, double rounded = 1) {
    const PagedKv& kv = found.kv(0);
    for (int head = 0; head < kLayoutHeads; ++head) {
      size_t i = 0;
      for (const PageEntry& entry : kv.table(head)) {
        for (int t = 0; t < entry.filled; ++t) {
          if (!(entry.mask >> t & 1)) continue;
          ASSERT_LT(i, ids.size());
          ASSERT_NO_FATAL_FAILURE(expect_token(kv.store(), entry.page, t, ids[i++], head, rounded));
        }
      }
      EXPECT_EQ(i, ids.size());
    }
  }

  std::shared_ptr<PageStore> store;
  Sequence sequence;

 private:
  static void expect_token(const PageStore& store, PageId page, int t, int64_t id, int head, double rounded) {
    const PageFormat format = store.shape().format;
    const double tolerance = 2 * rounded * test::rounding(format);
    for (int pair = 0; pair < kKeyDim / 2; ++pair) {
      const double even = element(id, head, 0, 2 * pair), odd = element(id, head, 0, 2 * pair + 1);
      const double angle = pair < kRotaryDim / 2 ? t * test::small_rotary().frequencies()[pair] : 0;
      const double rotated[] = {even * std::cos(angle) - odd * std::sin(angle),
                                even * std::sin(angle) + odd * std::cos(angle)};
      for (int i = 0; i < 2; ++i) {
        ASSERT_NEAR(page_key(format, kKeyDim, store.keys(page), t, 2 * pair + i), rotated[i], tolerance)
            << "token " << id << " offset " << t << " pair " << pair;
      }
    }
    for (int d = 0; d < kLayoutValues; ++d) {
      ASSERT_EQ(store.value(page, t, d), page_key(format, kKeyDim, store.keys(page), t, kOffset + d));
      ASSERT_NEAR(store.value(page, t, d), element(id, head, 0, kOffset + d), tolerance);
    }
  }
};

class ValuesInKeysTest : public testing::TestWithParam<PageFormat> {};

TEST_P(ValuesInKeysTest, UseNoBytes) {
  const PageShape shape = shape_of(GetParam());
  EXPECT_EQ(shape.value_bytes(), 0u);
  EXPECT_EQ(shape.bytes(), page_key_bytes(shape.format, kKeyDim));
  KeyOnlySequence memory(GetParam());
  memory.read(memory.sequence, following(0, 200));
  EXPECT_EQ(memory.sequence.kv(0).page_bytes(), 4 * kLayoutHeads * page_key_bytes(shape.format, kKeyDim));
  EXPECT_EQ(memory.store->bytes_in_use(), memory.sequence.kv(0).page_bytes());
  KeyOnlySequence::expect(memory.sequence, following(0, 200));
}

TEST_P(ValuesInKeysTest, HaveASeparateStorePerShape) {
  PagePool pool;
  const PageShape keys = shape_of(GetParam());
  PageShape own = keys, other = keys;
  own.value_offset = -1;
  other.value_offset = kOffset - 1;
  EXPECT_EQ(pool.store(keys), pool.store(shape_of(GetParam())));
  EXPECT_NE(pool.store(keys), pool.store(own));
  EXPECT_NE(pool.store(keys), pool.store(other));
}

TEST_P(ValuesInKeysTest, ForkingAndTruncatingAreIndependent) {
  KeyOnlySequence memory(GetParam());
  memory.read(memory.sequence, following(0, 150));
  Sequence fork = memory.sequence.fork();
  memory.read(fork, following(1000, 90));  // writes to a page that both share
  memory.sequence.truncate(140);
  memory.read(memory.sequence, following(2000, 30));
  std::vector<int64_t> first = following(0, 140), second = following(0, 150);
  for (const int64_t id : following(2000, 30)) first.push_back(id);
  for (const int64_t id : following(1000, 90)) second.push_back(id);
  KeyOnlySequence::expect(memory.sequence, first);
  KeyOnlySequence::expect(fork, second);
}

TEST_P(ValuesInKeysTest, AreMovedWithTheirKeysByCompacting) {
  KeyOnlySequence memory(GetParam());
  memory.read(memory.sequence, following(0, 300));
  std::mt19937 random(test::seed(0));
  std::vector<char> keep(300);
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < 300; ++i) {
    keep[i] = i % 3 != 0 && random() % 3 != 0;
    if (keep[i]) kept.push_back(i);
  }
  for (int head = 0; head < kLayoutHeads; ++head) {
    memory.sequence.kv(0).evict(head, keep);
    ASSERT_TRUE(memory.sequence.kv(0).compact(kernels(), head));
  }
  const double rounded = quant_bits(GetParam()) ? 3 : 2;
  KeyOnlySequence::expect(memory.sequence, kept, rounded);
  memory.read(memory.sequence, following(500, 70));
  for (const int64_t id : following(500, 70)) kept.push_back(id);
  KeyOnlySequence::expect(memory.sequence, kept, rounded);
  const int64_t pages = (std::ssize(kept) + kPageTokens) / kPageTokens + 1;
  EXPECT_LE(memory.store->bytes_in_use(), pages * kLayoutHeads * memory.store->shape().key_bytes());
}

TEST_P(ValuesInKeysTest, AcceptedDraftsEqualReadTokens) {
  for (const int64_t before : {20, 60}) {  // a draft inside a page, and one across two pages
    KeyOnlySequence memory(GetParam());
    memory.read(memory.sequence, following(0, before));
    const std::vector<int64_t> ids = following(3000, 8);
    memory.sequence.open(following(before, 8), std::vector<int32_t>(8), true);
    KeyOnlySequence::write(memory.sequence, ids);
    memory.sequence.accept(6);
    std::vector<int64_t> expected = following(0, before);
    for (const int64_t id : following(3000, 6)) expected.push_back(id);
    KeyOnlySequence::expect(memory.sequence, expected);
  }
}

std::string name_of(const testing::TestParamInfo<PageFormat>& format) {
  constexpr const char* kNames[] = {"bf16", "f32", "q8", "q4"};
  return kNames[static_cast<size_t>(format.param)];
}

INSTANTIATE_TEST_SUITE_P(Formats, ValuesInKeysTest, testing::ValuesIn(kLayoutFormats), name_of);

}  // namespace
}  // namespace fathom
