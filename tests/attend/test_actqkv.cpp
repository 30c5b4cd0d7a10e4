#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "block_scene.h"
#include "seed.h"

namespace fathom {
namespace {

using test::BlockScene;
using test::SceneShape;

SceneShape shape_of(uint32_t seed, int64_t rows) {
  SceneShape s;
  s.tokens = 3000;
  s.rows = rows;
  s.seed = seed;
  return s;
}

/// Returns for each block whether the first chunk of the scene's rows attends to it.
std::vector<char> selected_blocks(const BlockScene& test) {
  std::vector<char> selected;
  for (const MemoryBlock& block : test.layer().blocks) {
    selected.push_back(std::ranges::any_of(test.layer().attended[0].ranges, [&](const TokenRange& range) {
      return range.begin <= block.begin && block.end <= range.end;
    }));
  }
  return selected;
}

/// Returns the cosines of the blocks with a weighted sum of the rows' queries, rotated to distance window − 1.
std::vector<double> cosines(const BlockScene& test, const std::vector<double>& weights, int64_t window) {
  const SceneShape& s = test.scene.shape;
  std::vector<double> probe(test.width());
  for (size_t r = 0; r < weights.size(); ++r) {
    for (int64_t i = 0; i < test.width(); i += 2) {
      const double angle = static_cast<double>(window - 1) * test.scene.rotary.frequencies()[i % s.key_dim / 2];
      const float* q = test.scene.queries.data() + static_cast<int64_t>(r) * test.width() + i;
      probe[i] += weights[r] * (q[0] * std::cos(angle) - q[1] * std::sin(angle));
      probe[i + 1] += weights[r] * (q[0] * std::sin(angle) + q[1] * std::cos(angle));
    }
  }
  std::vector<double> values;
  for (const MemoryBlock& block : test.layer().blocks) {
    double product = 0, norm = 0, size = 0;
    for (int64_t i = 0; i < test.width(); ++i) {
      product += probe[i] * (*block.vector)[i];
      norm += probe[i] * probe[i];
      size += static_cast<double>((*block.vector)[i]) * (*block.vector)[i];
    }
    values.push_back(product / std::sqrt(norm * size));
  }
  return values;
}

TEST(ActQkv, SelectsTheBlocksNearestToTheMeanQueryWithoutWeights) {
  for (const int64_t rows : {1, 100}) {
    for (uint32_t seed = 0; seed < 5; ++seed) {
      BlockScene test(shape_of(seed, rows), "actqkv:window=512,topk=10,warmup=1e9");
      test.read_before(256);
      test.attended();
      const std::vector<double> values = cosines(test, std::vector<double>(rows, 1.0 / rows), 512);
      std::vector<double> sorted = values;
      std::ranges::sort(sorted, std::greater());
      const std::vector<char> selected = selected_blocks(test);
      for (size_t b = 0; b < values.size(); ++b) {
        if (std::fabs(values[b] - sorted[9]) < 1e-5 || std::fabs(values[b] - sorted[10]) < 1e-5) continue;
        EXPECT_EQ(selected[b] != 0, values[b] > sorted[10]) << "seed " << seed << " block " << b;
      }
      EXPECT_EQ(std::accumulate(selected.begin(), selected.end(), 0), 10);
    }
  }
}

/// Reads 255 queries that are similar to all earlier ones, and one unusual query in the direction of a block's
/// vector. Returns in how many of 20 trials this block is selected.
int times_selected(const std::string& spec) {
  int times = 0;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    BlockScene test(shape_of(seed, 256), spec);
    std::mt19937 random(test::seed(seed));
    std::normal_distribution<float> normal;
    std::vector<float> usual(test.width());
    for (float& x : usual) x = normal(random);
    const auto make_usual = [&](std::vector<float>& queries) {
      for (size_t i = 0; i < queries.size(); ++i) queries[i] = usual[i % usual.size()] + 0.3f * queries[i];
    };
    make_usual(test.queries);
    make_usual(test.scene.queries);
    test.read_before(256);
    test.read(test.scene.first_row(), test.scene.shape.tokens);
    const MemoryBlock& target = test.layer().blocks[20 + seed];
    float* outlier = test.scene.queries.data() + 100 * test.width();
    // inverse-rotated by window − 1, so that its rotation for far keys gives the block's vector
    const int dim = test.scene.shape.key_dim;
    for (int64_t i = 0; i < test.width(); i += 2) {
      const double angle = 511 * test.scene.rotary.frequencies()[i % dim / 2];
      const double x = (*target.vector)[i] * 40, y = (*target.vector)[i + 1] * 40;
      outlier[i] = static_cast<float>(x * std::cos(angle) + y * std::sin(angle));
      outlier[i + 1] = static_cast<float>(y * std::cos(angle) - x * std::sin(angle));
    }
    test.read(test.scene.first_row(), test.scene.shape.tokens);
    times += selected_blocks(test)[20 + seed];
  }
  return times;
}

TEST(ActQkv, ProbeFindsTheBlockOfOneUnusualQuery) {
  const int probe = times_selected("actqkv:window=512,topk=4,warmup=2");
  const int mean = times_selected("actqkv:window=512,topk=4,warmup=1e9");
  EXPECT_GE(probe, 18);
  EXPECT_LE(mean, 6);
  RecordProperty("found", std::to_string(probe) + " by the probe, " + std::to_string(mean) + " by the mean");
}

TEST(ActQkv, QuestionInfluencesTheSelectionWhileATextIsRead) {
  constexpr int64_t kBegin = 70, kEnd = 90;
  for (const int64_t rows : {1, 100}) {
    for (uint32_t seed = 0; seed < 5; ++seed) {
      const std::string spec = "actqkv:topk=3,warmup=1e9";
      BlockScene test(shape_of(seed, rows), spec);
      test.read_before(256);
      test.attended();
      const std::vector<char> plain = selected_blocks(test);
      // the question's queries equal the vector of a block that is not selected otherwise
      const auto target = static_cast<size_t>(std::ranges::find(plain, 0) - plain.begin()) + seed;
      const std::vector<float> vector = *test.layer().blocks[target].vector;
      const int dim = test.scene.shape.key_dim;
      for (int64_t t = kBegin; t < kEnd; ++t) {
        for (int64_t i = 0; i < test.width(); i += 2) {
          const double angle = 511 * test.scene.rotary.frequencies()[i % dim / 2];
          const double x = vector[i], y = vector[i + 1];
          test.queries[t * test.width() + i] = static_cast<float>(x * std::cos(angle) + y * std::sin(angle));
          test.queries[t * test.width() + i + 1] = static_cast<float>(y * std::cos(angle) - x * std::sin(angle));
        }
      }
      for (const int64_t at_once : {256, 75}) {
        test.restart(spec + ",question_begin=70,question_end=90");
        test.read_before(at_once);
        test.attended();
        if (rows > 1) {
          EXPECT_TRUE(selected_blocks(test)[target]) << "seed " << seed;
        } else {
          EXPECT_EQ(selected_blocks(test), plain) << "the question does not apply to single tokens";
        }
      }
    }
  }
}

/// Four layers of random keys, read token by token, to count the blocks of each layer.
class LayerShares : public testing::Test {
 protected:
  static constexpr int kLayers = 4, kDim = 16;
  static constexpr int64_t kBefore = 1900, kTokens = 2100;

  LayerShares()
      : rotary(config(), 4096),
        rotations(std::make_shared<PositionRotations>(rotary)),
        sequence(test::identical_layers(layer(), kLayers)) {
    std::vector<int64_t> positions(kTokens);
    std::iota(positions.begin(), positions.end(), 0);
    sequence.open(positions);
    rotations->reserve(sequence.end_position());
    // The first layer's keys point along the queries in half of its blocks and against them in the other half: its
    // block scores are the most concentrated.
    std::mt19937 random(test::seed(1));
    std::normal_distribution<float> normal;
    std::vector<float> keys(kTokens * kDim);
    for (int64_t i = 0; i < kTokens; ++i)
      queries.insert(queries.end(), {1, 2, 3, 4, 5, 6, 7, 8, 8, 7, 6, 5, 4, 3, 2, 1});
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int64_t i = 0; i < std::ssize(keys); ++i)
        keys[i] = layer > 0 ? normal(random) : queries[i] * (i / kDim / 16 % 2 ? 1.0f : -1.0f);
      sequence.kv(layer).write(kernels(), 0, kTokens, keys.data(), kDim, keys.data(), kDim);
    }
    sequence.commit();
  }
  static RotaryConfig config() { return {}; }
  PagedKvConfig layer() const {
    PagedKvConfig layer;
    layer.store = std::make_shared<PageStore>(PageShape{PageFormat::kF32, kDim, kDim});
    layer.rotations = rotations;
    return layer;
  }

  /// Reads rows [begin, end) and returns the number of selected blocks of each layer.
  std::vector<int64_t> read(const Selector& selector, int64_t begin, int64_t end) {
    std::vector<int64_t> counts;
    auto& state = *static_cast<BlockState*>(sequence.state(Sequence::StateOf::kSelector));
    for (int layer = 0; layer < kLayers; ++layer) {
      LayerQueries q;
      q.sequence = &sequence;
      q.kv = &sequence.kv(layer);
      q.layer = layer;
      q.heads = 1;
      q.first = begin;
      q.rows = end - begin;
      std::vector<int64_t> positions(end - begin);
      std::iota(positions.begin(), positions.end(), begin);
      q.positions = positions.data();
      q.queries = queries.data() + begin * kDim;
      q.stride = kDim;
      q.kernels = &kernels();
      q.state = &state;
      selector.plan(q, pool);
      int64_t count = 0;
      for (const MemoryBlock& block : state.layers[layer].blocks) {
        count += std::ranges::any_of(state.layers[layer].attended.back().ranges, [&](const TokenRange& range) {
          return range.begin <= block.begin && block.end <= range.end;
        });
      }
      counts.push_back(count);
    }
    return counts;
  }

  Rotary rotary;
  std::shared_ptr<PositionRotations> rotations;
  Sequence sequence;
  std::vector<float> queries;
  ThreadPool pool{2};
};

TEST_F(LayerShares, LayersKeepTheTotalBudgetAndTheMostConcentratedGetsLeast) {
  const auto selector = attend_methods().make("actqkv:topk=40,block=16");
  selector->attach(AttendContext::uniform(kLayers, AttendLayer{1, 1, {PageFormat::kF32, kDim, kDim}}));
  sequence.set_state(Sequence::StateOf::kSelector, selector->new_state());
  EXPECT_EQ(read(*selector, 0, kBefore), std::vector<int64_t>(kLayers, 40));
  for (int64_t t = kBefore; t < kTokens; ++t) {
    const std::vector<int64_t> counts = read(*selector, t, t + 1);
    EXPECT_LE(std::accumulate(counts.begin(), counts.end(), int64_t{0}), 40 * kLayers) << t;
    for (const int64_t count : counts) EXPECT_LE(count, 80);
    if (t < kBefore + 80) {
      EXPECT_EQ(counts, std::vector<int64_t>(kLayers, 40)) << "too few entropies yet";
    }
    if (t > kBefore + 120) {
      EXPECT_LE(counts[0], 38);
      EXPECT_GE(counts[1] + counts[2] + counts[3], 121);
    }
  }
}

}  // namespace
}  // namespace fathom
