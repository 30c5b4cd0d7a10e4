// Mapped pages (PageStore::map), and sequences that adopt them (PagedKv::adopt).
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <thread>

#include "allocation_limit.h"
#include "base/aligned.h"
#include "base/error.h"
#include "memory/page_metadata.h"
#include "seed.h"
#include "token_pages.h"

namespace fathom {
namespace {

constexpr PageShape kLarge{PageFormat::kF32, 4096, 4096};  // 2 MiB per page, two pages per slab

/// A buffer of pages in place of a mapped file.
struct MappedBuffer {
  MappedBuffer(size_t bytes, std::byte fill) : buffer(std::make_shared<AlignedBuffer<std::byte>>(bytes)) {
    std::ranges::fill(buffer->span(), fill);
  }
  /// Returns whether the mapping was destroyed, because none of its pages has owners.
  bool destroyed() const { return watch.expired(); }
  /// Maps the buffer into a store, transfers its ownership, and returns the id of the first page.
  PageId map(PageStore& store, size_t count) {
    const std::span<const std::byte> pages = bytes();
    watch = buffer;
    return store.map(pages, count, std::exchange(buffer, nullptr));
  }
  std::span<const std::byte> bytes() const { return std::as_const(*buffer).span(); }

  std::shared_ptr<AlignedBuffer<std::byte>> buffer;
  std::weak_ptr<const void> watch;
};

void release_all(PageStore& store, PageId first, size_t count) {
  for (size_t i = 0; i < count; ++i) store.release(first + static_cast<PageId>(i));
}

TEST(MappedPages, AreReadWithoutACopy) {
  const PageShape shape{PageFormat::kBF16, 16, 24};
  PageStore store(shape);
  for (const size_t count : {size_t{1}, size_t{7}, size_t{3000}}) {  // about 800 pages per slab
    MappedBuffer mapped(count * shape.bytes(), std::byte{0});
    const std::byte* data = mapped.bytes().data();
    for (size_t i = 0; i < count; ++i)
      std::memset(mapped.buffer->data() + i * shape.bytes(), static_cast<int>(i % 251), shape.bytes());
    const PageRef own = store.allocate();
    const PageId first = mapped.map(store, count);
    for (size_t i = 0; i < count; ++i) {
      const PageId page = first + static_cast<PageId>(i);
      ASSERT_EQ(store.keys(page), data + i * shape.bytes());
      ASSERT_EQ(store.values(page), store.keys(page) + shape.key_bytes());
      ASSERT_EQ(store.keys(page)[shape.bytes() - 1], static_cast<std::byte>(i % 251));
      ASSERT_EQ(store.owners(page), 1u);
      ASSERT_TRUE(store.shared(page)) << "must be copied before a write";
      ASSERT_NE(page, own.get());
    }
    EXPECT_LT(first + count, store.max_pages());
    EXPECT_EQ(store.bytes_in_use(), shape.bytes()) << "mapped pages do not count";
    EXPECT_FALSE(mapped.destroyed());
    release_all(store, first, count);
    EXPECT_TRUE(mapped.destroyed());
  }
}

TEST(MappedPages, KeepTheMappingUntilTheLastPageIsReleased) {
  PageStore store(kLarge);
  MappedBuffer mapped(5 * kLarge.bytes(), std::byte{7});
  const PageId first = mapped.map(store, 5);
  store.retain(first + 3);
  release_all(store, first, 5);
  EXPECT_FALSE(mapped.destroyed());
  EXPECT_EQ(store.keys(first + 3)[0], std::byte{7});
  EXPECT_EQ(store.owners(first + 3), 1u);
  store.release(first + 3);
  EXPECT_TRUE(mapped.destroyed());
}

TEST(MappedPages, DestroyingTheStoreReleasesTheMapping) {
  MappedBuffer mapped(2 * kLarge.bytes(), std::byte{7});
  {
    PageStore store(kLarge);
    mapped.map(store, 2);
  }
  EXPECT_TRUE(mapped.destroyed());
}

TEST(MappedPages, AreNotChargedToTheBudget) {
  const auto budget = std::make_shared<MemoryBudget>(kLarge.bytes());
  PageStore store(kLarge, budget);
  MappedBuffer mapped(3 * kLarge.bytes(), std::byte{7});
  const PageId first = mapped.map(store, 3);
  EXPECT_EQ(budget->in_use(), 0u);
  {
    const PageRef page = store.allocate();
    EXPECT_EQ(budget->in_use(), kLarge.bytes());
    EXPECT_EQ(store.keys(page.get())[0], std::byte{0});
  }
  release_all(store, first, 3);
  EXPECT_EQ(budget->in_use(), 0u);
}

TEST(MappedPages, ReuseThePageIdsOfReleasedMappings) {
  PageStore store(kLarge);  // two pages to a slab
  const AlignedBuffer<std::byte> buffer(8 * kLarge.bytes());
  std::mt19937 random(test::seed(1));
  PageId largest = 0;
  for (int round = 0; round < 500; ++round) {
    struct Extent {
      PageId first;
      size_t count;
    };
    std::vector<Extent> extents;
    const size_t counts[] = {5, 1, 8, 1 + random() % 8, 1 + random() % 8};
    for (const size_t count : counts) extents.push_back({store.map(buffer.span(), count, nullptr), count});
    for (const Extent& one : extents) {
      largest = std::max(largest, one.first);
      for (const Extent& other : extents) {
        ASSERT_TRUE(&one == &other || one.first + one.count <= other.first ||
                    other.first + other.count <= one.first)
            << "they overlap";
      }
    }
    std::ranges::shuffle(extents, random);
    for (const Extent& one : extents) release_all(store, one.first, one.count);
  }
  EXPECT_LT(largest, 5u * 8) << "adjacent free extents are joined";
}

TEST(MappedPages, AReusedPageIdHasANewVersion) {
  PageStore store(kLarge);
  const AlignedBuffer<std::byte> buffer(kLarge.bytes());
  std::set<uint32_t> versions;
  PageId page = kNoPage;
  for (int i = 0; i < 5; ++i) {
    page = store.map(buffer.span(), 1, nullptr);
    EXPECT_EQ(page, 0u);
    EXPECT_NE(store.version(page), 0u);
    EXPECT_TRUE(versions.insert(store.version(page)).second) << "the contents may have changed";
    store.release(page);
  }
  const PageRef own = store.allocate();
  EXPECT_EQ(own.get() / 2, page / 2) << "the slab index is reused";
  EXPECT_TRUE(versions.insert(store.version(0)).second);
}

TEST(MappedPages, ReleasingAllocatesNothing) {
  PageStore store(kLarge);
  std::vector<MappedBuffer> mapped;
  std::vector<PageId> firsts;
  for (int i = 0; i < 9; ++i) {
    mapped.emplace_back(kLarge.bytes(), std::byte{1});
    firsts.push_back(mapped.back().map(store, 1));
  }
  {
    const test::AllocationLimit limit(0);
    for (const PageId first : firsts) store.release(first);
  }
  for (const MappedBuffer& one : mapped) EXPECT_TRUE(one.destroyed());
}

TEST(MappedPages, MappingWithoutMemoryChangesNothing) {
  const PageShape shape{PageFormat::kBF16, 16, 24};
  PageStore store(shape);
  AlignedBuffer<std::byte> bytes(3000 * shape.bytes());
  test::with_each_failing_allocation(
      [&] {
        const PageId first = store.map(std::as_const(bytes).span(), 3000, nullptr);
        EXPECT_EQ(first, 0u) << "no page id was lost";
        release_all(store, first, 3000);
      },
      [&] { EXPECT_EQ(store.bytes_in_use(), 0u); });
}

std::string error_of(PageStore& store, std::span<const std::byte> pages, size_t count) {
  try {
    store.map(pages, count, nullptr);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(MappedPages, RejectWrongSizesAndAlignment) {
  const PageShape shape{PageFormat::kBF16, 16, 24};  // 5,120 bytes
  PageStore store(shape);
  AlignedBuffer<std::byte> buffer(4 * shape.bytes());
  const std::span<const std::byte> bytes = std::as_const(buffer).span();
  EXPECT_EQ(error_of(store, bytes, 5), "mapped pages: expected 5 pages of 5120 bytes, found 20480 bytes");
  EXPECT_EQ(error_of(store, bytes.first(4 * shape.bytes() - 1), 4),
            "mapped pages: expected 4 pages of 5120 bytes, found 20479 bytes");
  EXPECT_EQ(error_of(store, bytes, 0), "mapped pages: expected 0 pages of 5120 bytes, found 20480 bytes");
  EXPECT_EQ(error_of(store, {}, 1), "mapped pages: expected 1 pages of 5120 bytes, found 0 bytes");
  EXPECT_NE(error_of(store, bytes, std::numeric_limits<size_t>::max()), "");
  for (const size_t offset : {1, 4, 32, 63})
    EXPECT_EQ(error_of(store, bytes.subspan(offset), 3), "mapped pages must be aligned to 64 bytes") << offset;
  EXPECT_EQ(error_of(store, bytes.subspan(64), 3), "");
}

TEST(MappedPages, MorePagesThanPageIdsAreAnError) {
  const PageShape shape{PageFormat::kF32, 16384, 16384};  // 8 MiB: one page per slab, 65,536 slabs
  PageStore store(shape);
  const size_t most = store.max_pages(), bytes = (most + 1) * shape.bytes();
  void* reserved = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) GTEST_SKIP() << "cannot reserve 512 GiB of address space";
  const std::span pages(static_cast<const std::byte*>(reserved), bytes);  // never read
  EXPECT_NE(error_of(store, pages, most + 1), "");
  const PageId first = store.map(pages, most, nullptr);
  EXPECT_NE(error_of(store, pages, 1), "");
  EXPECT_THROW(store.allocate(), Error);
  release_all(store, first, most);
  { const PageRef page = store.allocate(); }
  EXPECT_EQ(error_of(store, pages, 1), "");
  munmap(reserved, bytes);
}

TEST(MappedPages, OwnersOnManyThreadsReleaseTheMappingOnce) {
  const PageShape shape{PageFormat::kBF16, 16, 24};
  PageStore store(shape);
  for (int round = 0; round < 20; ++round) {
    MappedBuffer mapped(64 * shape.bytes(), std::byte{3});
    const PageId first = mapped.map(store, 64);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      for (PageId page = first; page < first + 64; ++page) store.retain(page);
      threads.emplace_back([&, t] {
        std::mt19937 random(test::seed(t));
        for (int n = 0; n < 200; ++n) {
          const PageId page = first + static_cast<PageId>(random() % 64);
          store.retain(page);
          store.release(page);
        }
        release_all(store, first, 64);
      });
    }
    release_all(store, first, 64);
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(mapped.destroyed());
  }
}

/// Returns a copy of the first `entries` full pages of each head of a sequence of one layer, ordered by head.
MappedBuffer copy_pages(const Sequence& sequence, size_t entries) {
  const PagedKv& kv = sequence.kv(0);
  const size_t bytes = kv.shape().bytes();
  MappedBuffer mapped(kv.heads() * entries * bytes, std::byte{0});
  for (int head = 0; head < kv.heads(); ++head)
    for (size_t e = 0; e < entries; ++e)
      std::memcpy(mapped.buffer->data() + (head * entries + e) * bytes, kv.store().keys(kv.table(head)[e].page),
                  bytes);
  return mapped;
}

/// Expects tokens with these ids in a layer with two heads.
void expect_ids(const PagedKv& kv, const std::vector<int64_t>& ids) {
  ASSERT_EQ(kv.tokens(), std::ssize(ids));
  for (int head = 0; head < 2; ++head) {
    int64_t index = 0;
    for (const PageEntry& entry : kv.table(head)) {
      ASSERT_EQ(entry.first, index);
      ASSERT_EQ(entry.position, index);
      ASSERT_EQ(entry.mask, page_bits(0, entry.filled));
      for (int o = 0; o < entry.filled; ++o, ++index)
        ASSERT_NO_FATAL_FAILURE(test::expect_token(kv.store(), entry.page, o, ids[index], head));
    }
    ASSERT_EQ(index, kv.tokens());
  }
}

PagedKv empty_layer(const std::shared_ptr<PageStore>& store) {
  PagedKvConfig config;
  config.store = store;
  config.heads = 2;
  config.rotations = test::small_rotations();
  return PagedKv(config);
}

/// Appends tokens with these ids at the next positions.
void read(PagedKv& kv, const std::vector<int64_t>& ids) {
  const std::vector<int64_t> positions = test::following(kv.next_position(), std::ssize(ids));
  OpenedTokens opened;
  opened.positions = positions;
  kv.open(opened);
  std::vector<float> keys(ids.size() * test::kKeyDim), values(ids.size() * test::kValueDim);
  for (int head = 0; head < 2; ++head) {
    for (size_t i = 0; i < ids.size(); ++i) {
      for (int d = 0; d < test::kKeyDim; ++d) keys[i * test::kKeyDim + d] = test::element(ids[i], head, 0, d);
      for (int d = 0; d < test::kValueDim; ++d) values[i * test::kValueDim + d] = test::element(ids[i], head, 1, d);
    }
    kv.write(kernels(), head, std::ssize(ids), keys.data(), test::kKeyDim, values.data(), test::kValueDim);
  }
  kv.commit();
}

class AdoptedPages : public testing::TestWithParam<PageFormat> {
 protected:
  static constexpr size_t kEntries = 3;
  AdoptedPages() {
    Sequence written = test::small_sequence(test::small_store(GetParam()), 1, 2);
    test::read_following(written, kEntries * kPageTokens);
    mapped_ = std::make_unique<MappedBuffer>(copy_pages(written, kEntries));
    data_ = mapped_->bytes().data();
    before_.assign(data_, data_ + mapped_->bytes().size());
    first_ = mapped_->map(*store_, 2 * kEntries);
  }
  /// Adopts the mapped pages with index `entry` of both heads.
  void adopt(PagedKv& kv, size_t entry) const {
    const PageId pages[] = {first_ + static_cast<PageId>(entry), first_ + static_cast<PageId>(kEntries + entry)};
    kv.adopt(pages);
  }
  PagedKv adopted() {
    PagedKv kv = empty_layer(store_);
    for (size_t e = 0; e < kEntries; ++e) adopt(kv, e);
    return kv;
  }
  void release_own() { release_all(*store_, first_, 2 * kEntries); }
  void expect_mapping_unchanged() const { EXPECT_TRUE(std::equal(before_.begin(), before_.end(), data_)); }

  std::shared_ptr<PageStore> store_ = test::small_store(GetParam());
  std::unique_ptr<MappedBuffer> mapped_;
  const std::byte* data_ = nullptr;
  std::vector<std::byte> before_;
  PageId first_ = kNoPage;
};

TEST_P(AdoptedPages, HoldTheTokensOfTheSequenceThatWroteThem) {
  {
    const PagedKv kv = adopted();
    release_own();  // the tables are the only owners now
    EXPECT_EQ(kv.next_position(), 192);
    EXPECT_EQ(kv.end_position(), 192);
    EXPECT_EQ(store_->bytes_in_use(), 0u);
    expect_ids(kv, test::following(0, 192));
    EXPECT_FALSE(mapped_->destroyed());
  }
  EXPECT_TRUE(mapped_->destroyed());
}

TEST_P(AdoptedPages, CanBeFollowedByOwnPages) {
  PagedKv kv = adopted();
  release_own();
  read(kv, test::following(192, 70));
  EXPECT_EQ(store_->bytes_in_use(), 2 * 2 * store_->shape().bytes());
  expect_ids(kv, test::following(0, 262));
  expect_mapping_unchanged();
}

TEST_P(AdoptedPages, AreCopiedBeforeAWrite) {
  for (const int64_t kept : {1, 63, 64, 100, 150, 191}) {
    SCOPED_TRACE(kept);
    PagedKv kv = adopted();
    kv.truncate(kept);
    EXPECT_EQ(store_->bytes_in_use(), 0u) << "nothing was written";
    read(kv, test::following(5000, 30));
    std::vector<int64_t> ids = test::following(0, kept);
    for (int64_t i = 0; i < 30; ++i) ids.push_back(5000 + i);
    expect_ids(kv, ids);
    const size_t last = (kept - 1) / kPageTokens;
    for (int head = 0; head < 2; ++head) {
      for (size_t e = 0; e < kv.table(head).size(); ++e) {
        const PageId page = kv.table(head)[e].page;
        const bool of_mapping = page >= first_ && page < first_ + 2 * kEntries;
        EXPECT_EQ(of_mapping, e < last || (e == last && kept % kPageTokens == 0)) << e;
        EXPECT_EQ(store_->shared(page), of_mapping);
      }
    }
    expect_mapping_unchanged();
  }
  release_own();
}

TEST_P(AdoptedPages, AreSharedBetweenSequencesAndForks) {
  PagedKv one = adopted(), other = adopted();
  const std::unique_ptr<LayerState> forked = one.fork();
  release_own();
  one.truncate(100);
  read(one, test::following(5000, 10));
  other.truncate(64);
  read(other, test::following(7000, 10));
  std::vector<int64_t> ids = test::following(0, 100);
  for (int64_t i = 0; i < 10; ++i) ids.push_back(5000 + i);
  expect_ids(one, ids);
  ids = test::following(0, 64);
  for (int64_t i = 0; i < 10; ++i) ids.push_back(7000 + i);
  expect_ids(other, ids);
  expect_ids(*forked->paged(), test::following(0, 192));
  expect_mapping_unchanged();
}

TEST_P(AdoptedPages, AreReleasedWhenTheirTokensAreRemoved) {
  PagedKv kv = adopted();
  release_own();
  std::vector<char> keep(192, 1);
  std::fill_n(keep.begin() + 64, 64, 0);
  for (int head = 0; head < 2; ++head) kv.evict(head, keep);
  EXPECT_EQ(kv.table(0)[1].page, kNoPage);
  kv.truncate(128);
  EXPECT_FALSE(mapped_->destroyed());
  kv.truncate(0);
  EXPECT_TRUE(mapped_->destroyed());
}

TEST_P(AdoptedPages, HoldTheSameTokensAtOtherPositions) {
  PagedKv kv = empty_layer(store_);
  read(kv, test::following(9000, 64));
  adopt(kv, 1);
  ASSERT_EQ(kv.tokens(), 128);
  EXPECT_EQ(kv.table(1)[1].first, 64);
  EXPECT_EQ(kv.table(1)[1].position, 64);
  kv.move_to(640);
  adopt(kv, 2);
  EXPECT_EQ(kv.table(0)[2].position, 640 + 128);
  EXPECT_EQ(kv.next_position(), 640 + 192);
  for (int o = 0; o < kPageTokens; ++o)
    ASSERT_NO_FATAL_FAILURE(test::expect_token(*store_, kv.table(1)[2].page, o, 128 + o, 1));
  release_own();
}

TEST_P(AdoptedPages, OfANewMappingWithReusedIdsGetNewMetadata) {
  PageMetadata metadata(std::make_shared<MetadataPool>(sizeof(float)));
  const auto update = [&](const PagedKv& kv) {
    int made = 0;
    metadata.update(kv, 1, [&](const PageEntry& entry, std::byte* record) {
      const float last = page_value(GetParam(), test::kValueDim, kv.store().values(entry.page), 63, 0);
      std::memcpy(record, &last, sizeof(last));
      ++made;
    });
    return made;
  };
  PagedKv kv = adopted();
  EXPECT_EQ(update(kv), 3);
  EXPECT_EQ(update(kv), 0);
  release_own();
  kv.truncate(0);
  ASSERT_TRUE(mapped_->destroyed());
  Sequence other = test::small_sequence(test::small_store(GetParam()), 1, 2);
  test::read_following(other, kEntries * kPageTokens, 4000);
  MappedBuffer mapped = copy_pages(other, kEntries);
  ASSERT_EQ(mapped.map(*store_, 2 * kEntries), first_);
  for (size_t e = 0; e < kEntries; ++e) adopt(kv, e);
  EXPECT_EQ(update(kv), 3);
  for (size_t e = 0; e < kEntries; ++e) {
    float last = 0;
    std::memcpy(&last, metadata[e], sizeof(last));
    EXPECT_NEAR(last, test::element(4000 + 64 * static_cast<int64_t>(e) + 63, 1, 1, 0), test::rounding(GetParam()));
  }
  release_own();
}

TEST_P(AdoptedPages, PastTheLastPositionAreRejected) {
  PagedKv kv = empty_layer(store_);
  read(kv, test::following(0, 64));
  kv.move_to(kPositionLimit - 64 - 63);
  EXPECT_THROW(adopt(kv, 0), Error);
  EXPECT_EQ(kv.tokens(), 64);
  EXPECT_EQ(kv.table(0).size(), 1u);
  kv.move_to(kPositionLimit - 64 - 64);
  adopt(kv, 0);
  EXPECT_EQ(kv.end_position(), kPositionLimit);
  release_own();
}

constexpr const char* kMappedFormatNames[] = {"f32", "bf16", "q8", "q4"};
INSTANTIATE_TEST_SUITE_P(Formats, AdoptedPages,
                         testing::Values(PageFormat::kF32, PageFormat::kBF16, PageFormat::kQ8, PageFormat::kQ4),
                         [](const auto& format) { return std::string(kMappedFormatNames[format.index]); });

}  // namespace
}  // namespace fathom
