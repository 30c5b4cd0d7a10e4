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

using test::following;
using test::read_tokens;
using test::remove_newest;

constexpr int64_t kPages = 2 * MetadataPool::kRun + 5;  // two complete runs and part of a third

/// A sequence of one page table with page metadata. A record holds the page, its position, and one key element of
/// its first and of its last token.
struct RecordedSequence {
  struct Record {
    PageId page;
    int64_t position;
    float first, last;
  };
  Sequence sequence = test::small_sequence(test::small_store(), 1, 1);
  PageMetadata metadata{std::make_shared<MetadataPool>(sizeof(Record))};

  explicit RecordedSequence(int64_t tokens) { read(0, tokens); }
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
  /// Updates the records and returns the entries whose records were made.
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
    // compacting may leave a partly filled page in the middle: such tables are never current
    const auto full = [](const PageEntry& entry) { return entry.filled == kPageTokens; };
    EXPECT_EQ(of_table.current(kv, 0), table.empty() || std::all_of(table.begin(), table.end() - 1, full));
    return made;
  }
  std::set<int64_t> update() { return update(metadata, sequence); }
  static void expect_correct(const PageMetadata& of_table, const Sequence& of_sequence) {
    const PageTable& table = of_sequence.kv(0).table(0);
    for (size_t e = 0; e < table.size(); ++e) {
      if (table[e].filled < kPageTokens || table[e].page == kNoPage) continue;
      Record found;
      std::memcpy(&found, of_table[e], sizeof(found));
      const Record expected = of(test::store_of(of_sequence), table[e]);
      EXPECT_EQ(found.page, expected.page) << e;
      EXPECT_EQ(found.position, expected.position) << e;
      EXPECT_EQ(found.first, expected.first) << e;
      EXPECT_EQ(found.last, expected.last) << e;
    }
  }
};

/// Returns {begin, …, end − 1}.
std::set<int64_t> entries(int64_t begin, int64_t end) {
  std::set<int64_t> all;
  for (int64_t e = begin; e < end; ++e) all.insert(e);
  return all;
}

TEST(PageMetadata, FullPagesGetARecordOnce) {
  RecordedSequence recorded(kPages * kPageTokens - 1);
  EXPECT_EQ(recorded.update(), entries(0, kPages - 1)) << "the last page is not full";
  EXPECT_EQ(recorded.update(), entries(0, 0));
  recorded.read(9000, 2);
  EXPECT_EQ(recorded.update(), entries(kPages - 1, kPages));
  RecordedSequence::expect_correct(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, RewrittenPagesGetNewRecords) {
  RecordedSequence recorded(kPages * kPageTokens);
  recorded.update();
  remove_newest(recorded.sequence, kPageTokens + 1);
  recorded.read(5000, kPageTokens + 1);
  EXPECT_EQ(recorded.update(), entries(kPages - 2, kPages));
  RecordedSequence::expect_correct(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, StaysCurrentIfTruncationChangesNoFullPage) {
  RecordedSequence recorded(kPages * kPageTokens);
  recorded.update();
  remove_newest(recorded.sequence, 0);
  EXPECT_TRUE(recorded.current());
  for (const int64_t more : {1, 10, 63}) {  // tokens of a partly filled last page
    recorded.read(5000, more);
    EXPECT_TRUE(recorded.current());
    remove_newest(recorded.sequence, more - 1);
    EXPECT_TRUE(recorded.current());
    remove_newest(recorded.sequence, 1);  // which removes the page
    EXPECT_TRUE(recorded.current());
  }
  EXPECT_EQ(recorded.update(), entries(0, 0));
  recorded.sequence.move_to(recorded.sequence.kv(0).table(0).front().position);  // the current position
  EXPECT_TRUE(recorded.current());
  RecordedSequence::expect_correct(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, ARefilledPageGetsANewRecord) {
  for (const int64_t removed : {1, 3, 63, 64, 65, 130}) {
    for (const bool update_between : {false, true}) {
      SCOPED_TRACE(testing::Message() << removed << " tokens " << update_between);
      RecordedSequence recorded(kPages * kPageTokens);
      recorded.update();
      const PageId last = recorded.sequence.kv(0).table(0).back().page;
      remove_newest(recorded.sequence, removed);
      EXPECT_FALSE(recorded.current());
      if (update_between) {
        EXPECT_EQ(recorded.update(), entries(0, 0));
      }
      recorded.read(5000, removed);
      if (removed <= kPageTokens) {
        EXPECT_EQ(recorded.sequence.kv(0).table(0).back().page, last) << "the page is reused";
      }
      EXPECT_EQ(recorded.update(), entries(kPages - (removed + kPageTokens - 1) / kPageTokens, kPages));
      RecordedSequence::expect_correct(recorded.metadata, recorded.sequence);
    }
  }
}

TEST(PageMetadata, TruncatingAForkRemakesOnlyItsChangedRecords) {
  for (const int64_t removed : {0, 2, 64, 70}) {
    SCOPED_TRACE(removed);
    RecordedSequence recorded(kPages * kPageTokens);
    recorded.update();
    Sequence fork = recorded.sequence.fork();
    PageMetadata copy(recorded.metadata);
    remove_newest(fork, removed);
    if (removed > 0) read_tokens(fork, following(5000, removed), following(fork.tokens(), removed));
    EXPECT_TRUE(recorded.current());
    EXPECT_EQ(recorded.update(copy, fork), entries(kPages - (removed + kPageTokens - 1) / kPageTokens, kPages));
    RecordedSequence::expect_correct(copy, fork);
    EXPECT_EQ(recorded.update(), entries(0, 0));
    RecordedSequence::expect_correct(recorded.metadata, recorded.sequence);
  }
}

TEST(PageMetadata, RandomOperationsGiveCorrectRecords) {
  std::mt19937 random(test::seed(0));
  RecordedSequence recorded(300);
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
        remove_newest(recorded.sequence, std::min(tokens, up_to(5)));
        break;
      case 4:
        remove_newest(recorded.sequence, std::min(tokens, up_to(200)));
        break;
      case 5: {  // continue with the fork
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
    ASSERT_NO_FATAL_FAILURE(RecordedSequence::expect_correct(recorded.metadata, recorded.sequence)) << step;
    ASSERT_FALSE(HasFailure()) << step;
  }
}

TEST(PageMetadata, ForksHaveIndependentRecords) {
  RecordedSequence recorded(kPages * kPageTokens);
  recorded.update();
  Sequence fork = recorded.sequence.fork();
  PageMetadata copy(recorded.metadata);
  EXPECT_EQ(recorded.update(copy, fork), entries(0, 0));
  fork.move_to(640);  // changes complete runs as well
  EXPECT_EQ(recorded.update(copy, fork), entries(0, kPages));
  remove_newest(recorded.sequence, 2 * kPageTokens);
  recorded.read(7000, 2 * kPageTokens);
  EXPECT_EQ(recorded.update(), entries(kPages - 2, kPages));
  RecordedSequence::expect_correct(copy, fork);
  RecordedSequence::expect_correct(recorded.metadata, recorded.sequence);
  Sequence third = fork.fork();
  copy = PageMetadata(copy);  // releases runs to the pool, which reuses them
  EXPECT_EQ(recorded.update(copy, third), entries(0, 0));
  remove_newest(third, third.tokens() - kPageTokens);
  read_tokens(third, following(300, kPageTokens), following(third.next_position(), kPageTokens));
  EXPECT_EQ(recorded.update(copy, third), entries(1, 2));
  RecordedSequence::expect_correct(copy, third);
  RecordedSequence::expect_correct(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, EvictedPagesHaveNoRecords) {
  RecordedSequence recorded(4 * kPageTokens);
  std::vector<char> keep(4 * kPageTokens, 1);
  std::fill_n(keep.begin() + kPageTokens, kPageTokens, 0);
  recorded.sequence.kv(0).evict(0, keep);
  EXPECT_EQ(recorded.update(), (std::set<int64_t>{0, 2, 3}));
  RecordedSequence::expect_correct(recorded.metadata, recorded.sequence);
}

TEST(PageMetadata, CompactedPagesGetNewRecords) {
  RecordedSequence recorded(6 * kPageTokens);
  recorded.update();
  std::vector<char> keep(6 * kPageTokens, 1);
  for (int64_t t = 0; t < 6 * kPageTokens; t += 3) keep[t] = 0;
  recorded.sequence.kv(0).evict(0, keep);
  ASSERT_TRUE(recorded.sequence.kv(0).compact(kernels(), 0));
  EXPECT_FALSE(recorded.update().empty());
  RecordedSequence::expect_correct(recorded.metadata, recorded.sequence);
}

std::vector<std::byte> saved_records(const PageMetadata& metadata, const Sequence& sequence) {
  ByteWriter out;
  metadata.save(out, sequence.kv(0), 0);
  return {out.bytes().begin(), out.bytes().end()};
}

void load_records(std::span<const std::byte> bytes, PageMetadata& metadata, const Sequence& sequence) {
  ByteReader in(bytes, "the saved records");
  metadata.load(in, sequence.kv(0), 0);
  in.expect_end();
}

PageMetadata new_metadata() {
  return PageMetadata(std::make_shared<MetadataPool>(sizeof(RecordedSequence::Record)));
}

TEST(PageMetadata, LoadedRecordsAreNotMadeAgain) {
  constexpr int64_t kTokens = kPages * kPageTokens + 10;
  RecordedSequence saved(kTokens);
  saved.update();
  RecordedSequence other(100);  // has other pages, of other versions
  const Sequence taken = other.sequence.fork();
  remove_newest(other.sequence, 100);
  other.read(0, kTokens);
  remove_newest(other.sequence, 30);
  other.read(kTokens - 30, 30);
  EXPECT_NE(other.sequence.kv(0).table(0)[0].page, saved.sequence.kv(0).table(0)[0].page);
  EXPECT_NE(other.sequence.kv(0).version(0), 0u);
  PageMetadata loaded = new_metadata();
  load_records(saved_records(saved.metadata, saved.sequence), loaded, other.sequence);
  EXPECT_TRUE(loaded.current(other.sequence.kv(0), 0));
  EXPECT_EQ(other.update(loaded, other.sequence), entries(0, 0));
  for (int64_t e = 0; e < kPages; ++e)
    EXPECT_EQ(std::memcmp(loaded[e], saved.metadata[e], sizeof(RecordedSequence::Record)), 0) << e;
  PageMetadata copy(loaded);
  other.read(7000, kPageTokens);
  EXPECT_EQ(other.update(loaded, other.sequence), entries(kPages, kPages + 1));
  remove_newest(other.sequence, 2 * kPageTokens);
  other.read(8000, 2 * kPageTokens);
  EXPECT_EQ(other.update(loaded, other.sequence), entries(kPages - 1, kPages + 1));
  EXPECT_EQ(other.update(copy, other.sequence), entries(kPages - 1, kPages + 1));
  other.sequence.move_to(64);
  EXPECT_EQ(other.update(loaded, other.sequence), entries(0, kPages + 1));
  RecordedSequence::expect_correct(loaded, other.sequence);
}

TEST(PageMetadata, OnlyUpToDateRecordsAreSaved) {
  RecordedSequence recorded(kPages * kPageTokens);
  recorded.update();
  remove_newest(recorded.sequence, 70);
  recorded.read(5000, 70);
  PageMetadata loaded = new_metadata();
  load_records(saved_records(recorded.metadata, recorded.sequence), loaded, recorded.sequence);
  EXPECT_FALSE(loaded.current(recorded.sequence.kv(0), 0));
  EXPECT_EQ(recorded.update(loaded, recorded.sequence), entries(kPages - 2, kPages));
  RecordedSequence::expect_correct(loaded, recorded.sequence);

  std::vector<char> keep(kPages * kPageTokens, 1);
  std::fill_n(keep.begin() + 100, 3 * kPageTokens, 0);
  recorded.update();
  recorded.sequence.kv(0).evict(0, keep);
  ASSERT_TRUE(recorded.sequence.kv(0).compact(kernels(), 0));
  loaded = new_metadata();
  load_records(saved_records(recorded.metadata, recorded.sequence), loaded, recorded.sequence);
  recorded.update(loaded, recorded.sequence);
  RecordedSequence::expect_correct(loaded, recorded.sequence);

  remove_newest(recorded.sequence, recorded.sequence.tokens() - 100);
  loaded = new_metadata();
  load_records(saved_records(recorded.metadata, recorded.sequence), loaded, recorded.sequence);
  recorded.update(loaded, recorded.sequence);
  RecordedSequence::expect_correct(loaded, recorded.sequence);
}

TEST(PageMetadata, AlteredBytesAreRefusedOrGiveRecordsOfFullPages) {
  std::mt19937 random(test::seed(3));
  RecordedSequence recorded(5 * kPageTokens + 1);
  std::vector<char> keep(recorded.sequence.tokens(), 1);
  std::fill_n(keep.begin() + kPageTokens, kPageTokens, 0);
  recorded.sequence.kv(0).evict(0, keep);
  recorded.update();
  const std::vector<std::byte> bytes = saved_records(recorded.metadata, recorded.sequence);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::byte> altered = bytes;
    altered[random() % bytes.size()] ^= static_cast<std::byte>(1u << random() % 8);
    if (random() % 4 == 0) altered.resize(random() % bytes.size());
    PageMetadata loaded = new_metadata();
    try {
      load_records(altered, loaded, recorded.sequence);
    } catch (const Error&) {
      ++refused;
      continue;
    }
    EXPECT_EQ(recorded.update(loaded, recorded.sequence), entries(0, 0));
  }
  EXPECT_GT(refused, 700);
}

TEST(PageMetadata, CountsContiguousRecords) {
  RecordedSequence recorded(kPages * kPageTokens);
  recorded.update();
  constexpr uint32_t kRun = MetadataPool::kRun;
  const std::vector<uint32_t> indices{3, 4, 5, 7, kRun - 2, kRun - 1, kRun, kRun + 1};
  const std::vector<size_t> expected{3, 2, 1, 1, 2, 1, 2, 1};
  for (size_t i = 0; i < indices.size(); ++i) {
    const size_t count = PageMetadata::contiguous_records(std::span(indices).subspan(i));
    EXPECT_EQ(count, expected[i]) << indices[i];
    for (size_t j = 1; j < count; ++j)
      EXPECT_EQ(recorded.metadata[indices[i] + j],
                recorded.metadata[indices[i]] + j * sizeof(RecordedSequence::Record));
  }
}

}  // namespace
}  // namespace fathom
