#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>
#include <utility>

#include "memory/page_metadata.h"
#include "seed.h"
#include "token_pages.h"

namespace fathom {
namespace {

using test::drop_newest;
using test::following;
using test::read_tokens;

constexpr int64_t kPages = 2 * MetadataPool::kRun + 5;  // two whole runs and a part of one

/// A sequence of one page table whose pages have records: a record holds the page, its position and a number of its
/// first and of its last token.
struct Recorded {
  struct Record {
    PageId page;
    int64_t position;
    float first, last;
  };
  Sequence sequence = test::small_sequence(test::small_store(), 1, 1);
  PageMetadata metadata{std::make_shared<MetadataPool>(sizeof(Record))};

  explicit Recorded(int64_t tokens) { read(0, tokens); }
  void read(int64_t first_id, int64_t tokens) {
    read_tokens(sequence, following(first_id, tokens), following(sequence.next_position(), tokens));
  }
  bool current() const { return metadata.current(sequence.kv(0), 0); }
  static Record of(const PageStore& store, const PageEntry& entry) {
    Record record{};
    record.page = entry.page, record.position = entry.position;
    record.first = page_key(PageFormat::kF32, test::kKeyDim, store.keys(entry.page), 0, 0);
    record.last = page_key(PageFormat::kF32, test::kKeyDim, store.keys(entry.page), kPageTokens - 1, 0);
    return record;
  }
  /// The entries whose records were made.
  std::set<int64_t> update(PageMetadata& of_table, const Sequence& of_sequence) {
    std::set<int64_t> made;
    const PagedKv& kv = of_sequence.kv(0);
    const PageTable& table = kv.table(0);
    const bool current = of_table.current(kv, 0);
    of_table.update(kv, 0, [&](const PageEntry& entry, std::byte* out) {
      made.insert(std::ranges::find_if(table, [&](const PageEntry& e) { return &e == &entry; }) - table.begin());
      const Record record = of(kv.store(), entry);
      std::memcpy(out, &record, sizeof(record));
    });
    EXPECT_TRUE(!current || made.empty());
    // compacting may leave a page in the middle that is not full: such tables are always looked at
    const auto full = [](const PageEntry& entry) { return entry.filled == kPageTokens; };
    EXPECT_EQ(of_table.current(kv, 0), table.empty() || std::all_of(table.begin(), table.end() - 1, full));
    return made;
  }
  std::set<int64_t> update() { return update(metadata, sequence); }
  static void expect_right(const PageMetadata& of_table, const Sequence& of_sequence) {
    const PageTable& table = of_sequence.kv(0).table(0);
    for (size_t e = 0; e < table.size(); ++e) {
      if (table[e].filled < kPageTokens || table[e].page == kNoPage) continue;
      Record found;
      std::memcpy(&found, of_table[e], sizeof(found));
      const Record wanted = of(test::store_of(of_sequence), table[e]);
      EXPECT_EQ(found.page, wanted.page) << e;
      EXPECT_EQ(found.position, wanted.position) << e;
      EXPECT_EQ(found.first, wanted.first) << e;
      EXPECT_EQ(found.last, wanted.last) << e;
    }
  }
};

std::set<int64_t> entries(int64_t begin, int64_t end) {
  std::set<int64_t> all;
  for (int64_t e = begin; e < end; ++e) all.insert(e);
  return all;
}

TEST(PageMetadata, FullPagesGetARecordOnce) {
  Recorded recorded(kPages * kPageTokens - 1);
  EXPECT_EQ(recorded.update(), entries(0, kPages - 1)) << "the last page is not full";
  EXPECT_EQ(recorded.update(), entries(0, 0));
  recorded.read(9000, 2);
  EXPECT_EQ(recorded.update(), entries(kPages - 1, kPages));
  Recorded::expect_right(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, WhatIsWrittenAgainGetsANewRecord) {
  Recorded recorded(kPages * kPageTokens);
  recorded.update();
  drop_newest(recorded.sequence, kPageTokens + 1);
  recorded.read(5000, kPageTokens + 1);
  EXPECT_EQ(recorded.update(), entries(kPages - 2, kPages));
  Recorded::expect_right(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, StaysCurrentOverATruncationThatChangesNoFullPage) {
  Recorded recorded(kPages * kPageTokens);
  recorded.update();
  drop_newest(recorded.sequence, 0);
  EXPECT_TRUE(recorded.current());
  for (const int64_t more : {1, 10, 63}) {  // tokens of a last page that is not full
    recorded.read(5000, more);
    EXPECT_TRUE(recorded.current());
    drop_newest(recorded.sequence, more - 1);
    EXPECT_TRUE(recorded.current());
    drop_newest(recorded.sequence, 1);  // which removes the page
    EXPECT_TRUE(recorded.current());
  }
  EXPECT_EQ(recorded.update(), entries(0, 0));
  recorded.sequence.move_to(recorded.sequence.kv(0).table(0).front().position);  // where it is
  EXPECT_TRUE(recorded.current());
  Recorded::expect_right(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, APageThatIsFullAgainGetsANewRecord) {
  for (const int64_t removed : {1, 3, 63, 64, 65, 130}) {
    for (const bool looked_at_between : {false, true}) {
      SCOPED_TRACE(testing::Message() << removed << " tokens " << looked_at_between);
      Recorded recorded(kPages * kPageTokens);
      recorded.update();
      const PageId last = recorded.sequence.kv(0).table(0).back().page;
      drop_newest(recorded.sequence, removed);
      EXPECT_FALSE(recorded.current());
      if (looked_at_between) {
        EXPECT_EQ(recorded.update(), entries(0, 0));
      }
      recorded.read(5000, removed);
      if (removed <= kPageTokens) {
        EXPECT_EQ(recorded.sequence.kv(0).table(0).back().page, last) << "the hard case";
      }
      EXPECT_EQ(recorded.update(), entries(kPages - (removed + kPageTokens - 1) / kPageTokens, kPages));
      Recorded::expect_right(recorded.metadata, recorded.sequence);
    }
  }
}

TEST(PageMetadata, TruncatingAForkMakesOnlyItsOwnRecordsAgain) {
  for (const int64_t removed : {0, 2, 64, 70}) {
    SCOPED_TRACE(removed);
    Recorded recorded(kPages * kPageTokens);
    recorded.update();
    Sequence fork = recorded.sequence.fork();
    PageMetadata copy(recorded.metadata);
    drop_newest(fork, removed);
    if (removed > 0) read_tokens(fork, following(5000, removed), following(fork.tokens(), removed));
    EXPECT_TRUE(recorded.current());
    EXPECT_EQ(recorded.update(copy, fork), entries(kPages - (removed + kPageTokens - 1) / kPageTokens, kPages));
    Recorded::expect_right(copy, fork);
    EXPECT_EQ(recorded.update(), entries(0, 0));
    Recorded::expect_right(recorded.metadata, recorded.sequence);
  }
}

TEST(PageMetadata, IsRightAfterAnyOperations) {
  const int seed = test::seed(0);
  SCOPED_TRACE(testing::Message() << "--gtest_random_seed=" << seed);
  std::mt19937 random(test::seed(seed));
  Recorded recorded(300);
  for (int step = 0; step < 400; ++step) {
    const int64_t tokens = recorded.sequence.tokens();
    const auto up_to = [&](int64_t most) { return static_cast<int64_t>(random() % (most + 1)); };
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
        recorded.read(1000 * step, 1 + up_to(100));
        break;
      case 3:
        drop_newest(recorded.sequence, std::min(tokens, up_to(5)));
        break;
      case 4:
        drop_newest(recorded.sequence, std::min(tokens, up_to(200)));
        break;
      case 5: {  // the fork goes on
        Sequence fork = recorded.sequence.fork();
        PageMetadata copy(recorded.metadata);
        if (random() % 2) recorded.read(1000 * step, 1 + up_to(50)), recorded.update();
        std::swap(recorded.sequence, fork);
        recorded.metadata = std::move(copy);
        break;
      }
      case 6:
        recorded.sequence.move_to(up_to(1000));
        break;
      default: {
        std::vector<char> keep(tokens);
        for (char& k : keep) k = random() % 4 != 0;
        recorded.sequence.kv(0).evict(0, keep);
        recorded.sequence.kv(0).compact(kernels(), 0);
      }
    }
    if (random() % 3 == 0) continue;
    recorded.update();
    ASSERT_NO_FATAL_FAILURE(Recorded::expect_right(recorded.metadata, recorded.sequence)) << step;
    ASSERT_FALSE(HasFailure()) << step;
  }
}

TEST(PageMetadata, ForksDoNotSeeEachOthersRecords) {
  Recorded recorded(kPages * kPageTokens);
  recorded.update();
  Sequence fork = recorded.sequence.fork();
  PageMetadata copy(recorded.metadata);
  EXPECT_EQ(recorded.update(copy, fork), entries(0, 0));
  fork.move_to(640);  // into whole runs, too
  EXPECT_EQ(recorded.update(copy, fork), entries(0, kPages));
  drop_newest(recorded.sequence, 2 * kPageTokens);
  recorded.read(7000, 2 * kPageTokens);
  EXPECT_EQ(recorded.update(), entries(kPages - 2, kPages));
  Recorded::expect_right(copy, fork);
  Recorded::expect_right(recorded.metadata, recorded.sequence);
  Sequence third = fork.fork();
  copy = PageMetadata(copy);  // runs go back to the pool, and are used again
  EXPECT_EQ(recorded.update(copy, third), entries(0, 0));
  drop_newest(third, third.tokens() - kPageTokens);
  read_tokens(third, following(300, kPageTokens), following(third.next_position(), kPageTokens));
  EXPECT_EQ(recorded.update(copy, third), entries(1, 2));
  Recorded::expect_right(copy, third);
  Recorded::expect_right(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, EvictedPagesNeedNone) {
  Recorded recorded(4 * kPageTokens);
  std::vector<char> keep(4 * kPageTokens, 1);
  std::fill_n(keep.begin() + kPageTokens, kPageTokens, 0);
  recorded.sequence.kv(0).evict(0, keep);
  EXPECT_EQ(recorded.update(), (std::set<int64_t>{0, 2, 3}));
  Recorded::expect_right(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, WhatIsCompactedGetsNewRecords) {
  Recorded recorded(6 * kPageTokens);
  recorded.update();
  std::vector<char> keep(6 * kPageTokens, 1);
  for (int64_t t = 0; t < 6 * kPageTokens; t += 3) keep[t] = 0;
  recorded.sequence.kv(0).evict(0, keep);
  ASSERT_TRUE(recorded.sequence.kv(0).compact(kernels(), 0));
  EXPECT_FALSE(recorded.update().empty());
  Recorded::expect_right(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, TellsWhichRecordsLieTogether) {
  Recorded recorded(kPages * kPageTokens);
  recorded.update();
  constexpr uint32_t kRun = MetadataPool::kRun;
  const std::vector<uint32_t> some{3, 4, 5, 7, kRun - 2, kRun - 1, kRun, kRun + 1};
  const std::vector<size_t> expected{3, 2, 1, 1, 2, 1, 2, 1};
  for (size_t i = 0; i < some.size(); ++i) {
    const size_t count = PageMetadata::contiguous_records(std::span(some).subspan(i));
    EXPECT_EQ(count, expected[i]) << some[i];
    for (size_t j = 1; j < count; ++j)
      EXPECT_EQ(recorded.metadata[some[i] + j], recorded.metadata[some[i]] + j * sizeof(Recorded::Record));
  }
}

}  // namespace
}  // namespace fathom
