#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "memory/lane_notes.h"
#include "token_pages.h"

namespace fathom {
namespace {

using test::following;
using test::read_tokens;

constexpr int64_t kPages = 2 * NotePool::kRun + 5;  // two whole runs and a part of one

/// A sequence of one lane whose pages are noted: a note holds the page, the place and the page's first number.
struct Noted {
  Memory memory{test::small_store(), 1, 1};
  LaneNotes notes{std::make_shared<NotePool>(sizeof(Note))};
  struct Note {
    PageId page;
    int64_t place;
    float first;
  };

  explicit Noted(int64_t tokens) { read(0, tokens); }
  void read(int64_t first_id, int64_t tokens) {
    std::vector<int64_t> ids(tokens);
    std::iota(ids.begin(), ids.end(), first_id);
    read_tokens(memory, ids, following(memory.tokens(), tokens));
  }
  static Note of(const PageStore& store, const PageSlot& slot) {
    Note note{};
    note.page = slot.page, note.place = slot.place;
    std::memcpy(&note.first, store.keys(slot.page), sizeof(float));
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
    EXPECT_TRUE(of_lane.current(of_memory, 0, 0));
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
