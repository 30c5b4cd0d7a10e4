#include "train/checkpoint.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <bit>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "base/error.h"
#include "seed.h"
#include "train/train_config.h"

namespace fathom::train {
namespace {

/// The arrays of a TrainState.
struct Arrays {
  explicit Arrays(size_t count, unsigned seed = 0) : values(count), first(count), second(count) {
    std::mt19937 random(test::seed(seed));
    for (auto* array : {&values, &first, &second}) {
      for (float& x : *array) x = std::bit_cast<float>(static_cast<uint32_t>(random()));
    }
  }
  TrainState state(int64_t step = 0) { return {step, values, first, second}; }
  bool same_bits(const Arrays& other) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    return same(values, other.values) && same(first, other.first) && same(second, other.second);
  }
  std::vector<float> values, first, second;
};

class Checkpoint : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "fathom_checkpoint_XXXXXX";
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    path_ = folder_ + "/run.ckpt";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string content() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void overwrite(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }

  /// Reads the file into `into`. Returns the error; empty: success.
  std::string read_error(Arrays& into, const Json& config) const {
    TrainState state = into.state();
    try {
      read_checkpoint(path_, config, state);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  std::string folder_, path_;
  const Json config_ = to_json(TrainConfig{});
};

TEST_F(Checkpoint, RestoresEveryBit) {
  for (const size_t count : {1, 2, 1001}) {
    Arrays saved(count, 1), read(count, 2);
    write_checkpoint(path_, config_, saved.state(123456789012));
    TrainState state = read.state();
    read_checkpoint(path_, config_, state);
    EXPECT_TRUE(read.same_bits(saved)) << count;
    EXPECT_EQ(state.step, 123456789012);
  }
}

TEST_F(Checkpoint, TruncatedAndDamagedFilesAreRejectedAndChangeNothing) {
  Arrays saved(40, 1), into(40, 2);
  const Arrays before = into;
  write_checkpoint(path_, config_, saved.state(5));
  const std::string good = content();
  std::mt19937 random(test::seed(3));
  for (int i = 0; i < 300; ++i) {
    std::string bad = good;
    if (i % 2 == 0) {
      bad.resize(random() % good.size());
    } else {
      bad[random() % good.size()] ^= static_cast<char>(1 << random() % 8);
    }
    overwrite(bad);
    EXPECT_NE(read_error(into, config_).find(path_), std::string::npos) << i;
    EXPECT_TRUE(into.same_bits(before));
  }
  overwrite(good + "12345678");
  EXPECT_NE(read_error(into, config_), "");
  overwrite(good);
  EXPECT_EQ(read_error(into, config_), "");
}

TEST_F(Checkpoint, AnotherConfigIsRejectedWithTheDifferingFields) {
  Arrays saved(10, 1), into(10, 2);
  const Arrays before = into;
  write_checkpoint(path_, config_, saved.state(5));
  TrainConfig other;
  other.optimizer.beta1 = 0.5;
  other.model.layers = 3;
  const std::string error = read_error(into, to_json(other));
  EXPECT_NE(error.find("optimizer.beta1: 0.9, now 0.5"), std::string::npos) << error;
  EXPECT_NE(error.find("model.layers: 8, now 3"), std::string::npos) << error;
  EXPECT_TRUE(into.same_bits(before));
  Arrays larger(11);
  EXPECT_NE(read_error(larger, config_).find("10 values, the model has 11"), std::string::npos);
}

TEST_F(Checkpoint, AFullDiskPreservesTheOldCheckpoint) {
  Arrays old(1000, 1), fresh(1000, 2), read(1000, 3);
  write_checkpoint(path_, config_, old.state(1));
  rlimit unlimited{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  const rlimit full{content().size() - 100, unlimited.rlim_max};
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
  std::string error;
  try {
    write_checkpoint(path_, config_, fresh.state(2));
  } catch (const Error& failed) {
    error = failed.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &unlimited);
  ::signal(SIGXFSZ, handler);
  EXPECT_NE(error.find(path_), std::string::npos) << error;
  EXPECT_EQ(read_error(read, config_), "");
  EXPECT_TRUE(read.same_bits(old));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(Checkpoint, OtherFilesAreRejected) {
  Arrays into(4);
  EXPECT_NE(read_error(into, config_), "");
  overwrite("");
  EXPECT_NE(read_error(into, config_), "");
  overwrite("GGUF and then some more bytes than the prelude has");
  EXPECT_NE(read_error(into, config_).find("not a checkpoint"), std::string::npos);
}

}  // namespace
}  // namespace fathom::train
