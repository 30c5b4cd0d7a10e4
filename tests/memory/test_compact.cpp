// PagedKv::compact: moving the visible tokens of a page table together.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>
#include <set>

#include "seed.h"
#include "token_pages.h"

namespace fathom {
namespace {

using test::store_of;

constexpr PageFormat kFormats[] = {PageFormat::kF32, PageFormat::kBF16, PageFormat::kQ8, PageFormat::kQ4};

bool compact(Sequence& sequence, int layer = 0, int head = 0) {
  return sequence.kv(layer).compact(kernels(), head);
}

/// A visible token of a page table. original: its index when it was read.
struct VisibleToken {
  int64_t index, original, position;
  PageId page;
  int offset;
};
/// Returns the visible tokens of a page table, in order.
std::vector<VisibleToken> visible_tokens(const Sequence& sequence, int layer = 0, int head = 0) {
  std::vector<VisibleToken> all;
  for (const PageEntry& entry : sequence.kv(layer).table(head)) {
    for (int o = 0; o < entry.filled; ++o) {
      if (entry.mask >> o & 1) {
        const int64_t index = entry.first + o;
        all.push_back(
            {index, sequence.kv(layer).compacted(head).original_index(index), entry.position + o, entry.page, o});
      }
    }
  }
  return all;
}

/// Returns a keep mask in which each token is kept with probability `share`.
std::vector<char> random_keep(int64_t tokens, double share, std::mt19937& random) {
  std::vector<char> keep(tokens);
  for (char& k : keep) k = random() % 1000 < share * 1000;
  return keep;
}

std::set<PageId> pages_of(const Sequence& sequence, int layer = 0, int head = 0) {
  std::set<PageId> pages;
  for (const PageEntry& entry : sequence.kv(layer).table(head))
    if (entry.page != kNoPage) pages.insert(entry.page);
  return pages;
}

TEST(Compact, TokensEqualTokensWrittenAtTheirNewPositions) {
  std::mt19937 random(test::seed(3));
  for (const PageFormat format : kFormats) {
    for (const double share : {0.02, 0.3, 0.5, 0.97}) {
      SCOPED_TRACE(testing::Message() << "format " << static_cast<int>(format) << " share " << share);
      Sequence sequence = test::small_sequence(test::small_store(format), 1, 1);
      test::read_following(sequence, 1000);
      sequence.move_to(37);
      const std::vector<char> keep = random_keep(1000, share, random);
      sequence.kv(0).evict(0, keep);
      ASSERT_TRUE(compact(sequence));
      const std::vector<VisibleToken> all = visible_tokens(sequence);
      ASSERT_EQ(std::ssize(all), std::ranges::count(keep, 1));
      int64_t id = -1, index = 1000 - std::ssize(all);
      for (const VisibleToken& token : all) {
        while (!keep[++id]) continue;
        ASSERT_EQ(token.original, id);
        ASSERT_EQ(token.index, index++);
        ASSERT_EQ(token.position, token.index + 37);
        // f32: 1e-5; bfloat16: 8e-3; quantised keys are rounded a second time
        ASSERT_NO_FATAL_FAILURE(test::expect_token(store_of(sequence), token.page, token.offset, id, 0,
                                                   format == PageFormat::kF32 ? 5 : 2));
      }
      EXPECT_EQ(sequence.kv(0).table(0).front().first, 1000 - std::ssize(all))
          << "nothing remains before the compacted tokens";
      EXPECT_LE(std::ssize(pages_of(sequence)), (std::ssize(all) + 63) / 64 + 1);
      EXPECT_EQ(store_of(sequence).bytes_in_use(), pages_of(sequence).size() * store_of(sequence).shape().bytes());
      EXPECT_EQ(gaps_of(sequence.kv(0).table(0)).masked, 0);
      EXPECT_EQ(sequence.next_position(), 1037);
      EXPECT_EQ(sequence.end_position(), 1037);
    }
  }
}

TEST(Compact, WithoutMaskedTokensNothingChanges) {
  Sequence sequence = test::small_sequence(test::small_store(), 1, 1);
  test::read_following(sequence, 300);
  const std::set<PageId> pages = pages_of(sequence);
  const PageTable table = sequence.kv(0).table(0);
  EXPECT_FALSE(compact(sequence));
  EXPECT_EQ(pages_of(sequence), pages);
  EXPECT_EQ(sequence.kv(0).table(0).size(), table.size());
  EXPECT_TRUE(sequence.kv(0).compacted(0).original_indices.empty());
  sequence.kv(0).mask(0, 100, 150);
  EXPECT_TRUE(compact(sequence));
  EXPECT_FALSE(compact(sequence)) << "no gaps are left";
}

TEST(Compact, NonConsecutivePositionsAreNotCompacted) {
  Sequence sequence = test::small_sequence(test::small_store(), 1, 1);
  test::read_tokens(sequence, test::following(0, 100), test::following(0, 100));
  test::read_tokens(sequence, test::following(100, 100), test::following(50, 100));
  sequence.kv(0).mask(0, 10, 90);
  const std::vector<VisibleToken> before = visible_tokens(sequence);
  EXPECT_FALSE(compact(sequence));
  const std::vector<VisibleToken> after = visible_tokens(sequence);
  ASSERT_EQ(after.size(), before.size());
  for (size_t i = 0; i < after.size(); ++i) EXPECT_EQ(after[i].position, before[i].position);
}

TEST(Compact, PagesWithoutGapsAreNotCopied) {
  Sequence sequence = test::small_sequence(test::small_store(PageFormat::kQ4), 1, 1);
  test::read_following(sequence, 64 * 20 + 10);
  std::vector<char> keep(sequence.tokens());
  for (int64_t t = 0; t < sequence.tokens(); ++t) keep[t] = t < 4 || t >= 64 * 10 + 30;
  sequence.kv(0).evict(0, keep);
  std::set<PageId> whole;
  for (const PageEntry& entry : sequence.kv(0).table(0))
    if (entry.first >= 64 * 11) whole.insert(entry.page);
  EXPECT_EQ(gaps_of(sequence.kv(0).table(0)).rewritten, 4 + 34);
  EXPECT_EQ(gaps_of(sequence.kv(0).table(0)).masked, 64 * 10 + 30 - 4);
  ASSERT_TRUE(compact(sequence));
  const std::set<PageId> pages = pages_of(sequence);
  EXPECT_TRUE(std::ranges::includes(pages, whole));
  EXPECT_EQ(pages.size(), whole.size() + 1);
  EXPECT_EQ(sequence.kv(0).table(0).size(), pages.size());
}

TEST(Compact, DoesNotChangeForks) {
  Sequence sequence = test::small_sequence(test::small_store(), 2, 2);
  test::read_following(sequence, 500);
  const Sequence fork = sequence.fork();
  const std::set<PageId> pages = pages_of(fork, 1, 1);
  std::mt19937 random(test::seed(5));
  for (int t = 0; t < 4; ++t) {
    sequence.kv(t / 2).evict(t % 2, random_keep(500, 0.3, random));
    ASSERT_TRUE(compact(sequence, t / 2, t % 2));
  }
  Sequence later = sequence.fork();
  test::read_following(sequence, 100);
  test::read_following(later, 100, 7000);
  EXPECT_EQ(pages_of(fork, 1, 1), pages);
  for (const VisibleToken& token : visible_tokens(fork, 1, 1)) {
    ASSERT_EQ(token.index, token.original);
    ASSERT_NO_FATAL_FAILURE(test::expect_token(store_of(fork), token.page, token.offset, token.original, 3));
  }
  for (const VisibleToken& token : visible_tokens(sequence, 1, 1))
    ASSERT_NO_FATAL_FAILURE(test::expect_token(store_of(fork), token.page, token.offset, token.original, 3, 5));
  for (const VisibleToken& token : visible_tokens(later, 1, 1)) {
    const int64_t id = token.original + (token.original < 500 ? 0 : 7000);
    ASSERT_NO_FATAL_FAILURE(test::expect_token(store_of(fork), token.page, token.offset, id, 3, 5));
  }
}

TEST(Compact, TruncatingRemovesTheTokensReadLast) {
  Sequence sequence = test::small_sequence(test::small_store(), 1, 2);
  test::read_following(sequence, 600);
  std::mt19937 random(test::seed(6));
  const std::vector<char> keep = random_keep(600, 0.25, random);
  sequence.kv(0).evict(1, keep);
  ASSERT_TRUE(compact(sequence, 0, 1));  // the other head is not compacted
  test::read_following(sequence, 50);
  test::remove_newest(sequence, 350);
  const std::vector<VisibleToken> all = visible_tokens(sequence, 0, 1);
  ASSERT_EQ(std::ssize(all), std::count(keep.begin(), keep.begin() + 300, 1));
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_LT(all[i].original, 300);
    ASSERT_EQ(all[i].position, 300 - std::ssize(all) + static_cast<int64_t>(i));
  }
  EXPECT_EQ(sequence.next_position(), 300);
  test::remove_newest(sequence, 299);
  EXPECT_EQ(std::ssize(visible_tokens(sequence, 0, 1)), keep[0]);
  test::read_following(sequence, 10);
  EXPECT_EQ(sequence.next_position(), 11);
  EXPECT_EQ(visible_tokens(sequence, 0, 1).back().position, 10);
}

TEST(Compact, TruncatingChangesOnlyVersionsOfTablesWhoseFullPagesMove) {
  Sequence sequence = test::small_sequence(test::small_store(), 1, 2);
  test::read_following(sequence, 600);
  std::mt19937 random(test::seed(8));
  sequence.kv(0).evict(1, random_keep(600, 0.25, random));
  ASSERT_TRUE(compact(sequence, 0, 1));
  test::read_following(sequence, 10);
  const uint64_t plain = sequence.kv(0).version(0), compacted = sequence.kv(0).version(1);
  test::remove_newest(sequence, 9);
  EXPECT_EQ(sequence.kv(0).version(1), compacted) << "only tokens read after compacting are removed";
  test::remove_newest(sequence, 12);  // also removes compacted tokens, so that the others move
  EXPECT_EQ(sequence.kv(0).version(1), compacted + 1);
  EXPECT_EQ(sequence.kv(0).first_changed(1, compacted), 0u);
  EXPECT_EQ(sequence.kv(0).version(0), plain) << "its last page was not full";
}

TEST(Compact, WithoutRotaryPositionsKeysKeepTheirBits) {
  const Rotary none({}, 100);
  for (const PageFormat format : kFormats) {
    PagedKvConfig config;
    config.store = test::small_store(format);
    config.rotations = std::make_shared<PositionRotations>(none);
    Sequence sequence = test::identical_layers(config);
    sequence.open(test::following(0, 200));
    std::vector<float> numbers(200 * 8);
    std::mt19937 random(test::seed(7));
    for (float& x : numbers) x = std::normal_distribution<float>()(random);
    sequence.kv(0).write(kernels(), 0, 200, numbers.data(), 8, numbers.data(), 8);
    sequence.commit();
    const auto keys = [&] {
      std::vector<float> all;
      for (const VisibleToken& token : visible_tokens(sequence)) {
        for (int d = 0; d < test::kKeyDim; ++d)
          all.push_back(page_key(format, test::kKeyDim, store_of(sequence).keys(token.page), token.offset, d));
        for (int d = 0; d < test::kValueDim; ++d)
          all.push_back(
              page_value(format, test::kValueDim, store_of(sequence).values(token.page), token.offset, d));
      }
      return all;
    };
    sequence.kv(0).evict(0, random_keep(200, 0.5, random));
    const std::vector<float> before = keys();
    ASSERT_TRUE(sequence.kv(0).compact(kernels(), 0));
    EXPECT_EQ(keys(), before);
  }
}

/// Returns the largest errors of key elements and of value elements after `times` rounds of reading 128 tokens,
/// evicting down to 512 tokens and compacting.
std::pair<double, double> drift(PageFormat format, int times) {
  std::mt19937 random(test::seed(8));
  Sequence sequence = test::small_sequence(test::small_store(format), 1, 1);
  test::read_following(sequence, 512);
  for (int n = 0; n < times; ++n) {
    test::read_following(sequence, 128);
    const std::vector<VisibleToken> all = visible_tokens(sequence);
    std::vector<char> keep(sequence.tokens());
    for (const VisibleToken& token : all) keep[token.index] = token.original % 3 == 0 && token.original < 512;
    for (int missing = 512 - static_cast<int>(std::ranges::count(keep, 1)); missing > 0;) {
      char& one = keep[all[random() % all.size()].index];
      missing -= 1 - one;
      one = 1;
    }
    sequence.kv(0).evict(0, keep);
    EXPECT_TRUE(compact(sequence));
  }
  double keys = 0, values = 0;
  for (const VisibleToken& token : visible_tokens(sequence)) {
    for (int d = 0; d < test::kValueDim; ++d) {
      const float found =
          page_value(format, test::kValueDim, store_of(sequence).values(token.page), token.offset, d);
      values = std::max(values, std::fabs(static_cast<double>(found) - test::element(token.original, 0, 1, d)));
    }
    for (int pair = 0; pair < test::kKeyDim / 2; ++pair) {
      const double angle =
          pair < test::kRotaryDim / 2 ? token.offset * test::small_rotary().frequencies()[pair] : 0;
      const double even = test::element(token.original, 0, 0, 2 * pair),
                   odd = test::element(token.original, 0, 0, 2 * pair + 1);
      const auto* page = store_of(sequence).keys(token.page);
      keys = std::max({keys,
                       std::fabs(page_key(format, test::kKeyDim, page, token.offset, 2 * pair) -
                                 (even * std::cos(angle) - odd * std::sin(angle))),
                       std::fabs(page_key(format, test::kKeyDim, page, token.offset, 2 * pair + 1) -
                                 (even * std::sin(angle) + odd * std::cos(angle)))});
    }
  }
  return {keys, values};
}

// Errors of tokens that survive 50 compactions, each of which moves nearly all of them. Elements are at most 1.
// Measured for f32, bf16, q8, q4: 7e-7, 0.025, 0.041 and 0.56; after one compaction 2e-7, 0.007, 0.010 and 0.17.
TEST(Compact, RoundingErrorsStayBoundedOverManyCompactions) {
  const auto expect = [](PageFormat format, double bound_once, double bound_often) {
    SCOPED_TRACE(testing::Message() << "format " << static_cast<int>(format));
    EXPECT_LE(drift(format, 1).first, bound_once);
    const auto [keys, values] = drift(format, 50);
    EXPECT_LE(keys, bound_often);
    EXPECT_LE(values, test::rounding(format)) << "values keep their bits";
  };
  expect(PageFormat::kF32, 1e-6, 2e-6);
  expect(PageFormat::kBF16, 0.01, 0.04);
  expect(PageFormat::kQ8, 0.015, 0.06);
  expect(PageFormat::kQ4, 0.25, 0.8);
}

TEST(Compact, TokensAtTheSameOffsetKeepTheirBits) {
  Sequence sequence = test::small_sequence(test::small_store(PageFormat::kQ4), 1, 1);
  test::read_following(sequence, 300);
  const auto first = [&] {
    std::vector<float> keys;
    const std::vector<VisibleToken> all = visible_tokens(sequence);
    for (int i = 0; i < 4; ++i)
      for (int d = 0; d < test::kKeyDim; ++d)
        keys.push_back(
            page_key(PageFormat::kQ4, test::kKeyDim, store_of(sequence).keys(all[i].page), all[i].offset, d));
    return keys;
  };
  const std::vector<float> before = first();
  for (int n = 0; n < 100; ++n) {
    test::read_following(sequence, 90);
    std::vector<char> keep(sequence.tokens(), 1);
    for (int64_t t = sequence.kv(0).table(0).front().first + 4; t < sequence.tokens() - 200; ++t) keep[t] = 0;
    sequence.kv(0).evict(0, keep);
    ASSERT_TRUE(compact(sequence));
    ASSERT_LE(sequence.kv(0).table(0).size(), 5u);
  }
  EXPECT_EQ(visible_tokens(sequence)[3].original, 3);
  EXPECT_EQ(first(), before);
}

/// The model of a page table: a list of tokens. original: index when the token was read.
struct CompactedToken {
  int64_t id, original;
  bool masked = false;
};
struct CompactedTable {
  std::vector<CompactedToken> tokens;  // at the last indices of the sequence, in order
};
struct CompactedSequence {
  Sequence sequence;
  CompactedTable tables[2];
};

void expect_equal_to_model(const CompactedSequence& m) {
  const int64_t tokens = m.sequence.tokens();
  ASSERT_EQ(m.sequence.next_position(), tokens);
  ASSERT_EQ(m.sequence.end_position(), tokens);
  for (int h = 0; h < 2; ++h) {
    const std::vector<CompactedToken>& list = m.tables[h].tokens;
    const int64_t begin = tokens - std::ssize(list);
    int64_t index = begin;
    for (const PageEntry& entry : m.sequence.kv(0).table(h)) {
      ASSERT_EQ(entry.first, index);
      ASSERT_EQ(entry.position, index);
      ASSERT_EQ(entry.mask & ~page_bits(0, entry.filled), 0u);
      for (int o = 0; o < entry.filled; ++o, ++index) {
        const CompactedToken& token = list.at(index - begin);
        ASSERT_EQ(entry.mask >> o & 1, token.masked ? 0u : 1u);
        if (token.masked) continue;
        ASSERT_EQ(m.sequence.kv(0).compacted(h).original_index(index), token.original);
        ASSERT_NO_FATAL_FAILURE(test::expect_token(store_of(m.sequence), entry.page, o, token.id, h, 20));
      }
    }
    ASSERT_EQ(index, tokens);
  }
}

/// Applies random operations to sequences and to their models.
class CompactOperations {
 public:
  explicit CompactOperations(uint32_t seed) : random_(seed), store_(test::small_store()) {
    sequences_.push_back({test::small_sequence(store_, 1, 2), {}});
  }
  void one() {
    CompactedSequence& m = sequences_[below(sequences_.size())];
    const int h = static_cast<int>(below(2));
    switch (below(8)) {
      case 0:
        if (sequences_.size() < 5) {
          CompactedSequence copy{m.sequence.fork(), {m.tables[0], m.tables[1]}};
          sequences_.push_back(std::move(copy));
        }
        return;
      case 1:
        if (sequences_.size() > 1) sequences_.erase(sequences_.begin() + below(sequences_.size()));
        return;
      case 2:
        return evict(m, h);
      case 3:
      case 4:
        return compact_one(m, h);
      case 5:
        return truncate(m);
      default:
        return read(m);
    }
  }
  void expect_all() {
    std::set<PageId> pages;
    for (const CompactedSequence& m : sequences_) {
      ASSERT_NO_FATAL_FAILURE(expect_equal_to_model(m));
      for (int h = 0; h < 2; ++h) pages.merge(pages_of(m.sequence, 0, h));
    }
    ASSERT_EQ(store_->bytes_in_use(), pages.size() * store_->shape().bytes());
  }

 private:
  int64_t below(size_t n) { return static_cast<int64_t>(random_() % n); }

  void read(CompactedSequence& m) {
    const int64_t n = below(150);
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < n; ++i) {
      for (CompactedTable& table : m.tables) table.tokens.push_back({next_id_, m.sequence.tokens() + i});
      ids.push_back(next_id_++);
    }
    test::read_tokens(m.sequence, ids, test::following(m.sequence.next_position(), n));
  }
  void evict(CompactedSequence& m, int h) {
    std::vector<CompactedToken>& tokens = m.tables[h].tokens;
    const int64_t begin = m.sequence.tokens() - std::ssize(tokens);
    std::vector<char> keep(m.sequence.tokens(), 1);
    for (int64_t n = below(4), run = below(90); n-- > 0;) {
      const int64_t from = tokens.empty() ? 0 : below(tokens.size());
      for (int64_t i = from; i < std::min(from + run, std::ssize(tokens)); ++i) {
        keep[begin + i] = 0;
        tokens[i].masked = true;
      }
    }
    m.sequence.kv(0).evict(h, keep);
  }
  void compact_one(CompactedSequence& m, int h) {
    CompactedTable& table = m.tables[h];
    const auto removed = std::ranges::remove_if(table.tokens, &CompactedToken::masked);
    ASSERT_EQ(compact(m.sequence, 0, h), !removed.empty());
    if (removed.empty()) return;
    table.tokens.erase(removed.begin(), removed.end());
  }
  void truncate(CompactedSequence& m) {
    const int64_t n = below(std::min<size_t>(m.sequence.tokens(), below(3) ? 60 : 500) + 1);
    const int64_t kept = m.sequence.tokens() - n;
    test::remove_newest(m.sequence, n);
    for (CompactedTable& table : m.tables) {
      const auto removed =
          std::ranges::remove_if(table.tokens, [&](const CompactedToken& token) { return token.original >= kept; });
      table.tokens.erase(removed.begin(), removed.end());
    }
  }

  std::mt19937 random_;
  std::shared_ptr<PageStore> store_;
  std::vector<CompactedSequence> sequences_;
  int64_t next_id_ = 0;
};

TEST(Compact, RandomOperationsMatchAListModel) {
  for (int n = 0; n < 5; ++n) {
    CompactOperations operations(test::seed(1));
    for (int step = 0; step < 200; ++step) {
      operations.one();
      ASSERT_NO_FATAL_FAILURE(operations.expect_all()) << "after operation " << step;
    }
  }
}

}  // namespace
}  // namespace fathom
