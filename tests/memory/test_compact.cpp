// Page tables whose visible tokens have been moved together.
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

/// What is visible in a page table, in order.
struct Seen {
  int64_t index, read, position;
  PageId page;
  int offset;
};
std::vector<Seen> seen(const Sequence& sequence, int layer = 0, int head = 0) {
  std::vector<Seen> all;
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

/// A text of which every token stays with this probability.
std::vector<char> scattered(int64_t tokens, double share, std::mt19937& random) {
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

TEST(Compact, TokensAreAsIfWrittenAtTheirNewPositions) {
  std::mt19937 random(test::seed(3));
  for (const PageFormat format : kFormats) {
    for (const double share : {0.02, 0.3, 0.5, 0.97}) {
      SCOPED_TRACE(testing::Message() << "format " << static_cast<int>(format) << " share " << share);
      Sequence sequence = test::small_sequence(test::small_store(format), 1, 1);
      test::read_following(sequence, 1000);
      sequence.move_to(37);
      const std::vector<char> keep = scattered(1000, share, random);
      sequence.kv(0).evict(0, keep);
      ASSERT_TRUE(compact(sequence));
      const std::vector<Seen> all = seen(sequence);
      ASSERT_EQ(std::ssize(all), std::ranges::count(keep, 1));
      int64_t id = -1, index = 1000 - std::ssize(all);
      for (const Seen& token : all) {
        while (!keep[++id]) continue;
        ASSERT_EQ(token.read, id);
        ASSERT_EQ(token.index, index++);
        ASSERT_EQ(token.position, token.index + 37);
        // f32: 1e-5; bfloat16: 8e-3; codes: each is rounded once more
        ASSERT_NO_FATAL_FAILURE(test::expect_token(store_of(sequence), token.page, token.offset, id, 0,
                                                   format == PageFormat::kF32 ? 5 : 2));
      }
      EXPECT_EQ(sequence.kv(0).table(0).front().first, 1000 - std::ssize(all)) << "nothing is left before them";
      EXPECT_LE(std::ssize(pages_of(sequence)), (std::ssize(all) + 63) / 64 + 1);
      EXPECT_EQ(store_of(sequence).bytes_in_use(), pages_of(sequence).size() * store_of(sequence).shape().bytes());
      EXPECT_EQ(gaps_of(sequence.kv(0).table(0)).masked, 0);
      EXPECT_EQ(sequence.next_position(), 1037);
      EXPECT_EQ(sequence.end_position(), 1037);
    }
  }
}

TEST(Compact, NothingMaskedChangesNothing) {
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

TEST(Compact, PositionsThatDoNotFollowEachOtherStay) {
  Sequence sequence = test::small_sequence(test::small_store(), 1, 1);
  test::read_tokens(sequence, test::following(0, 100), test::following(0, 100));
  test::read_tokens(sequence, test::following(100, 100), test::following(50, 100));
  sequence.kv(0).mask(0, 10, 90);
  const std::vector<Seen> before = seen(sequence);
  EXPECT_FALSE(compact(sequence));
  const std::vector<Seen> after = seen(sequence);
  ASSERT_EQ(after.size(), before.size());
  for (size_t i = 0; i < after.size(); ++i) EXPECT_EQ(after[i].position, before[i].position);
}

TEST(Compact, PagesWithoutGapsStayAsTheyAre) {
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

TEST(Compact, AForkKeepsWhatItHad) {
  Sequence sequence = test::small_sequence(test::small_store(), 2, 2);
  test::read_following(sequence, 500);
  const Sequence fork = sequence.fork();
  const std::set<PageId> pages = pages_of(fork, 1, 1);
  std::mt19937 random(test::seed(5));
  for (int t = 0; t < 4; ++t) {
    sequence.kv(t / 2).evict(t % 2, scattered(500, 0.3, random));
    ASSERT_TRUE(compact(sequence, t / 2, t % 2));
  }
  Sequence later = sequence.fork();
  test::read_following(sequence, 100);
  test::read_following(later, 100, 7000);
  EXPECT_EQ(pages_of(fork, 1, 1), pages);
  for (const Seen& token : seen(fork, 1, 1)) {
    ASSERT_EQ(token.index, token.read);
    ASSERT_NO_FATAL_FAILURE(test::expect_token(store_of(fork), token.page, token.offset, token.read, 3));
  }
  for (const Seen& token : seen(sequence, 1, 1))
    ASSERT_NO_FATAL_FAILURE(test::expect_token(store_of(fork), token.page, token.offset, token.read, 3, 5));
  for (const Seen& token : seen(later, 1, 1)) {
    const int64_t id = token.read + (token.read < 500 ? 0 : 7000);
    ASSERT_NO_FATAL_FAILURE(test::expect_token(store_of(fork), token.page, token.offset, id, 3, 5));
  }
}

TEST(Compact, TruncatingLeavesWhatWasReadBefore) {
  Sequence sequence = test::small_sequence(test::small_store(), 1, 2);
  test::read_following(sequence, 600);
  std::mt19937 random(test::seed(6));
  const std::vector<char> keep = scattered(600, 0.25, random);
  sequence.kv(0).evict(1, keep);
  ASSERT_TRUE(compact(sequence, 0, 1));  // the other head stays as it is
  test::read_following(sequence, 50);
  test::drop_newest(sequence, 350);
  const std::vector<Seen> all = seen(sequence, 0, 1);
  ASSERT_EQ(std::ssize(all), std::count(keep.begin(), keep.begin() + 300, 1));
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_LT(all[i].read, 300);
    ASSERT_EQ(all[i].position, 300 - std::ssize(all) + static_cast<int64_t>(i));
  }
  EXPECT_EQ(sequence.next_position(), 300);
  test::drop_newest(sequence, 299);
  EXPECT_EQ(std::ssize(seen(sequence, 0, 1)), keep[0]);
  test::read_following(sequence, 10);
  EXPECT_EQ(sequence.next_position(), 11);
  EXPECT_EQ(seen(sequence, 0, 1).back().position, 10);
}

TEST(Compact, TruncatingChangesOnlyTheTablesWhosePagesItMoves) {
  Sequence sequence = test::small_sequence(test::small_store(), 1, 2);
  test::read_following(sequence, 600);
  std::mt19937 random(test::seed(8));
  sequence.kv(0).evict(1, scattered(600, 0.25, random));
  ASSERT_TRUE(compact(sequence, 0, 1));
  test::read_following(sequence, 10);
  const uint64_t plain = sequence.kv(0).version(0), compacted = sequence.kv(0).version(1);
  test::drop_newest(sequence, 9);
  EXPECT_EQ(sequence.kv(0).version(1), compacted) << "only what was read after compacting goes";
  test::drop_newest(sequence, 12);  // and tokens that were compacted: the others follow
  EXPECT_EQ(sequence.kv(0).version(1), compacted + 1);
  EXPECT_EQ(sequence.kv(0).first_changed(1, compacted), 0u);
  EXPECT_EQ(sequence.kv(0).version(0), plain) << "its last page was not full";
}

TEST(Compact, AModelWithoutRotaryKeepsTheBitsOfKeys) {
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
      for (const Seen& token : seen(sequence)) {
        for (int d = 0; d < test::kKeyDim; ++d)
          all.push_back(page_key(format, test::kKeyDim, store_of(sequence).keys(token.page), token.offset, d));
        for (int d = 0; d < test::kValueDim; ++d)
          all.push_back(
              page_value(format, test::kValueDim, store_of(sequence).values(token.page), token.offset, d));
      }
      return all;
    };
    sequence.kv(0).evict(0, scattered(200, 0.5, random));
    const std::vector<float> before = keys();
    ASSERT_TRUE(sequence.kv(0).compact(kernels(), 0));
    EXPECT_EQ(keys(), before);
  }
}

/// The largest difference of a key's element from what was written, and of a value's, after each 64 tokens that
/// were read
std::pair<double, double> drift(PageFormat format, int times) {
  std::mt19937 random(test::seed(8));
  Sequence sequence = test::small_sequence(test::small_store(format), 1, 1);
  test::read_following(sequence, 512);
  for (int n = 0; n < times; ++n) {
    test::read_following(sequence, 128);
    const std::vector<Seen> all = seen(sequence);
    std::vector<char> keep(sequence.tokens());
    for (const Seen& token : all) keep[token.index] = token.read % 3 == 0 && token.read < 512;
    for (int left = 512 - static_cast<int>(std::ranges::count(keep, 1)); left > 0;) {
      char& one = keep[all[random() % all.size()].index];
      left -= 1 - one;
      one = 1;
    }
    sequence.kv(0).evict(0, keep);
    EXPECT_TRUE(compact(sequence));
  }
  double keys = 0, values = 0;
  for (const Seen& token : seen(sequence)) {
    for (int d = 0; d < test::kValueDim; ++d) {
      const float found =
          page_value(format, test::kValueDim, store_of(sequence).values(token.page), token.offset, d);
      values = std::max(values, std::fabs(static_cast<double>(found) - test::element(token.read, 0, 1, d)));
    }
    for (int pair = 0; pair < test::kKeyDim / 2; ++pair) {
      const double angle =
          pair < test::kRotaryDim / 2 ? token.offset * test::small_rotary().frequencies()[pair] : 0;
      const double even = test::element(token.read, 0, 0, 2 * pair),
                   odd = test::element(token.read, 0, 0, 2 * pair + 1);
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

// Tokens that outlive 50 compactions, each of which moves nearly all of them; elements are at most 1. Measured:
// 7e-7, 0.025, 0.041 and 0.56; after one compaction 2e-7, 0.007, 0.010 and 0.17.
TEST(Compact, DriftsLittleHoweverOften) {
  const auto expect = [](PageFormat format, double once, double often) {
    SCOPED_TRACE(testing::Message() << "format " << static_cast<int>(format));
    EXPECT_LE(drift(format, 1).first, once);
    const auto [keys, values] = drift(format, 50);
    EXPECT_LE(keys, often);
    EXPECT_LE(values, test::rounding(format)) << "values keep their bits";
  };
  expect(PageFormat::kF32, 1e-6, 2e-6);
  expect(PageFormat::kBF16, 0.01, 0.04);
  expect(PageFormat::kQ8, 0.015, 0.06);
  expect(PageFormat::kQ4, 0.25, 0.8);
}

TEST(Compact, TokensThatKeepTheirOffsetKeepTheirBits) {
  Sequence sequence = test::small_sequence(test::small_store(PageFormat::kQ4), 1, 1);
  test::read_following(sequence, 300);
  const auto first = [&] {
    std::vector<float> keys;
    const std::vector<Seen> all = seen(sequence);
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
  EXPECT_EQ(seen(sequence)[3].read, 3);
  EXPECT_EQ(first(), before);
}

/// What a page table is without pages.
struct Token {
  int64_t id, read;
  bool masked = false;
};
struct Lying {
  std::vector<Token> tokens;  // the newest of the sequence, as they lie
};
struct Modelled {
  Sequence sequence;
  Lying tables[2];
};

void expect_modelled(const Modelled& m) {
  const int64_t tokens = m.sequence.tokens();
  ASSERT_EQ(m.sequence.next_position(), tokens);
  ASSERT_EQ(m.sequence.end_position(), tokens);
  for (int h = 0; h < 2; ++h) {
    const std::vector<Token>& lying = m.tables[h].tokens;
    const int64_t begin = tokens - std::ssize(lying);
    int64_t index = begin;
    for (const PageEntry& entry : m.sequence.kv(0).table(h)) {
      ASSERT_EQ(entry.first, index);
      ASSERT_EQ(entry.position, index);
      ASSERT_EQ(entry.mask & ~page_bits(0, entry.filled), 0u);
      for (int o = 0; o < entry.filled; ++o, ++index) {
        const Token& token = lying.at(index - begin);
        ASSERT_EQ(entry.mask >> o & 1, token.masked ? 0u : 1u);
        if (token.masked) continue;
        ASSERT_EQ(m.sequence.kv(0).compacted(h).original_index(index), token.read);
        ASSERT_NO_FATAL_FAILURE(test::expect_token(store_of(m.sequence), entry.page, o, token.id, h, 20));
      }
    }
    ASSERT_EQ(index, tokens);
  }
}

class Operations {
 public:
  explicit Operations(uint32_t seed) : random_(seed), store_(test::small_store()) {
    sequences_.push_back({test::small_sequence(store_, 1, 2), {}});
  }
  void one() {
    Modelled& m = sequences_[below(sequences_.size())];
    const int h = static_cast<int>(below(2));
    switch (below(8)) {
      case 0:
        if (sequences_.size() < 5) {
          Modelled copy{m.sequence.fork(), {m.tables[0], m.tables[1]}};
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
    for (const Modelled& m : sequences_) {
      ASSERT_NO_FATAL_FAILURE(expect_modelled(m));
      for (int h = 0; h < 2; ++h) pages.merge(pages_of(m.sequence, 0, h));
    }
    ASSERT_EQ(store_->bytes_in_use(), pages.size() * store_->shape().bytes());
  }

 private:
  int64_t below(size_t n) { return static_cast<int64_t>(random_() % n); }

  void read(Modelled& m) {
    const int64_t n = below(150);
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < n; ++i) {
      for (Lying& table : m.tables) table.tokens.push_back({next_id_, m.sequence.tokens() + i});
      ids.push_back(next_id_++);
    }
    test::read_tokens(m.sequence, ids, test::following(m.sequence.next_position(), n));
  }
  void evict(Modelled& m, int h) {
    std::vector<Token>& lying = m.tables[h].tokens;
    const int64_t begin = m.sequence.tokens() - std::ssize(lying);
    std::vector<char> keep(m.sequence.tokens(), 1);
    for (int64_t n = below(4), run = below(90); n-- > 0;) {
      const int64_t from = lying.empty() ? 0 : below(lying.size());
      for (int64_t i = from; i < std::min(from + run, std::ssize(lying)); ++i) {
        keep[begin + i] = 0;
        lying[i].masked = true;
      }
    }
    m.sequence.kv(0).evict(h, keep);
  }
  void compact_one(Modelled& m, int h) {
    Lying& table = m.tables[h];
    const auto gone = std::ranges::remove_if(table.tokens, &Token::masked);
    ASSERT_EQ(compact(m.sequence, 0, h), !gone.empty());
    if (gone.empty()) return;
    table.tokens.erase(gone.begin(), gone.end());
  }
  void truncate(Modelled& m) {
    const int64_t n = below(std::min<size_t>(m.sequence.tokens(), below(3) ? 60 : 500) + 1);
    const int64_t left = m.sequence.tokens() - n;
    test::drop_newest(m.sequence, n);
    for (Lying& table : m.tables) {
      const auto gone =
          std::ranges::remove_if(table.tokens, [&](const Token& token) { return token.read >= left; });
      table.tokens.erase(gone.begin(), gone.end());
    }
  }

  std::mt19937 random_;
  std::shared_ptr<PageStore> store_;
  std::vector<Modelled> sequences_;
  int64_t next_id_ = 0;
};

TEST(Compact, AnyOperationsLeaveWhatListsOfTokensWouldHold) {
  for (int n = 0; n < 5; ++n) {
    const uint32_t seed = std::random_device()();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Operations operations(seed);
    for (int step = 0; step < 200; ++step) {
      operations.one();
      ASSERT_NO_FATAL_FAILURE(operations.expect_all()) << "after operation " << step;
    }
  }
}

}  // namespace
}  // namespace fathom
