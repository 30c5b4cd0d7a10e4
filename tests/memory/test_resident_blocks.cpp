#include "memory/resident_blocks.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>

#include "base/file_map.h"
#include "seed.h"

namespace fathom {
namespace {

/// Returns how many bytes of a range the process has mapped (the field Rss in /proc/self/smaps).
size_t mapped_bytes(std::span<const std::byte> range) {
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  for (size_t total = 0; std::getline(maps, line);) {
    uintptr_t begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) == 2)
      inside = begin == reinterpret_cast<uintptr_t>(range.data());
    size_t kib = 0;
    if (inside && std::sscanf(line.c_str(), "Rss: %zu kB", &kib) == 1) return total + kib * 1024;
  }
  return 0;
}

class ResidentBlocksTest : public testing::Test {
 protected:
  static constexpr size_t kBlocks = 256;
  void SetUp() override {
    std::string name = testing::TempDir() + "fathom_blocks_XXXXXX";
    const int file = ::mkstemp(name.data());
    ASSERT_GE(file, 0);
    ::close(file);
    std::ofstream out(name, std::ios::binary);
    for (size_t i = 0; i < kBlocks; ++i) out << std::string(ResidentBlocks::kBlock, static_cast<char>(i));
    out.close();
    map_ = std::make_unique<FileMap>(name);
    ::unlink(name.c_str());
  }
  /// Reads a byte of a block and returns whether it is right.
  bool read(size_t block) {
    return map_->bytes()[block * ResidentBlocks::kBlock + 77] == static_cast<std::byte>(static_cast<char>(block));
  }
  std::unique_ptr<FileMap> map_;
};

TEST_F(ResidentBlocksTest, KeepsTheLimitAndAllBytes) {
  constexpr size_t kLimit = 32 * ResidentBlocks::kBlock;
  ResidentBlocks blocks(map_->bytes(), [] { return kLimit; });
  std::mt19937 random(test::seed(0));
  int misses = 0;
  for (int i = 0; i < 5000; ++i) {
    const size_t block = random() % kBlocks;
    misses += !blocks.touch(map_->bytes().data() + block * ResidentBlocks::kBlock, 100);
    ASSERT_TRUE(read(block));
    ASSERT_LE(blocks.resident(), kLimit);
  }
  EXPECT_LE(mapped_bytes(map_->bytes()), 2 * kLimit);
  EXPECT_GT(misses, 2000);
}

TEST_F(ResidentBlocksTest, KeepsWhatIsUsedOften) {
  ResidentBlocks blocks(map_->bytes(), [] { return 64 * ResidentBlocks::kBlock; });
  const auto touch = [&](size_t block) {
    return blocks.touch(map_->bytes().data() + block * ResidentBlocks::kBlock, ResidentBlocks::kBlock);
  };
  int misses_of_often = 0;
  for (int round = 0; round < 200; ++round) {
    for (size_t often = 0; often < 16; ++often) misses_of_often += !touch(often) && round > 0;
    for (size_t i = 0; i < 8; ++i) touch(16 + (round * 8 + i) % (kBlocks - 16));
  }
  EXPECT_LT(misses_of_often, 200 * 16 / 20);
}

TEST_F(ResidentBlocksTest, LoadsBlocksBeforeTheyAreUsed) {
  ResidentBlocks blocks(map_->bytes(), [] { return 64 * ResidentBlocks::kBlock; });
  const std::byte* data = map_->bytes().data() + 10 * ResidentBlocks::kBlock;
  EXPECT_TRUE(blocks.load(data, 4 * ResidentBlocks::kBlock));
  EXPECT_FALSE(blocks.load(data, 4 * ResidentBlocks::kBlock)) << "they are resident";
  EXPECT_EQ(blocks.resident(), 4 * ResidentBlocks::kBlock);
  EXPECT_GE(mapped_bytes(map_->bytes()), blocks.resident());
  EXPECT_TRUE(blocks.touch(data, 4 * ResidentBlocks::kBlock));
  EXPECT_FALSE(blocks.touch(data, 5 * ResidentBlocks::kBlock));
  EXPECT_FALSE(blocks.all_resident());
}

TEST_F(ResidentBlocksTest, ServesSeveralThreads) {
  ResidentBlocks blocks(map_->bytes(), [] { return 16 * ResidentBlocks::kBlock; });
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(test::seed(1) + t);
      for (int i = 0; i < 3000; ++i) {
        const size_t block = random() % kBlocks;
        blocks.touch(map_->bytes().data() + block * ResidentBlocks::kBlock, 100);
        wrong += !read(block);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(blocks.resident(), 24 * ResidentBlocks::kBlock);
}

}  // namespace
}  // namespace fathom
