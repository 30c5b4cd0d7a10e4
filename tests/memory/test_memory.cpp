#include "memory/memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <new>

#include "allocation_limit.h"
#include "base/error.h"
#include "token_pages.h"

namespace fathom {
namespace {

using test::expect_token;
using test::following;
using test::read_following;
using test::read_tokens;
using test::small_store;

std::vector<std::byte> bytes_of(const Memory& memory, PageId page) {
  const std::byte* begin = memory.store().keys(page);
  return {begin, begin + memory.store().shape().bytes()};
}

std::vector<std::vector<std::byte>> all_bytes(const Memory& memory) {
  std::vector<std::vector<std::byte>> pages;
  for (const PageSlot& slot : memory.lane(0, 0)) pages.push_back(bytes_of(memory, slot.page));
  return pages;
}

/// Every token i of the sequence is where the page table says, with id i + salt from token `from` on.
void expect_tokens(const Memory& memory, int64_t from = 0, int64_t salt = 0) {
  for (int layer = 0; layer < memory.layers(); ++layer) {
    for (int head = 0; head < memory.kv_heads(); ++head) {
      int64_t index = 0;
      for (const PageSlot& slot : memory.lane(layer, head)) {
        for (int o = 0; o < slot.filled; ++o, ++index) {
          expect_token(memory.store(), slot.page, o, index >= from ? index + salt : index,
                       layer * memory.kv_heads() + head);
        }
      }
      EXPECT_EQ(index, memory.tokens());
    }
  }
}

TEST(Memory, IsEmptyAtFirst) {
  const Memory memory(small_store(), 2, 3);
  EXPECT_EQ(memory.tokens(), 0);
  EXPECT_EQ(memory.next_position(), 0);
  EXPECT_EQ(memory.end_position(), 0);
  EXPECT_TRUE(memory.lane(1, 2).empty());
}

TEST(Memory, FollowingTokensFillPagesOf64) {
  for (const int64_t length : {1, 2, 63, 64, 65, 127, 128, 129, 200}) {
    SCOPED_TRACE(length);
    Memory memory(small_store(), 2, 2);
    read_following(memory, length);
    EXPECT_EQ(memory.tokens(), length);
    EXPECT_EQ(memory.next_position(), length);
    EXPECT_EQ(memory.end_position(), length);
    for (int lane = 0; lane < 4; ++lane) {
      const Lane& table = memory.lane(lane / 2, lane % 2);
      ASSERT_EQ(table.size(), (length + 63) / 64);
      for (int64_t p = 0; p < table.size(); ++p) {
        EXPECT_EQ(table[p].first, p * 64);
        EXPECT_EQ(table[p].place, p * 64);
        EXPECT_EQ(table[p].filled, std::min<int64_t>(64, length - p * 64));
        EXPECT_EQ(table[p].mask, page_bits(0, table[p].filled));
      }
    }
    expect_tokens(memory);
    EXPECT_EQ(memory.store().bytes_in_use(), 4 * memory.lane(0, 0).size() * memory.store().shape().bytes());
  }
}

TEST(Memory, PagesMayBeFullAfterFewerTokens) {
  const auto filled = [](const Memory& memory) {
    std::vector<int> counts;
    for (const PageSlot& slot : memory.lane(1, 0)) counts.push_back(slot.filled);
    return counts;
  };
  Memory memory(small_store(), 2, 1, 51);
  read_following(memory, 120);
  EXPECT_EQ(filled(memory), (std::vector{51, 51, 18}));
  expect_tokens(memory);
  Memory fork = memory.fork();
  fork.rewind(20);
  EXPECT_EQ(filled(fork), (std::vector{51, 49}));
  read_following(fork, 3);
  EXPECT_EQ(filled(fork), (std::vector{51, 51, 1}));
  expect_tokens(fork);
  const Memory moved = std::move(fork);
  EXPECT_EQ(filled(moved), (std::vector{51, 51, 1}));
}

TEST(Memory, TheSamePagesComeOfAnyChunks) {
  Memory whole(small_store(), 1, 1), parts(small_store(), 1, 1);
  read_following(whole, 333);
  for (const int64_t chunk : {1, 62, 2, 63, 64, 0, 100, 41}) read_following(parts, chunk);
  EXPECT_EQ(parts.tokens(), 333);
  EXPECT_EQ(all_bytes(whole), all_bytes(parts));
}

constexpr PageFormat kFormats[] = {PageFormat::kF32, PageFormat::kBF16, PageFormat::kQ8, PageFormat::kQ4};

TEST(Memory, ReadsBackWhatWasWrittenInEveryFormat) {
  for (const PageFormat format : kFormats) {
    Memory memory(small_store(format), 2, 2);
    read_following(memory, 150);
    expect_tokens(memory);
  }
}

/// Both hold the same numbers, bit for bit, as far as they are filled.
void expect_same_tokens(const Memory& a, const Memory& b) {
  ASSERT_EQ(a.tokens(), b.tokens());
  const PageStore &in_a = a.store(), &in_b = b.store();
  const PageFormat format = in_a.shape().format;
  for (size_t s = 0; s < a.lane(0, 0).size(); ++s) {
    const PageSlot &x = a.lane(0, 0)[s], &y = b.lane(0, 0)[s];
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

TEST(Memory, ForksAndRewindsAreExactInEveryFormat) {
  for (const PageFormat format : kFormats) {
    Memory trunk(small_store(format), 1, 1), straight(small_store(format), 1, 1);
    read_following(straight, 100);
    read_following(trunk, 90);
    Memory fork = trunk.fork();
    read_following(fork, 50, 4000);
    fork.rewind(50);  // into the page that it shared before it wrote
    read_following(fork, 10);
    expect_same_tokens(fork, straight);
    read_following(trunk, 60, 3000);
    trunk.rewind(60);  // leaves other tokens behind the last one
    read_following(trunk, 10);
    expect_same_tokens(trunk, straight);
  }
}

TEST(Memory, PositionsThatDoNotFollowStartPages) {
  Memory memory(small_store(), 1, 2);
  const std::vector<int64_t> positions = {10, 11, 12, 20, 21, 5, 6, 6, 7};
  read_tokens(memory, following(0, 9), positions);
  const Lane& table = memory.lane(0, 1);
  ASSERT_EQ(table.size(), 4);
  const int64_t first[] = {0, 3, 5, 7}, place[] = {10, 20, 5, 6}, filled[] = {3, 2, 2, 2};
  for (int p = 0; p < 4; ++p) {
    EXPECT_EQ(table[p].first, first[p]);
    EXPECT_EQ(table[p].place, place[p]);
    EXPECT_EQ(table[p].filled, filled[p]);
  }
  EXPECT_EQ(memory.next_position(), 8);
  EXPECT_EQ(memory.end_position(), 22);
  expect_tokens(memory);
}

TEST(Memory, AGapBetweenAppendsStartsAPageAndNoGapDoesNot) {
  Memory memory(small_store(), 1, 1);
  read_following(memory, 10);
  read_tokens(memory, following(10, 5), following(10, 5));
  EXPECT_EQ(memory.lane(0, 0).size(), 1);
  read_tokens(memory, following(15, 5), following(100, 5));
  EXPECT_EQ(memory.lane(0, 0).size(), 2);
  EXPECT_EQ(memory.next_position(), 105);
  read_following(memory, 1);
  EXPECT_EQ(memory.lane(0, 0).size(), 2);
  expect_tokens(memory);
}

TEST(Memory, PositionsOutOfRangeAreRefusedAndChangeNothing) {
  Memory memory(small_store(), 2, 2);
  read_following(memory, 70);
  for (const int64_t bad :
       {int64_t{-1}, std::numeric_limits<int64_t>::min(), kPositionLimit, std::numeric_limits<int64_t>::max()}) {
    const std::vector<int64_t> positions = {70, bad};
    EXPECT_THROW(memory.append(positions), Error) << bad;
    EXPECT_THROW(memory.place(bad), Error) << bad;
    EXPECT_EQ(memory.tokens(), 70);
    EXPECT_EQ(memory.next_position(), 70);
    EXPECT_EQ(memory.lane(1, 1).back().filled, 6);
  }
  EXPECT_THROW(Memory(small_store(), 1, 1).place(-1), Error) << "also without tokens";
  memory.append(std::vector<int64_t>{kPositionLimit - 1});
  EXPECT_EQ(memory.end_position(), kPositionLimit);
}

TEST(Memory, ForksShareAllPagesUntilOneWrites) {
  Memory trunk(small_store(), 2, 2);
  read_following(trunk, 100);
  const size_t before = trunk.store().bytes_in_use(), page = trunk.store().shape().bytes();
  Memory fork = trunk.fork();
  EXPECT_EQ(trunk.store().bytes_in_use(), before);
  EXPECT_EQ(fork.tokens(), 100);
  EXPECT_EQ(fork.next_position(), 100);
  EXPECT_EQ(fork.end_position(), 100);

  const auto trunk_bytes = all_bytes(trunk);
  read_following(fork, 10, 1000);
  EXPECT_EQ(trunk.store().bytes_in_use(), before + 4 * page);  // the last page of each lane
  EXPECT_EQ(fork.lane(0, 0)[0].page, trunk.lane(0, 0)[0].page);
  EXPECT_NE(fork.lane(0, 0)[1].page, trunk.lane(0, 0)[1].page);
  EXPECT_EQ(all_bytes(trunk), trunk_bytes);
  EXPECT_EQ(trunk.tokens(), 100);

  const auto fork_bytes = all_bytes(fork);
  read_following(trunk, 50, 2000);
  EXPECT_EQ(all_bytes(fork), fork_bytes);
  expect_tokens(fork, 100, 1000);
  expect_tokens(trunk, 100, 2000);
}

/// A state that cannot be copied.
struct Unforkable final : SequenceState {
  std::unique_ptr<SequenceState> fork() const override { throw std::bad_alloc(); }
  void rewind(int64_t) override {}
};

TEST(Memory, AForkThatFailsReleasesNoPage) {
  for (const Memory::StateOf owner : {Memory::StateOf::kSelector, Memory::StateOf::kEvictor}) {
    Memory memory(small_store(), 2, 2);
    read_following(memory, 100);
    const Memory shared = memory.fork();
    const size_t bytes = memory.store().bytes_in_use();
    memory.set_state(owner, std::make_unique<Unforkable>());
    for (int attempt = 0; attempt < 3; ++attempt) EXPECT_THROW(memory.fork(), std::bad_alloc);
    EXPECT_EQ(memory.store().bytes_in_use(), bytes);
    for (int lane = 0; lane < 4; ++lane) {
      for (const PageSlot& slot : memory.lane(lane / 2, lane % 2)) EXPECT_TRUE(memory.store().shared(slot.page));
    }
    expect_tokens(memory);
    memory.set_state(owner, nullptr);
    const Memory third = memory.fork();  // pages are owned three times
    expect_tokens(third);
    EXPECT_EQ(memory.store().bytes_in_use(), bytes);
  }
}

/// Calls `attempt`, which is to throw, with no allocation allowed, then with one, two and so on until it succeeds;
/// `check` runs after each failure.
void with_each_failing_allocation(const std::function<void()>& attempt, const std::function<void()>& check) {
  for (int allocations = 0;; ++allocations) {
    ASSERT_LT(allocations, 1000);
    try {
      const test::AllocationLimit limit(allocations);
      attempt();
      ASSERT_GT(allocations, 0) << "nothing is allocated: the test would test nothing";
      return;
    } catch (const std::bad_alloc&) {
      check();
    }
  }
}

TEST(Memory, AForkReleasesNoPageWhicheverAllocationFails) {
  Memory memory(small_store(), 2, 2);
  read_following(memory, 100);
  const size_t bytes = memory.store().bytes_in_use();
  with_each_failing_allocation([&] { memory.fork(); },
                               [&] {
                                 EXPECT_EQ(memory.store().bytes_in_use(), bytes);
                                 EXPECT_FALSE(memory.store().shared(memory.lane(1, 1)[0].page));
                               });
  expect_tokens(memory);
}

TEST(Memory, AnAppendThatFailsIsUndoneByARewindOfNothing) {
  constexpr int64_t kMore = 64 * 20;
  const std::vector<int64_t> positions = following(100, kMore);
  const std::shared_ptr<PageStore> store = small_store();
  {
    Memory memory(store, 2, 2);
    read_following(memory, 100);
    const size_t bytes = store->bytes_in_use();
    with_each_failing_allocation([&] { memory.append(positions); },
                                 [&] {
                                   memory.rewind(0);
                                   EXPECT_EQ(store->bytes_in_use(), bytes);
                                   EXPECT_EQ(memory.tokens(), 100);
                                   expect_tokens(memory);
                                 });
  }
  EXPECT_EQ(store->bytes_in_use(), 0u);
}

TEST(Memory, TheSideThatIsLeftAloneWritesInPlace) {
  Memory trunk(small_store(), 1, 1);
  read_following(trunk, 10);
  const PageId page = trunk.lane(0, 0)[0].page;
  { const Memory fork = trunk.fork(); }
  read_following(trunk, 10);
  EXPECT_EQ(trunk.lane(0, 0)[0].page, page);
}

TEST(Memory, AFullSharedPageIsNeverCopied) {
  Memory trunk(small_store(), 1, 1);
  read_following(trunk, 64);
  Memory fork = trunk.fork();
  read_following(fork, 1);
  EXPECT_EQ(fork.lane(0, 0)[0].page, trunk.lane(0, 0)[0].page);
  EXPECT_EQ(trunk.lane(0, 0).size(), 1);
}

TEST(Memory, RewindCrossesPagesAndGivesThemBack) {
  for (const int64_t keep : {199, 192, 191, 128, 100, 64, 63, 1, 0}) {
    SCOPED_TRACE(keep);
    Memory memory(small_store(), 2, 1);
    read_following(memory, 200);
    memory.rewind(200 - keep);
    EXPECT_EQ(memory.tokens(), keep);
    EXPECT_EQ(memory.next_position(), keep);
    EXPECT_EQ(memory.end_position(), keep);
    EXPECT_EQ(memory.lane(1, 0).size(), (keep + 63) / 64);
    EXPECT_EQ(memory.store().bytes_in_use(), 2 * ((keep + 63) / 64) * memory.store().shape().bytes());
    if (keep > 0) {
      EXPECT_EQ(memory.lane(0, 0).back().mask, page_bits(0, memory.lane(0, 0).back().filled));
    }
    expect_tokens(memory);
    read_following(memory, 90, 5000);
    expect_tokens(memory, keep, 5000);
  }
}

TEST(Memory, EditsCountOnlyChangesOfFullPages) {
  Memory memory(small_store(), 1, 1);
  read_following(memory, 64 * 5 + 20);
  const uint64_t start = memory.edits(0, 0);
  EXPECT_EQ(memory.first_edited(0, 0, start), 6u) << "none";
  memory.rewind(0);
  memory.rewind(7);
  memory.rewind(13);  // the last page, which is not full
  read_following(memory, 30);
  memory.hide(0, 0, 3, 5);
  EXPECT_EQ(memory.edits(0, 0), start);
  memory.rewind(31);  // into the fifth page
  EXPECT_EQ(memory.edits(0, 0), start + 1);
  EXPECT_EQ(memory.first_edited(0, 0, start), 4u);
  read_following(memory, 1);
  const Memory fork = memory.fork();
  memory.rewind(64 * 2 + 1);  // into the third page
  EXPECT_EQ(memory.edits(0, 0), start + 2);
  EXPECT_EQ(memory.first_edited(0, 0, start + 1), 2u);
  EXPECT_LE(memory.first_edited(0, 0, start), 2u);
  EXPECT_EQ(fork.edits(0, 0), start + 1);
  memory.place(640);
  EXPECT_EQ(memory.first_edited(0, 0, start + 2), 0u);
}

TEST(Memory, RewindOverAGapReturnsToThePositionBeforeIt) {
  Memory memory(small_store(), 1, 1);
  read_tokens(memory, following(0, 5), {50, 51, 52, 7, 8});
  memory.rewind(1);
  EXPECT_EQ(memory.next_position(), 8);
  EXPECT_EQ(memory.end_position(), 53);
  memory.rewind(1);
  EXPECT_EQ(memory.next_position(), 53);
  memory.rewind(1);
  EXPECT_EQ(memory.next_position(), 52);
  EXPECT_EQ(memory.end_position(), 52);
}

TEST(Memory, RewindIntoASharedPageThenAppendLeavesTheOtherSideAlone) {
  Memory trunk(small_store(), 1, 1);
  read_following(trunk, 150);
  Memory fork = trunk.fork();
  const auto trunk_bytes = all_bytes(trunk);
  fork.rewind(100);  // into the first page
  read_following(fork, 30, 7000);
  EXPECT_EQ(all_bytes(trunk), trunk_bytes);
  expect_tokens(trunk);
  expect_tokens(fork, 50, 7000);
}

TEST(Memory, RewindOfMoreThanThereIsIsRefused) {
  Memory memory(small_store(), 1, 1);
  read_following(memory, 5);
  EXPECT_THROW(memory.rewind(6), Error);
  EXPECT_THROW(memory.rewind(-1), Error);
  EXPECT_EQ(memory.tokens(), 5);
  memory.rewind(0);
  expect_tokens(memory);
}

TEST(Memory, PlaceShiftsEveryPageAndWritesNothing) {
  Memory memory(small_store(), 2, 1);
  read_tokens(memory, following(0, 5), {3, 4, 10, 11, 12});
  const auto bytes = all_bytes(memory);
  memory.place(1003);
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(memory.lane(layer, 0)[0].place, 1003);
    EXPECT_EQ(memory.lane(layer, 0)[1].place, 1010);
  }
  EXPECT_EQ(memory.next_position(), 1013);
  EXPECT_EQ(memory.end_position(), 1013);
  EXPECT_EQ(all_bytes(memory), bytes);
  read_following(memory, 3);
  EXPECT_EQ(memory.lane(0, 0).size(), 2);
  EXPECT_EQ(memory.next_position(), 1016);
  memory.place(0);
  EXPECT_EQ(memory.next_position(), 13);
  expect_tokens(memory);
}

TEST(Memory, APlaceThatWouldPutAPageBelowZeroIsRefused) {
  Memory memory(small_store(), 1, 2);
  read_tokens(memory, following(0, 4), {10, 11, 5, 6});
  EXPECT_THROW(memory.place(4), Error);  // the token at 5 would move to -1
  EXPECT_EQ(memory.lane(0, 1)[1].place, 5);
  memory.place(5);
  EXPECT_EQ(memory.lane(0, 1)[1].place, 0);
  EXPECT_EQ(memory.next_position(), 2);
  EXPECT_EQ(memory.end_position(), 7);
}

TEST(Memory, APlaceThatWouldPutAPagePastTheLimitIsRefused) {
  Memory memory(small_store(), 1, 1);
  read_tokens(memory, following(0, 4), {0, 1, 10, 11});
  EXPECT_THROW(memory.place(kPositionLimit - 11), Error);
  memory.place(kPositionLimit - 12);
  EXPECT_EQ(memory.end_position(), kPositionLimit);
}

TEST(Memory, AForkMovesAlone) {
  Memory trunk(small_store(), 1, 1);
  read_following(trunk, 100);
  Memory fork = trunk.fork();
  fork.place(640);
  fork.hide(-1, 0, 0, 10);
  EXPECT_EQ(trunk.lane(0, 0)[0].place, 0);
  EXPECT_EQ(trunk.lane(0, 0)[0].mask, ~uint64_t{0});
  EXPECT_EQ(trunk.next_position(), 100);
  EXPECT_EQ(fork.lane(0, 0)[0].page, trunk.lane(0, 0)[0].page);
}

TEST(Memory, HideTakesTokensFromTheMaskOfOneLaneOrAll) {
  Memory memory(small_store(), 2, 2);
  read_following(memory, 130);
  memory.hide(1, 0, 60, 129);
  EXPECT_EQ(memory.lane(1, 0)[0].mask, page_bits(0, 60));
  EXPECT_EQ(memory.lane(1, 0)[1].mask, 0u);
  EXPECT_EQ(memory.lane(1, 0)[2].mask, page_bits(1, 2));
  EXPECT_EQ(memory.lane(0, 1)[1].mask, ~uint64_t{0});
  memory.hide(-1, 0, 64, 66);
  EXPECT_EQ(memory.lane(0, 1)[1].mask, page_bits(2, 64));
  EXPECT_EQ(memory.tokens(), 130);
  EXPECT_EQ(memory.next_position(), 130);
  memory.hide(-1, 0, 20, 10);     // empty
  memory.hide(-1, 0, 500, 1000);  // past the end
  memory.hide(-1, 0, -50, 1);     // from before the start
  EXPECT_EQ(memory.lane(0, 0)[0].mask, page_bits(1, 64));
  expect_tokens(memory);
}

TEST(Memory, TokensReadAfterHidingAreVisible) {
  Memory memory(small_store(), 1, 1);
  read_following(memory, 10);
  memory.hide(-1, 0, 0, 1000);
  read_following(memory, 5);
  EXPECT_EQ(memory.lane(0, 0)[0].mask, page_bits(10, 15));
  memory.rewind(10);
  EXPECT_EQ(memory.lane(0, 0)[0].mask, 0u);
  read_following(memory, 2);
  EXPECT_EQ(memory.lane(0, 0)[0].mask, page_bits(5, 7));
}

TEST(Memory, MovingHandsOverThePages) {
  const auto store = small_store();
  Memory a(store, 1, 1), b(store, 1, 1);
  read_following(a, 100);
  read_following(b, 300);
  b = std::move(a);
  EXPECT_EQ(store->bytes_in_use(), 2 * store->shape().bytes());
  Memory c = std::move(b);
  EXPECT_EQ(c.tokens(), 100);
  expect_tokens(c);
  { const Memory gone = std::move(c); }
  EXPECT_EQ(store->bytes_in_use(), 0u);
}

}  // namespace
}  // namespace fathom
