// The disk cache: prefixes that another engine has read are restored with the bits of a cold run.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "base/error.h"
#include "seed.h"
#include "seedling.h"
#include "shared_data.h"
#include "temporary_folder.h"
#include "tiny_goldens.h"

namespace fathom {
namespace {

constexpr int64_t kNoQuota = int64_t{1} << 40;

class DiskCacheTest : public testing::Test {
 protected:
  SessionOptions options(int64_t quota = kNoQuota) const {
    SessionOptions options{.chunk = 64};
    options.disk_cache = std::make_shared<DiskCache>(folder_, quota);
    return options;
  }
  const test::TemporaryFolder temporary_;
  const std::string& folder_ = temporary_.path();
};

struct ReadResult {
  std::vector<float> logits;
  int64_t restored;
};
ReadResult read_all(const std::shared_ptr<const Model>& model, const SessionOptions& options,
                    const std::vector<int32_t>& ids) {
  Session session(model, test::runtime(), options);
  session.append(ids);
  const int64_t restored = session.restored();
  for (const int32_t id : {3, 5, 7}) session.append({&id, 1});
  session.rewind(2);
  session.append(std::vector<int32_t>{9});
  return {test::logits_of(session), restored};
}

TEST_F(DiskCacheTest, RestoresEveryArchitectureWithTheBitsOfAColdRun) {
  std::mt19937 random(test::seed(0));
  for (const char* name : test::tiny_goldens()) {
    const std::string path = test::golden(name) + ".gguf";
    FATHOM_NEEDS(path);
    const auto model = Model::open(path);
    for (const std::string cache : {"f32", "bf16", "q8", "q4"}) {
      SCOPED_TRACE(testing::Message() << name << ", " << cache);
      std::vector<int32_t> ids(300);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % 200);
      SessionOptions with = options(), without{.chunk = 64};
      with.cache = without.cache = cache;
      const ReadResult cold = read_all(model, without, ids), first = read_all(model, with, ids);
      EXPECT_EQ(first.restored, 0);
      EXPECT_EQ(first.logits, cold.logits);
      const ReadResult again = read_all(model, with, ids);
      EXPECT_EQ(again.restored, 256);
      EXPECT_EQ(again.logits, cold.logits);
      std::vector<int32_t> other = ids;  // the same first 150 tokens
      other[150] = (other[150] + 1) % 200;
      const ReadResult shared = read_all(model, with, other);
      EXPECT_EQ(shared.restored, 128);
      EXPECT_EQ(shared.logits, read_all(model, without, other).logits);
    }
  }
}

TEST_F(DiskCacheTest, SeparatesMethods) {
  const std::vector<int32_t> ids = test::tokens(200);
  read_all(test::seedling(), options(), ids);
  for (const auto& change : std::vector<std::function<void(SessionOptions&)>>{
           [](SessionOptions& o) { o.cache = "q8"; }, [](SessionOptions& o) { o.position = "linear:factor=2"; },
           [](SessionOptions& o) { o.layers = 1; }, [](SessionOptions& o) { o.chunk = 128; },
           [](SessionOptions& o) { o.attend = "quest:budget=64"; }}) {
    SessionOptions other = options();
    change(other);
    EXPECT_EQ(read_all(test::seedling(), other, ids).restored, 0);
    EXPECT_GT(read_all(test::seedling(), other, ids).restored, 0);
  }
  SessionOptions stateful = options();
  stateful.attend = "infllm:window=64,block=32,sink=16";
  read_all(test::seedling(), stateful, ids);
  EXPECT_EQ(read_all(test::seedling(), stateful, ids).restored, 0) << "its state cannot be derived from pages";
  SessionOptions chunk = options();
  chunk.chunk = 100;
  EXPECT_THROW(Session(test::seedling(), test::runtime(), chunk), Error);
}

TEST_F(DiskCacheTest, DeletesTheLeastRecentlyUsedBlocks) {
  const std::vector<int32_t> a = test::tokens(300, 1), b = test::tokens(300, 2), c = test::tokens(300, 3);
  read_all(test::seedling(), options(), a);
  read_all(test::seedling(), options(), b);
  read_all(test::seedling(), options(), a);
  int64_t bytes = 0;
  for (const DiskCache::Block& block : DiskCache::list(folder_)) bytes += block.bytes;
  read_all(test::seedling(), options(bytes), c);  // the blocks of b make room
  int64_t after = 0;
  for (const DiskCache::Block& block : DiskCache::list(folder_)) after += block.bytes;
  EXPECT_LE(after, bytes);
  EXPECT_EQ(read_all(test::seedling(), options(bytes), a).restored, 256);
  EXPECT_EQ(read_all(test::seedling(), options(bytes), c).restored, 256);
  const std::vector<DiskCache::Block> deleted = DiskCache::prune(folder_, 0);
  EXPECT_EQ(deleted.size(), 8U);
  EXPECT_TRUE(DiskCache::list(folder_).empty());
}

TEST_F(DiskCacheTest, DamagedBlocksAreReadAgain) {
  const std::vector<int32_t> ids = test::tokens(200);
  const ReadResult cold = read_all(test::seedling(), options(), ids);
  std::mt19937 random(test::seed(1));
  for (int round = 0; round < 20; ++round) {
    const std::vector<DiskCache::Block> blocks = DiskCache::list(folder_);
    ASSERT_EQ(blocks.size(), 3U);
    const std::string path = blocks[random() % 3].path;
    if (round % 2 == 0) {
      std::filesystem::resize_file(path, random() % std::filesystem::file_size(path));
    } else {
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(static_cast<std::streamoff>(random() % std::filesystem::file_size(path)));
      const int byte = file.peek();
      file.put(static_cast<char>(byte ^ 4));
    }
    const ReadResult again = read_all(test::seedling(), options(), ids);
    EXPECT_EQ(again.logits, cold.logits);
    EXPECT_EQ(read_all(test::seedling(), options(), ids).restored, 192);
  }
}

TEST_F(DiskCacheTest, WorksWithoutWriting) {
  const std::vector<int32_t> ids = test::tokens(200), other = test::tokens(200, 2);
  const ReadResult cold = read_all(test::seedling(), options(), ids);
  SessionOptions broken = options();
  broken.disk_cache = std::make_shared<DiskCache>("/proc/no/such/folder", kNoQuota);
  testing::internal::CaptureStderr();
  EXPECT_EQ(read_all(test::seedling(), broken, ids).logits, cold.logits);
  const std::string notes = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::ranges::count(notes, '\n'), 1) << notes;
  EXPECT_NE(notes.find("the disk cache is not written"), std::string::npos) << notes;
}

TEST_F(DiskCacheTest, SeveralThreadsShareAFolder) {
  std::vector<std::thread> threads;
  std::vector<std::vector<float>> logits(3);
  const std::vector<int32_t> ids = test::tokens(200);
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 4; ++round) {
        SessionOptions own = options(round == 2 ? 100'000 : kNoQuota);
        Session session(test::seedling(), std::make_shared<Runtime>(1), own);
        session.append(ids);
        logits[i] = test::logits_of(session);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& one : logits) EXPECT_EQ(one, logits[0]);
}

}  // namespace
}  // namespace fathom
