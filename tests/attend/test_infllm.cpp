#include <gtest/gtest.h>

#include <set>

#include "block_scene.h"

namespace fathom {
namespace {

using test::Attended;
using test::BlockScene;
using test::PlainAttention;
using test::Scene;
using test::SceneShape;

SceneShape block_shape(uint32_t seed, int64_t rows) {
  SceneShape s;
  s.tokens = 1500;
  s.rows = rows;
  s.gaps = seed % 2 ? 0.01 : 0;
  s.masked = seed % 3 ? 0 : 0.1;
  s.position = seed % 4 ? 0 : 777;
  s.seed = seed;
  return s;
}

Attended dense(const Scene& scene) {
  ThreadPool pool(1);
  return test::attend(scene, *attend_methods().make("dense"), pool);
}

TEST(Blocks, AllBlocksAtOriginalPositionsGiveTheBitsOfDense) {
  for (const char* spec :
       {"infllm:window=100k", "infllm:window=64,topk=100k,positions=original,chunk=100",
        "infllm:sink=0,window=200,block=40,topk=34,positions=original", "em-llm:window=100k",
        "em-llm:window=300,budget=100k,positions=original",
        "em-llm:window=300,budget=100k,positions=original,contiguity=0.5,sink=3,refine=modularity",
        "actqkv:window=100k", "actqkv:window=64,topk=100k,positions=original"}) {
    for (uint32_t seed = 0; seed < 12; ++seed) {
      for (const int64_t rows : {1, 170}) {
        BlockScene test(block_shape(seed, rows), spec);
        const std::vector<float> expected = dense(test.scene).out;
        EXPECT_EQ(test.attended().out, expected)
            << spec << " seed " << seed << ", no tokens read with the method before";
        test.restart(spec);
        test.read_before(512);
        EXPECT_EQ(test.attended().out, expected) << spec << " seed " << seed;
      }
    }
  }
}

TEST(Blocks, AllBlocksEqualDenseWithoutRotation) {
  for (const char* spec :
       {"infllm:window=100,topk=100k", "em-llm:window=300,budget=100k", "actqkv:window=64,topk=1k"}) {
    SceneShape s = block_shape(3, 150);
    s.rotary_dim = 0;
    BlockScene test(s, spec);
    test.read_before(300);
    test::expect_equal(test.attended(), PlainAttention(test.scene, test::dense_visibility()).result());
  }
}

/// Returns the position at which a single row attends to a token.
int64_t expected_position(const Scene& scene, int64_t token, int64_t window) {
  const int64_t row = scene.shape.tokens - 1;
  if (token > row - window) return scene.positions[token];
  const PageTable& table = scene.sequence.kv(0).table(0);
  const PageEntry& entry = std::ranges::upper_bound(table, token, {}, &PageEntry::first)[-1];
  const int64_t far = scene.positions[row] - window + 1;
  return std::max(far, entry.position) + token - entry.first;
}

TEST(Blocks, AllBlocksEqualAttentionWithClampedDistances) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    BlockScene test(block_shape(seed, 1), "infllm:window=200,topk=100k");
    test.read_before(512);
    const auto position = [&](int64_t token) { return expected_position(test.scene, token, 200); };
    test::expect_equal(test.attended(), PlainAttention(test.scene, test::dense_visibility(), position).result());
    EXPECT_NE(test.attended().out, dense(test.scene).out);
  }
}

TEST(Blocks, RowsAttendOnceToSinkWindowUnblockedTokensAndTopkBlocks) {
  constexpr int64_t kSink = 100, kWindow = 300, kBlock = 48, kTopk = 3, kChunk = 70;
  for (uint32_t seed = 0; seed < 12; ++seed) {
    BlockScene test(block_shape(seed, 1 + seed * 15),
                    "infllm:sink=100,window=300,block=48,topk=3,chunk=70,representatives=2");
    test.read_before(256);
    const SceneShape& s = test.scene.shape;
    const int head = seed % 2;
    const std::vector<int64_t> positions = test::attended_positions(test, head);
    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t row = test.scene.first_row() + r, chunk = test.scene.first_row() + r / kChunk * kChunk;
      const int64_t unblocked = kSink + (chunk - kWindow - kSink) / kBlock * kBlock;
      const int64_t last = std::min(chunk + kChunk, s.tokens) - 1;
      std::set<int64_t> blocks;
      for (int64_t t = 0; t <= row; ++t) {
        const int64_t position = positions[r * s.tokens + t];
        if (test.scene.is_masked(t, head)) {
          EXPECT_EQ(position, -1);
          continue;
        }
        if (t < kSink || t >= unblocked) {
          ASSERT_GE(position, 0) << "row " << r << " token " << t;
        }
        if (position < 0) continue;
        if (t >= kSink && t < unblocked) blocks.insert((t - kSink) / kBlock);
        if (t > row - kWindow) {
          EXPECT_EQ(position, test.scene.positions[t]);
        } else {
          const int64_t distance = test.scene.positions[row] - position;
          EXPECT_GE(position, test.scene.positions[t]) << "farther away than the original position";
          EXPECT_GE(distance, 0);
          EXPECT_TRUE(position == test.scene.positions[t] ||
                      test.scene.positions[last] - position <= std::max(kWindow - 1, last - row + 63));
        }
      }
      EXPECT_EQ(blocks.size(), kTopk) << "row " << r;
    }
  }
}

TEST(Blocks, ResultsDoNotDependOnTheLengthOfPasses) {
  for (const char* spec :
       {"infllm:window=200,topk=3", "infllm:window=200,topk=3,block=50,sink=10",
        "em-llm:window=300,budget=300,gamma=0.5", "em-llm:window=300,budget=300,gamma=0.5,refine=modularity"}) {
    for (uint32_t seed = 0; seed < 4; ++seed) {
      BlockScene test(block_shape(seed, 1), spec);
      test.read_before(512);
      const std::vector<float> expected = test.attended().out;
      for (const int64_t at_once : {1, 37, 64, 300}) {
        test.restart(spec);
        test.read_before(at_once);
        EXPECT_EQ(test.attended().out, expected) << spec << " seed " << seed << " in passes of " << at_once;
      }
    }
  }
}

TEST(Blocks, ForksAndRewoundSequencesEqualOneReadWithoutThem) {
  for (const char* spec : {"infllm:window=200,topk=3", "em-llm:window=300,budget=300,gamma=0.5"}) {
    BlockScene straight(block_shape(5, 1), spec);
    straight.read_before(64);
    const std::vector<float> expected = straight.attended().out;

    BlockScene test(block_shape(5, 1), spec);
    for (int64_t t = 0; t < 1280; t += 64) test.read(t, t + 64);
    const auto fork = test.state().fork();
    std::ranges::reverse(test.queries);  // another text
    for (int64_t t = 1280; t < 1408; t += 64) test.read(t, t + 64);
    test.state().rewind(1216);
    std::ranges::reverse(test.queries);
    const auto finish = [&] {
      for (int64_t t = 1216; t < 1472; t += 64) test.read(t, t + 64);
      test.read(1472, 1499);
      return test.attended().out;
    };
    EXPECT_EQ(finish(), expected) << spec << " rewound";
    fork->rewind(1216);
    test.scene.sequence.set_state(Sequence::StateOf::kSelector, fork->fork());
    EXPECT_EQ(finish(), expected) << spec << " forked";
  }
}

/// Keys are small except for a few tokens of one block. These match one query, which all heads have in the window
/// after the block and in the last row.
struct PlantedBlock {
  static constexpr int64_t kBlock = 5, kFirst = 128 + kBlock * 128, kWindow = 256;
  explicit PlantedBlock(uint32_t seed, const std::string& spec) : test(shape(seed), spec) {
    Scene& scene = test.scene;
    const SceneShape& s = scene.shape;
    for (float& k : scene.keys) k *= 0.1f;
    float* query = scene.queries.data();  // the first head's; only slow pairs, so that its position hardly matters
    std::fill_n(query, 20, 0.0f);
    for (int d = 20; d < s.key_dim; ++d) query[d] *= 2;
    for (int64_t t = kFirst + 20; t < kFirst + 24; ++t) {
      for (int h = 0; h < s.kv_heads; ++h) copy(query, scene.keys.data() + (t * s.kv_heads + h) * s.key_dim);
    }
    for (int64_t t = kFirst + 160; t < kFirst + 192; ++t) {
      for (int h = 0; h < s.heads; ++h) copy(query, test.queries.data() + t * test.width() + h * s.key_dim);
    }
    for (int h = 1; h < s.heads; ++h) copy(query, scene.queries.data() + h * s.key_dim);
    scene.read_again();
  }
  static SceneShape shape(uint32_t seed) {
    SceneShape s = block_shape(seed, 1);
    s.masked = 0;
    s.gaps = 0;
    s.tokens = 2600;
    s.key_dim = s.rotary_dim = 32;
    return s;
  }
  void copy(const float* from, float* to) const { std::copy_n(from, test.scene.shape.key_dim, to); }
  bool found() const { return test::attended_positions(test, 0)[kFirst + 20] >= 0; }
  BlockScene test;
};

TEST(InfLlm, FindsTheBlockThatMatchesTheQuery) {
  int read = 0, without_queries = 0, random = 0;
  for (uint32_t seed = 0; seed < 40; ++seed) {
    PlantedBlock planted(seed, "infllm:window=256,topk=2");
    without_queries += planted.found();
    planted.test.restart("infllm:window=256,topk=2");
    planted.test.read_before(512);
    read += planted.found();
    PlantedBlock other(seed, "infllm:window=256,topk=2");
    std::ranges::reverse(other.test.scene.queries);  // another query with the same numbers
    other.test.read_before(512);
    random += other.found();
  }
  EXPECT_GE(read, 38);
  EXPECT_GE(without_queries, 30) << "four matching keys are weaker in the mean of 128 keys";
  EXPECT_LE(random, 20);
}

TEST(InfLlm, BlockVectorsAreTheMeanOfTheKeysWithTheHighestScoresInTheNextWindow) {
  const PlantedBlock planted(1, "infllm:window=256,representatives=4");
  planted.test.read_before(512);
  const MemoryBlock& block = planted.test.layer().blocks[PlantedBlock::kBlock];
  EXPECT_EQ(block.begin, PlantedBlock::kFirst);
  EXPECT_EQ(block.end, PlantedBlock::kFirst + 128);
  const SceneShape& s = planted.test.scene.shape;
  for (int h = 0; h < s.heads; ++h) {
    for (int d = 0; d < s.key_dim; ++d)
      EXPECT_NEAR((*block.vector)[h * s.key_dim + d], planted.test.scene.queries[d], 1e-4) << h << " " << d;
  }
}

TEST(InfLlm, BlockVectorsAreTheMeanOfAllKeysWithoutRecordedQueries) {
  BlockScene test(block_shape(3, 1), "infllm:window=256");
  test.attended();
  const SceneShape& s = test.scene.shape;
  ASSERT_EQ(test.layer().blocks.size(), (1499 - 256 - 128) / 128);
  for (const MemoryBlock& block : test.layer().blocks) {
    for (int h = 0; h < s.heads; ++h) {
      const int kv_head = h / test.scene.group();
      for (int d = 0; d < s.key_dim; ++d) {
        double sum = 0;
        int count = 0;
        for (int64_t t = block.begin; t < block.end; ++t) {
          if (test.scene.is_masked(t, kv_head)) continue;
          sum += test.scene.keys[(t * s.kv_heads + kv_head) * s.key_dim + d];
          ++count;
        }
        EXPECT_NEAR((*block.vector)[h * s.key_dim + d], sum / count, 1e-5);
      }
    }
  }
}

}  // namespace
}  // namespace fathom
