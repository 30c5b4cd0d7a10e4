#include "memory/paged_kv.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <new>

#include "allocation_limit.h"
#include "base/error.h"
#include "memory/sequence.h"
#include "token_pages.h"

namespace fathom {
namespace {

using test::expect_token;
using test::following;
using test::read_following;
using test::read_tokens;
using test::remove_newest;
using test::small_sequence;
using test::small_store;
using test::store_of;
using test::with_each_failing_allocation;

/// Returns the bytes of a page.
std::vector<std::byte> bytes_of(const Sequence& sequence, PageId page) {
  const std::byte* begin = store_of(sequence).keys(page);
  return {begin, begin + store_of(sequence).shape().bytes()};
}

/// Returns the bytes of all pages of the first table of layer 0.
std::vector<std::vector<std::byte>> all_bytes(const Sequence& sequence) {
  std::vector<std::vector<std::byte>> pages;
  for (const PageEntry& entry : sequence.kv(0).table(0)) pages.push_back(bytes_of(sequence, entry.page));
  return pages;
}

/// Expects token i of the sequence at its page-table entry and offset. Its id is i, or i + salt if i ≥ `from`.
void expect_entries(const Sequence& sequence, int64_t from = 0, int64_t salt = 0) {
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    for (int head = 0; head < sequence.kv(0).heads(); ++head) {
      int64_t index = 0;
      for (const PageEntry& entry : sequence.kv(layer).table(head)) {
        for (int o = 0; o < entry.filled; ++o, ++index) {
          expect_token(store_of(sequence), entry.page, o, index >= from ? index + salt : index,
                       layer * sequence.kv(0).heads() + head);
        }
      }
      EXPECT_EQ(index, sequence.tokens());
    }
  }
}

TEST(PagedKv, IsEmptyAtFirst) {
  const Sequence sequence = small_sequence(small_store(), 2, 3);
  EXPECT_EQ(sequence.tokens(), 0);
  EXPECT_EQ(sequence.next_position(), 0);
  EXPECT_EQ(sequence.end_position(), 0);
  EXPECT_TRUE(sequence.kv(1).table(2).empty());
}

TEST(PagedKv, ConsecutiveTokensFillPagesOf64) {
  for (const int64_t length : {1, 2, 63, 64, 65, 127, 128, 129, 200}) {
    SCOPED_TRACE(length);
    Sequence sequence = small_sequence(small_store(), 2, 2);
    read_following(sequence, length);
    EXPECT_EQ(sequence.tokens(), length);
    EXPECT_EQ(sequence.next_position(), length);
    EXPECT_EQ(sequence.end_position(), length);
    for (int t = 0; t < 4; ++t) {
      const PageTable& table = sequence.kv(t / 2).table(t % 2);
      ASSERT_EQ(table.size(), (length + 63) / 64);
      for (int64_t p = 0; p < table.size(); ++p) {
        EXPECT_EQ(table[p].first, p * 64);
        EXPECT_EQ(table[p].position, p * 64);
        EXPECT_EQ(table[p].filled, std::min<int64_t>(64, length - p * 64));
        EXPECT_EQ(table[p].mask, page_bits(0, table[p].filled));
      }
    }
    expect_entries(sequence);
    EXPECT_EQ(store_of(sequence).bytes_in_use(),
              4 * sequence.kv(0).table(0).size() * store_of(sequence).shape().bytes());
  }
}

TEST(PagedKv, PagesHoldFewerTokensIfConfigured) {
  const auto filled = [](const Sequence& sequence) {
    std::vector<int> counts;
    for (const PageEntry& entry : sequence.kv(1).table(0)) counts.push_back(entry.filled);
    return counts;
  };
  Sequence sequence = small_sequence(small_store(), 2, 1, 51);
  read_following(sequence, 120);
  EXPECT_EQ(filled(sequence), (std::vector{51, 51, 18}));
  expect_entries(sequence);
  Sequence fork = sequence.fork();
  remove_newest(fork, 20);
  EXPECT_EQ(filled(fork), (std::vector{51, 49}));
  read_following(fork, 3);
  EXPECT_EQ(filled(fork), (std::vector{51, 51, 1}));
  expect_entries(fork);
  const Sequence moved = std::move(fork);
  EXPECT_EQ(filled(moved), (std::vector{51, 51, 1}));
}

TEST(PagedKv, ChunksDoNotChangePages) {
  Sequence whole = small_sequence(small_store(), 1, 1), parts = small_sequence(small_store(), 1, 1);
  read_following(whole, 333);
  for (const int64_t chunk : {1, 62, 2, 63, 64, 0, 100, 41}) read_following(parts, chunk);
  EXPECT_EQ(parts.tokens(), 333);
  EXPECT_EQ(all_bytes(whole), all_bytes(parts));
}

constexpr PageFormat kPagedFormats[] = {PageFormat::kF32, PageFormat::kBF16, PageFormat::kQ8, PageFormat::kQ4};

TEST(PagedKv, HoldsWrittenTokensInEveryFormat) {
  for (const PageFormat format : kPagedFormats) {
    Sequence sequence = small_sequence(small_store(format), 2, 2);
    read_following(sequence, 150);
    expect_entries(sequence);
  }
}

/// Expects bit-identical keys and values of all tokens.
void expect_same_tokens(const Sequence& a, const Sequence& b) {
  ASSERT_EQ(a.tokens(), b.tokens());
  const PageStore &in_a = store_of(a), &in_b = store_of(b);
  const PageFormat format = in_a.shape().format;
  for (size_t e = 0; e < a.kv(0).table(0).size(); ++e) {
    const PageEntry &x = a.kv(0).table(0)[e], &y = b.kv(0).table(0)[e];
    for (int o = 0; o < x.filled; ++o) {
      for (int d = 0; d < test::kKeyDim; ++d) {
        ASSERT_EQ(page_key(format, test::kKeyDim, in_a.keys(x.page), o, d),
                  page_key(format, test::kKeyDim, in_b.keys(y.page), o, d));
      }
      for (int d = 0; d < test::kValueDim; ++d) {
        ASSERT_EQ(page_value(format, test::kValueDim, in_a.values(x.page), o, d),
                  page_value(format, test::kValueDim, in_b.values(y.page), o, d));
      }
    }
  }
}

TEST(PagedKv, ForkingAndTruncatingAreExactInEveryFormat) {
  for (const PageFormat format : kPagedFormats) {
    Sequence trunk = small_sequence(small_store(format), 1, 1),
             straight = small_sequence(small_store(format), 1, 1);
    read_following(straight, 100);
    read_following(trunk, 90);
    Sequence fork = trunk.fork();
    read_following(fork, 50, 4000);
    remove_newest(fork, 50);  // ends inside the page that was shared before the write
    read_following(fork, 10);
    expect_same_tokens(fork, straight);
    read_following(trunk, 60, 3000);
    remove_newest(trunk, 60);  // leaves the bytes of removed tokens in the page
    read_following(trunk, 10);
    expect_same_tokens(trunk, straight);
  }
}

TEST(PagedKv, NonConsecutivePositionsStartPages) {
  Sequence sequence = small_sequence(small_store(), 1, 2);
  const std::vector<int64_t> positions = {10, 11, 12, 20, 21, 5, 6, 6, 7};
  read_tokens(sequence, following(0, 9), positions);
  const PageTable& table = sequence.kv(0).table(1);
  ASSERT_EQ(table.size(), 4);
  const int64_t first[] = {0, 3, 5, 7}, position[] = {10, 20, 5, 6}, filled[] = {3, 2, 2, 2};
  for (int p = 0; p < 4; ++p) {
    EXPECT_EQ(table[p].first, first[p]);
    EXPECT_EQ(table[p].position, position[p]);
    EXPECT_EQ(table[p].filled, filled[p]);
  }
  EXPECT_EQ(sequence.next_position(), 8);
  EXPECT_EQ(sequence.end_position(), 22);
  expect_entries(sequence);
}

TEST(PagedKv, OnlyAGapBetweenPassesStartsAPage) {
  Sequence sequence = small_sequence(small_store(), 1, 1);
  read_following(sequence, 10);
  read_tokens(sequence, following(10, 5), following(10, 5));
  EXPECT_EQ(sequence.kv(0).table(0).size(), 1);
  read_tokens(sequence, following(15, 5), following(100, 5));
  EXPECT_EQ(sequence.kv(0).table(0).size(), 2);
  EXPECT_EQ(sequence.next_position(), 105);
  read_following(sequence, 1);
  EXPECT_EQ(sequence.kv(0).table(0).size(), 2);
  expect_entries(sequence);
}

TEST(PagedKv, RejectsPositionsOutOfRangeAndChangesNothing) {
  Sequence sequence = small_sequence(small_store(), 2, 2);
  read_following(sequence, 70);
  for (const int64_t bad :
       {int64_t{-1}, std::numeric_limits<int64_t>::min(), kPositionLimit, std::numeric_limits<int64_t>::max()}) {
    const std::vector<int64_t> positions = {70, bad};
    EXPECT_THROW(sequence.open(positions), Error) << bad;
    EXPECT_THROW(sequence.move_to(bad), Error) << bad;
    EXPECT_EQ(sequence.tokens(), 70);
    EXPECT_EQ(sequence.next_position(), 70);
    EXPECT_EQ(sequence.kv(1).table(1).back().filled, 6);
  }
  EXPECT_THROW(small_sequence(small_store(), 1, 1).move_to(-1), Error) << "without tokens";
  sequence.open(std::vector<int64_t>{kPositionLimit - 1});
  EXPECT_EQ(sequence.end_position(), kPositionLimit);
}

TEST(PagedKv, ForksShareAllPagesUntilOneWrites) {
  Sequence trunk = small_sequence(small_store(), 2, 2);
  read_following(trunk, 100);
  const size_t before = store_of(trunk).bytes_in_use(), page = store_of(trunk).shape().bytes();
  Sequence fork = trunk.fork();
  EXPECT_EQ(store_of(trunk).bytes_in_use(), before);
  EXPECT_EQ(fork.tokens(), 100);
  EXPECT_EQ(fork.next_position(), 100);
  EXPECT_EQ(fork.end_position(), 100);

  const auto trunk_bytes = all_bytes(trunk);
  read_following(fork, 10, 1000);
  EXPECT_EQ(store_of(trunk).bytes_in_use(), before + 4 * page);  // the last page of each table
  EXPECT_EQ(fork.kv(0).table(0)[0].page, trunk.kv(0).table(0)[0].page);
  EXPECT_NE(fork.kv(0).table(0)[1].page, trunk.kv(0).table(0)[1].page);
  EXPECT_EQ(all_bytes(trunk), trunk_bytes);
  EXPECT_EQ(trunk.tokens(), 100);

  const auto fork_bytes = all_bytes(fork);
  read_following(trunk, 50, 2000);
  EXPECT_EQ(all_bytes(fork), fork_bytes);
  expect_entries(fork, 100, 1000);
  expect_entries(trunk, 100, 2000);
}

/// A method state whose fork() throws.
struct Unforkable final : test::UnsavedState {
  std::unique_ptr<SequenceState> fork() const override { throw std::bad_alloc(); }
  void rewind(int64_t) override {}
};

TEST(PagedKv, AFailedForkReleasesNoPage) {
  for (const Sequence::StateOf owner : {Sequence::StateOf::kSelector, Sequence::StateOf::kEvictor}) {
    Sequence sequence = small_sequence(small_store(), 2, 2);
    read_following(sequence, 100);
    const Sequence shared = sequence.fork();
    const size_t bytes = store_of(sequence).bytes_in_use();
    sequence.set_state(owner, std::make_unique<Unforkable>());
    for (int attempt = 0; attempt < 3; ++attempt) EXPECT_THROW(sequence.fork(), std::bad_alloc);
    EXPECT_EQ(store_of(sequence).bytes_in_use(), bytes);
    for (int t = 0; t < 4; ++t) {
      const PageTable& table = sequence.kv(t / 2).table(t % 2);
      for (const PageEntry& entry : table)
        EXPECT_EQ(store_of(sequence).owners(entry.page), 1u) << "the shared run is the only owner";
    }
    expect_entries(sequence);
    sequence.set_state(owner, nullptr);
    const Sequence third = sequence.fork();  // runs have three owners
    expect_entries(third);
    EXPECT_EQ(store_of(sequence).bytes_in_use(), bytes);
    read_following(sequence, 20, 900);
    expect_entries(shared);
    expect_entries(third);
  }
}

TEST(PagedKv, AForkWithoutMemoryReleasesNoPage) {
  Sequence sequence = small_sequence(small_store(), 2, 2);
  read_following(sequence, 100);
  const size_t bytes = store_of(sequence).bytes_in_use();
  with_each_failing_allocation([&] { sequence.fork(); },
                               [&] {
                                 EXPECT_EQ(store_of(sequence).bytes_in_use(), bytes);
                                 for (const int t : {0, 1, 2, 3}) {
                                   const PageTable& table = sequence.kv(t / 2).table(t % 2);
                                   EXPECT_FALSE(store_of(sequence).shared(table[0].page));
                                 }
                               });
  expect_entries(sequence);
}

TEST(PagedKv, OpeningWithoutMemoryChangesNothing) {
  constexpr int64_t kMore = 64 * 20;
  const std::vector<int64_t> positions = following(100, kMore);
  const std::shared_ptr<PageStore> store = small_store();
  {
    Sequence sequence = small_sequence(store, 2, 2);
    read_following(sequence, 100);
    const size_t bytes = store->bytes_in_use();
    const auto expect_nothing_changed = [&] {
      EXPECT_EQ(store->bytes_in_use(), bytes);
      EXPECT_EQ(sequence.tokens(), 100);
      EXPECT_EQ(sequence.next_position(), 100);
      EXPECT_EQ(sequence.ids().size(), 100);
      expect_entries(sequence);
    };
    with_each_failing_allocation([&] { sequence.open(positions); }, expect_nothing_changed);
    EXPECT_EQ(sequence.tokens(), 100 + kMore);
    sequence.abandon();
    expect_nothing_changed();
  }
  EXPECT_EQ(store->bytes_in_use(), 0u);
}

TEST(PagedKv, WritesInPlaceAfterTheForkIsDestroyed) {
  Sequence trunk = small_sequence(small_store(), 1, 1);
  read_following(trunk, 10);
  const PageId page = trunk.kv(0).table(0)[0].page;
  { const Sequence fork = trunk.fork(); }
  read_following(trunk, 10);
  EXPECT_EQ(trunk.kv(0).table(0)[0].page, page);
}

TEST(PagedKv, FullSharedPagesAreNotCopied) {
  Sequence trunk = small_sequence(small_store(), 1, 1);
  read_following(trunk, 64);
  Sequence fork = trunk.fork();
  read_following(fork, 1);
  EXPECT_EQ(fork.kv(0).table(0)[0].page, trunk.kv(0).table(0)[0].page);
  EXPECT_EQ(trunk.kv(0).table(0).size(), 1);
}

TEST(PagedKv, TruncatingReleasesPages) {
  for (const int64_t keep : {199, 192, 191, 128, 100, 64, 63, 1, 0}) {
    SCOPED_TRACE(keep);
    Sequence sequence = small_sequence(small_store(), 2, 1);
    read_following(sequence, 200);
    remove_newest(sequence, 200 - keep);
    EXPECT_EQ(sequence.tokens(), keep);
    EXPECT_EQ(sequence.next_position(), keep);
    EXPECT_EQ(sequence.end_position(), keep);
    EXPECT_EQ(sequence.kv(1).table(0).size(), (keep + 63) / 64);
    EXPECT_EQ(store_of(sequence).bytes_in_use(), 2 * ((keep + 63) / 64) * store_of(sequence).shape().bytes());
    if (keep > 0) {
      EXPECT_EQ(sequence.kv(0).table(0).back().mask, page_bits(0, sequence.kv(0).table(0).back().filled));
    }
    expect_entries(sequence);
    read_following(sequence, 90, 5000);
    expect_entries(sequence, keep, 5000);
  }
}

TEST(PagedKv, VersionsCountOnlyChangesOfFullPages) {
  Sequence sequence = small_sequence(small_store(), 1, 1);
  read_following(sequence, 64 * 5 + 20);
  const uint64_t start = sequence.kv(0).version(0);
  EXPECT_EQ(sequence.kv(0).first_changed(0, start), 6u) << "no full page changed";
  sequence.truncate(sequence.tokens());
  remove_newest(sequence, 7);
  remove_newest(sequence, 13);  // the partly filled last page
  read_following(sequence, 30);
  sequence.kv(0).mask(0, 3, 5);
  EXPECT_EQ(sequence.kv(0).version(0), start);
  remove_newest(sequence, 31);  // ends inside the fifth page
  EXPECT_EQ(sequence.kv(0).version(0), start + 1);
  EXPECT_EQ(sequence.kv(0).first_changed(0, start), 4u);
  read_following(sequence, 1);
  const Sequence fork = sequence.fork();
  remove_newest(sequence, 64 * 2 + 1);  // ends inside the third page
  EXPECT_EQ(sequence.kv(0).version(0), start + 2);
  EXPECT_EQ(sequence.kv(0).first_changed(0, start + 1), 2u);
  EXPECT_LE(sequence.kv(0).first_changed(0, start), 2u);
  EXPECT_EQ(fork.kv(0).version(0), start + 1);
  sequence.move_to(640);
  EXPECT_EQ(sequence.kv(0).first_changed(0, start + 2), 0u);
}

TEST(PagedKv, TruncatingOverAGapRestoresThePositionBeforeIt) {
  Sequence sequence = small_sequence(small_store(), 1, 1);
  read_tokens(sequence, following(0, 5), {50, 51, 52, 7, 8});
  remove_newest(sequence, 1);
  EXPECT_EQ(sequence.next_position(), 8);
  EXPECT_EQ(sequence.end_position(), 53);
  remove_newest(sequence, 1);
  EXPECT_EQ(sequence.next_position(), 53);
  remove_newest(sequence, 1);
  EXPECT_EQ(sequence.next_position(), 52);
  EXPECT_EQ(sequence.end_position(), 52);
}

TEST(PagedKv, TruncatingAForkInsideASharedPageDoesNotChangeTheTrunk) {
  Sequence trunk = small_sequence(small_store(), 1, 1);
  read_following(trunk, 150);
  Sequence fork = trunk.fork();
  const auto trunk_bytes = all_bytes(trunk);
  remove_newest(fork, 100);  // ends inside the first page
  read_following(fork, 30, 7000);
  EXPECT_EQ(all_bytes(trunk), trunk_bytes);
  expect_entries(trunk);
  expect_entries(fork, 50, 7000);
}

TEST(PagedKv, RejectsTruncatingToInvalidLengths) {
  Sequence sequence = small_sequence(small_store(), 1, 1);
  read_following(sequence, 5);
  EXPECT_THROW(sequence.truncate(sequence.tokens() - 6), Error);
  EXPECT_THROW(sequence.truncate(sequence.tokens() - (-1)), Error);
  EXPECT_EQ(sequence.tokens(), 5);
  sequence.truncate(sequence.tokens());
  expect_entries(sequence);
}

TEST(PagedKv, MoveToShiftsAllPositionsAndWritesNoPage) {
  Sequence sequence = small_sequence(small_store(), 2, 1);
  read_tokens(sequence, following(0, 5), {3, 4, 10, 11, 12});
  const auto bytes = all_bytes(sequence);
  sequence.move_to(1003);
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(sequence.kv(layer).table(0)[0].position, 1003);
    EXPECT_EQ(sequence.kv(layer).table(0)[1].position, 1010);
  }
  EXPECT_EQ(sequence.next_position(), 1013);
  EXPECT_EQ(sequence.end_position(), 1013);
  EXPECT_EQ(all_bytes(sequence), bytes);
  read_following(sequence, 3);
  EXPECT_EQ(sequence.kv(0).table(0).size(), 2);
  EXPECT_EQ(sequence.next_position(), 1016);
  sequence.move_to(0);
  EXPECT_EQ(sequence.next_position(), 13);
  expect_entries(sequence);
}

TEST(PagedKv, MoveToRejectsPositionsBelowZero) {
  Sequence sequence = small_sequence(small_store(), 1, 2);
  read_tokens(sequence, following(0, 4), {10, 11, 5, 6});
  EXPECT_THROW(sequence.move_to(4), Error);  // the token at 5 would move to -1
  EXPECT_EQ(sequence.kv(0).table(1)[1].position, 5);
  sequence.move_to(5);
  EXPECT_EQ(sequence.kv(0).table(1)[1].position, 0);
  EXPECT_EQ(sequence.next_position(), 2);
  EXPECT_EQ(sequence.end_position(), 7);
}

TEST(PagedKv, MoveToRejectsPositionsPastTheLimit) {
  Sequence sequence = small_sequence(small_store(), 1, 1);
  read_tokens(sequence, following(0, 4), {0, 1, 10, 11});
  EXPECT_THROW(sequence.move_to(kPositionLimit - 11), Error);
  sequence.move_to(kPositionLimit - 12);
  EXPECT_EQ(sequence.end_position(), kPositionLimit);
}

TEST(PagedKv, MovingAForkDoesNotChangeTheTrunk) {
  Sequence trunk = small_sequence(small_store(), 1, 1);
  read_following(trunk, 100);
  Sequence fork = trunk.fork();
  fork.move_to(640);
  fork.mask(0, 10);
  EXPECT_EQ(trunk.kv(0).table(0)[0].position, 0);
  EXPECT_EQ(trunk.kv(0).table(0)[0].mask, ~uint64_t{0});
  EXPECT_EQ(trunk.next_position(), 100);
  EXPECT_EQ(fork.kv(0).table(0)[0].page, trunk.kv(0).table(0)[0].page);
}

TEST(PagedKv, MasksTokensInOneTableOrInAll) {
  Sequence sequence = small_sequence(small_store(), 2, 2);
  read_following(sequence, 130);
  sequence.kv(1).mask(0, 60, 129);
  EXPECT_EQ(sequence.kv(1).table(0)[0].mask, page_bits(0, 60));
  EXPECT_EQ(sequence.kv(1).table(0)[1].mask, 0u);
  EXPECT_EQ(sequence.kv(1).table(0)[2].mask, page_bits(1, 2));
  EXPECT_EQ(sequence.kv(0).table(1)[1].mask, ~uint64_t{0});
  sequence.mask(64, 66);
  EXPECT_EQ(sequence.kv(0).table(1)[1].mask, page_bits(2, 64));
  EXPECT_EQ(sequence.tokens(), 130);
  EXPECT_EQ(sequence.next_position(), 130);
  sequence.mask(20, 10);     // empty range
  sequence.mask(500, 1000);  // past the end
  sequence.mask(-50, 1);     // begins before the first token
  EXPECT_EQ(sequence.kv(0).table(0)[0].mask, page_bits(1, 64));
  expect_entries(sequence);
}

TEST(PagedKv, TokensReadAfterMaskingAreVisible) {
  Sequence sequence = small_sequence(small_store(), 1, 1);
  read_following(sequence, 10);
  sequence.mask(0, 1000);
  read_following(sequence, 5);
  EXPECT_EQ(sequence.kv(0).table(0)[0].mask, page_bits(10, 15));
  remove_newest(sequence, 10);
  EXPECT_EQ(sequence.kv(0).table(0)[0].mask, 0u);
  read_following(sequence, 2);
  EXPECT_EQ(sequence.kv(0).table(0)[0].mask, page_bits(5, 7));
}

TEST(PagedKv, MoveAssignmentTransfersThePages) {
  const auto store = small_store();
  Sequence a = small_sequence(store, 1, 1), b = small_sequence(store, 1, 1);
  read_following(a, 100);
  read_following(b, 300);
  b = std::move(a);
  EXPECT_EQ(store->bytes_in_use(), 2 * store->shape().bytes());
  Sequence c = std::move(b);
  EXPECT_EQ(c.tokens(), 100);
  expect_entries(c);
  { const Sequence destroyed = std::move(c); }
  EXPECT_EQ(store->bytes_in_use(), 0u);
}

}  // namespace
}  // namespace fathom
