#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>
#include <utility>

#include "memory/lane_notes.h"
#include "token_pages.h"

namespace fathom {
namespace {

using test::following;
using test::read_tokens;

constexpr int64_t kPages = 2 * NotePool::kRun + 5;  // two whole runs and a part of one

/// A sequence of one lane whose pages are noted: a note holds the page, its position and a number of its first and
/// of its last token.
struct Noted {
  Memory memory{test::small_store(), 1, 1};
  LaneNotes notes{std::make_shared<NotePool>(sizeof(Note))};
  struct Note {
    PageId page;
    int64_t place;
    float first, last;
  };

  explicit Noted(int64_t tokens) { read(0, tokens); }
  void read(int64_t first_id, int64_t tokens) {
    std::vector<int64_t> ids(tokens);
    std::iota(ids.begin(), ids.end(), first_id);
    read_tokens(memory, ids, following(memory.next_position(), tokens));
  }
  static Note of(const PageStore& store, const PageSlot& slot) {
    Note note{};
    note.page = slot.page, note.place = slot.place;
    note.first = page_key(PageFormat::kF32, test::kKeyDim, store.keys(slot.page), 0, 0);
    note.last = page_key(PageFormat::kF32, test::kKeyDim, store.keys(slot.page), kPageTokens - 1, 0);
    return note;
  }
  /// The slots that were noted.
  std::set<int64_t> update(LaneNotes& of_lane, const Memory& of_memory) {
    std::set<int64_t> made;
    const PageStore& store = of_memory.store();
    const bool current = of_lane.current(of_memory, 0, 0);
    of_lane.update(of_memory, 0, 0, [&](const PageSlot& slot, std::byte* out) {
      made.insert(&slot - of_memory.lane(0, 0).data());
      const Note note = of(store, slot);
      std::memcpy(out, &note, sizeof(note));
    });
    EXPECT_TRUE(!current || made.empty());
    // packing may leave a page in the middle that is not full: such lanes are always looked at
    const Lane& lane = of_memory.lane(0, 0);
    const auto full = [](const PageSlot& slot) { return slot.filled == kPageTokens; };
    EXPECT_EQ(of_lane.current(of_memory, 0, 0), lane.empty() || std::all_of(lane.begin(), lane.end() - 1, full));
    return made;
  }
  std::set<int64_t> update() { return update(notes, memory); }
  static void expect_right(const LaneNotes& of_lane, const Memory& of_memory) {
    const Lane& lane = of_memory.lane(0, 0);
    for (size_t s = 0; s < lane.size(); ++s) {
      if (lane[s].filled < kPageTokens || lane[s].page == kNoPage) continue;
      Note found;
      std::memcpy(&found, of_lane[s], sizeof(found));
      const Note wanted = of(of_memory.store(), lane[s]);
      EXPECT_EQ(found.page, wanted.page) << s;
      EXPECT_EQ(found.place, wanted.place) << s;
      EXPECT_EQ(found.first, wanted.first) << s;
      EXPECT_EQ(found.last, wanted.last) << s;
    }
  }
};

std::set<int64_t> slots(int64_t begin, int64_t end) {
  std::set<int64_t> all;
  for (int64_t s = begin; s < end; ++s) all.insert(s);
  return all;
}

TEST(LaneNotes, FullPagesAreNotedOnce) {
  Noted noted(kPages * kPageTokens - 1);
  EXPECT_EQ(noted.update(), slots(0, kPages - 1)) << "the last page is not full";
  EXPECT_EQ(noted.update(), slots(0, 0));
  noted.read(9000, 2);
  EXPECT_EQ(noted.update(), slots(kPages - 1, kPages));
  Noted::expect_right(noted.notes, noted.memory);
}

TEST(LaneNotes, WhatIsWrittenAnewIsNotedAnew) {
  Noted noted(kPages * kPageTokens);
  noted.update();
  noted.memory.rewind(kPageTokens + 1);
  noted.read(5000, kPageTokens + 1);
  EXPECT_EQ(noted.update(), slots(kPages - 2, kPages));
  Noted::expect_right(noted.notes, noted.memory);
}

TEST(LaneNotes, StayCurrentOverARewindThatChangesNoFullPage) {
  Noted noted(kPages * kPageTokens);
  noted.update();
  noted.memory.rewind(0);
  EXPECT_TRUE(noted.notes.current(noted.memory, 0, 0));
  for (const int64_t more : {1, 10, 63}) {  // tokens of a last page that is not full
    noted.read(5000, more);
    EXPECT_TRUE(noted.notes.current(noted.memory, 0, 0));
    noted.memory.rewind(more - 1);
    EXPECT_TRUE(noted.notes.current(noted.memory, 0, 0));
    noted.memory.rewind(1);  // which removes the page
    EXPECT_TRUE(noted.notes.current(noted.memory, 0, 0));
  }
  EXPECT_EQ(noted.update(), slots(0, 0));
  noted.memory.place(noted.memory.lane(0, 0).front().place);  // where it is
  EXPECT_TRUE(noted.notes.current(noted.memory, 0, 0));
  Noted::expect_right(noted.notes, noted.memory);
}

TEST(LaneNotes, APageThatIsFullAgainIsNotedAgain) {
  for (const int64_t removed : {1, 3, 63, 64, 65, 130}) {
    for (const bool looked_at_between : {false, true}) {
      SCOPED_TRACE(testing::Message() << removed << " tokens " << looked_at_between);
      Noted noted(kPages * kPageTokens);
      noted.update();
      const PageId last = noted.memory.lane(0, 0).back().page;
      noted.memory.rewind(removed);
      EXPECT_FALSE(noted.notes.current(noted.memory, 0, 0));
      if (looked_at_between) {
        EXPECT_EQ(noted.update(), slots(0, 0));
      }
      noted.read(5000, removed);
      if (removed <= kPageTokens) {
        EXPECT_EQ(noted.memory.lane(0, 0).back().page, last) << "the hard case";
      }
      EXPECT_EQ(noted.update(), slots(kPages - (removed + kPageTokens - 1) / kPageTokens, kPages));
      Noted::expect_right(noted.notes, noted.memory);
    }
  }
}

TEST(LaneNotes, ARewindOfAForkMakesOnlyItsOwnNotesAgain) {
  for (const int64_t removed : {0, 2, 64, 70}) {
    SCOPED_TRACE(removed);
    Noted noted(kPages * kPageTokens);
    noted.update();
    Memory fork = noted.memory.fork();
    LaneNotes copy(noted.notes);
    fork.rewind(removed);
    if (removed > 0) read_tokens(fork, following(5000, removed), following(fork.tokens(), removed));
    EXPECT_TRUE(noted.notes.current(noted.memory, 0, 0));
    EXPECT_EQ(noted.update(copy, fork), slots(kPages - (removed + kPageTokens - 1) / kPageTokens, kPages));
    Noted::expect_right(copy, fork);
    EXPECT_EQ(noted.update(), slots(0, 0));
    Noted::expect_right(noted.notes, noted.memory);
  }
}

TEST(LaneNotes, AreRightAfterAnyOperations) {
  const int seed = testing::UnitTest::GetInstance()->random_seed();
  SCOPED_TRACE(testing::Message() << "--gtest_random_seed=" << seed);
  std::mt19937 random(seed);
  Noted noted(300);
  for (int step = 0; step < 400; ++step) {
    const int64_t tokens = noted.memory.tokens();
    const auto up_to = [&](int64_t most) { return static_cast<int64_t>(random() % (most + 1)); };
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
        noted.read(1000 * step, 1 + up_to(100));
        break;
      case 3:
        noted.memory.rewind(std::min(tokens, up_to(5)));
        break;
      case 4:
        noted.memory.rewind(std::min(tokens, up_to(200)));
        break;
      case 5: {  // the fork goes on
        Memory fork = noted.memory.fork();
        LaneNotes copy(noted.notes);
        if (random() % 2) noted.read(1000 * step, 1 + up_to(50)), noted.update();
        std::swap(noted.memory, fork);
        noted.notes = std::move(copy);
        break;
      }
      case 6:
        noted.memory.place(up_to(1000));
        break;
      default: {
        std::vector<char> keep(tokens);
        for (char& k : keep) k = random() % 4 != 0;
        noted.memory.drop(0, 0, keep);
        noted.memory.pack(kernels(), 0, 0, test::small_rotations());
      }
    }
    if (random() % 3 == 0) continue;
    noted.update();
    ASSERT_NO_FATAL_FAILURE(Noted::expect_right(noted.notes, noted.memory)) << step;
    ASSERT_FALSE(HasFailure()) << step;
  }
}

TEST(LaneNotes, ForksDoNotSeeEachOthersNotes) {
  Noted noted(kPages * kPageTokens);
  noted.update();
  Memory fork = noted.memory.fork();
  LaneNotes copy(noted.notes);
  EXPECT_EQ(noted.update(copy, fork), slots(0, 0));
  fork.place(640);  // into whole runs, too
  EXPECT_EQ(noted.update(copy, fork), slots(0, kPages));
  noted.memory.rewind(2 * kPageTokens);
  noted.read(7000, 2 * kPageTokens);
  EXPECT_EQ(noted.update(), slots(kPages - 2, kPages));
  Noted::expect_right(copy, fork);
  Noted::expect_right(noted.notes, noted.memory);
  Memory third = fork.fork();
  copy = LaneNotes(copy);  // runs go back to the pool, and are used again
  EXPECT_EQ(noted.update(copy, third), slots(0, 0));
  third.rewind(third.tokens() - kPageTokens);
  read_tokens(third, following(300, kPageTokens), following(third.next_position(), kPageTokens));
  EXPECT_EQ(noted.update(copy, third), slots(1, 2));
  Noted::expect_right(copy, third);
  Noted::expect_right(noted.notes, noted.memory);
}

TEST(LaneNotes, DroppedPagesNeedNone) {
  Noted noted(4 * kPageTokens);
  std::vector<char> keep(4 * kPageTokens, 1);
  std::fill_n(keep.begin() + kPageTokens, kPageTokens, 0);
  noted.memory.drop(0, 0, keep);
  EXPECT_EQ(noted.update(), (std::set<int64_t>{0, 2, 3}));
  Noted::expect_right(noted.notes, noted.memory);
}

TEST(LaneNotes, WhatIsPackedIsNotedAnew) {
  Noted noted(6 * kPageTokens);
  noted.update();
  std::vector<char> keep(6 * kPageTokens, 1);
  for (int64_t t = 0; t < 6 * kPageTokens; t += 3) keep[t] = 0;
  noted.memory.drop(0, 0, keep);
  ASSERT_TRUE(noted.memory.pack(kernels(), 0, 0, test::small_rotations()));
  EXPECT_FALSE(noted.update().empty());
  Noted::expect_right(noted.notes, noted.memory);
}

TEST(LaneNotes, TellWhichLieTogether) {
  Noted noted(kPages * kPageTokens);
  noted.update();
  constexpr uint32_t kRun = NotePool::kRun;
  const std::vector<uint32_t> some{3, 4, 5, 7, kRun - 2, kRun - 1, kRun, kRun + 1};
  const std::vector<size_t> expected{3, 2, 1, 1, 2, 1, 2, 1};
  for (size_t i = 0; i < some.size(); ++i) {
    const size_t count = LaneNotes::together(std::span(some).subspan(i));
    EXPECT_EQ(count, expected[i]) << some[i];
    for (size_t j = 1; j < count; ++j)
      EXPECT_EQ(noted.notes[some[i] + j], noted.notes[some[i]] + j * sizeof(Noted::Note));
  }
}

}  // namespace
}  // namespace fathom
