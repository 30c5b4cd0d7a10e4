// Sequences with recurrent layers: the lengths to which they can be truncated, and their checkpoints.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "memory/sequence.h"
#include "seed.h"
#include "sequence_layers.h"

namespace fathom {
namespace {

using test::expect_tokens;
using test::FakeLayer;
using test::following;
using test::Int64List;
using test::LayerFactory;
using test::LayerKind;
using test::open;
using test::read;
using test::write;

TEST(Sequence, FloorIsALengthThatAllLayersSupport) {
  const auto switches = std::make_shared<FakeLayer::Switches>();
  const auto with_steps = [&](const Int64List& steps) {
    std::vector<std::unique_ptr<LayerState>> layers;
    for (const int64_t step : steps) layers.push_back(std::make_unique<FakeLayer>(switches, step));
    Sequence sequence(std::move(layers));
    sequence.open(following(0, 100));
    sequence.commit();
    return sequence;
  };
  EXPECT_EQ(with_steps({1, 1}).floor(77), 77);
  EXPECT_EQ(with_steps({1, 7, 1}).floor(76), 70);
  EXPECT_EQ(with_steps({6, 4}).floor(99), 96);
  EXPECT_EQ(with_steps({6, 4}).floor(95), 84) << "a multiple of both steps";
  EXPECT_EQ(with_steps({4, 6}).floor(95), 84);
  EXPECT_EQ(with_steps({5, 7, 3}).floor(99), 0) << "the least common multiple is 105";
  EXPECT_EQ(with_steps({5, 7, 3}).floor(100), 100) << "the current length";
  EXPECT_EQ(with_steps({5, 7, 3}).floor(0), 0);
}

TEST(Sequence, WithoutRecurrentLayersFloorIsExact) {
  LayerFactory factory;
  Sequence sequence = factory.sequence({LayerKind::kPaged, LayerKind::kPaged});
  EXPECT_FALSE(sequence.has_recurrent_layers());
  read(sequence, following(0, 200));
  for (const int64_t tokens : {200, 199, 64, 1, 0}) EXPECT_EQ(sequence.floor(tokens), tokens);
}

TEST(Sequence, MixedLayersTruncateToCheckpointsAndContinue) {
  std::mt19937 random(test::seed(1));
  LayerFactory factory;
  for (int round = 0; round < 10; ++round) {
    Sequence sequence = factory.sequence({LayerKind::kRecurrent, LayerKind::kPaged, LayerKind::kBoth});
    EXPECT_TRUE(sequence.has_recurrent_layers());
    Int64List ids;
    int64_t next = 0;
    for (int step = 0; step < 40; ++step) {
      if (random() % 3) {
        const Int64List more = following(next, 1 + static_cast<int64_t>(random() % (random() % 2 ? 3 : 200)));
        next += std::ssize(more);
        read(sequence, more);
        ids.insert(ids.end(), more.begin(), more.end());
      } else {
        const int64_t target = std::max<int64_t>(0, sequence.tokens() - static_cast<int64_t>(random() % 100));
        const int64_t floor = sequence.floor(target);
        ASSERT_LE(floor, target);
        sequence.truncate(floor);
        ids.resize(floor);
      }
      ASSERT_NO_FATAL_FAILURE(expect_tokens(sequence, ids)) << step;
      for (const int layer : {0, 2}) {
        for (const int64_t at : sequence.recurrent(layer)->checkpoints()) {
          ASSERT_EQ(sequence.floor(at), at) << "all layers have the same checkpoints";
          ASSERT_NO_FATAL_FAILURE(test::expect_numbers(*sequence.recurrent(layer), ids, at));
        }
      }
    }
  }
}

TEST(Sequence, ARewindRereadsFewTokensForRandomPasses) {
  std::mt19937 random(test::seed(1));
  LayerFactory factory;
  for (int round = 0; round < 6; ++round) {
    Sequence sequence = factory.sequence({LayerKind::kRecurrent});
    while (sequence.tokens() < 6000) {
      const int64_t most[] = {1, 1, 8, 64, 512, 3000};
      sequence.open(following(sequence.tokens(), 1 + static_cast<int64_t>(random()) % most[random() % 6]));
      sequence.commit();
      if (random() % 20 && sequence.tokens() < 5900) continue;
      const int64_t end = sequence.tokens();
      for (int64_t n = 1; n <= std::min<int64_t>(end, 4096); ++n)
        ASSERT_LE(end - n - sequence.floor(end - n), std::max<int64_t>(64, n)) << n << " from " << end;
    }
  }
}

TEST(Sequence, KeepsTheNewestCheckpointsThatFitInTheBudget) {
  LayerFactory factory;
  const RecurrentState any(test::number_layout(), nullptr);
  const size_t two_layers = 2 * any.state_bytes();
  const auto budget = std::make_shared<MemoryBudget>(5 * two_layers, "--checkpoints");
  {
    Sequence sequence =
        factory.sequence({LayerKind::kRecurrent, LayerKind::kBoth}, {.spacing = 64, .budget = budget});
    read(sequence, following(0, 2000));
    const Int64List kept = sequence.recurrent(0)->checkpoints();
    EXPECT_EQ(kept.size(), 5u);
    EXPECT_GE(kept.back(), 2000 - 64);
    EXPECT_EQ(sequence.recurrent(1)->checkpoints(), kept);
    EXPECT_EQ(budget->in_use(), 5 * two_layers);
    {
      Sequence fork = sequence.fork();
      EXPECT_TRUE(fork.recurrent(0)->checkpoints().empty()) << "the budget is exhausted";
      EXPECT_EQ(budget->in_use(), 5 * two_layers);
      EXPECT_EQ(fork.floor(1999), 0);
      read(fork, following(2000, 5));
      ASSERT_NO_FATAL_FAILURE(expect_tokens(fork, following(0, 2005)));
    }
    sequence.truncate(kept[1]);
    EXPECT_EQ(sequence.recurrent(1)->checkpoints(), (Int64List{kept[0]}));
    EXPECT_EQ(budget->in_use(), two_layers);
    ASSERT_NO_FATAL_FAILURE(expect_tokens(sequence, following(0, kept[1])));
  }
  EXPECT_EQ(budget->in_use(), 0u);
}

TEST(Sequence, AcceptedDraftsOfMixedLayersEqualReadTokens) {
  std::mt19937 random(test::seed(4));
  LayerFactory factory;
  Sequence drafted = factory.sequence({LayerKind::kRecurrent, LayerKind::kPaged, LayerKind::kBoth});
  Int64List ids;
  for (int n = 0; n < 40; ++n) {
    const Int64List more = following(1000 * n, static_cast<int64_t>(1 + random() % 16));
    drafted.open(following(drafted.next_position(), std::ssize(more)),
                 std::vector<int32_t>(more.begin(), more.end()), true);
    write(drafted, more);
    const auto accepted = static_cast<int64_t>(random() % (more.size() + 1));
    drafted.accept(accepted);
    ids.insert(ids.end(), more.begin(), more.begin() + accepted);
    ASSERT_NO_FATAL_FAILURE(expect_tokens(drafted, ids)) << n;
    ASSERT_LE(drafted.recurrent(0)->checkpoints().size(), 20u);
    for (int64_t back = 1; back <= std::ssize(ids); ++back)
      ASSERT_LE(std::ssize(ids) - back - drafted.floor(std::ssize(ids) - back), std::max<int64_t>(64, back));
  }
}

TEST(Sequence, ForksOfMixedLayersAreIndependent) {
  LayerFactory factory;
  Sequence trunk = factory.sequence({LayerKind::kRecurrent, LayerKind::kPaged, LayerKind::kBoth});
  read(trunk, following(0, 100));
  Sequence fork = trunk.fork();
  read(fork, following(5000, 30));
  read(trunk, following(100, 70));
  Int64List others = following(0, 100);
  for (int64_t i = 0; i < 30; ++i) others.push_back(5000 + i);
  ASSERT_NO_FATAL_FAILURE(expect_tokens(fork, others));
  ASSERT_NO_FATAL_FAILURE(expect_tokens(trunk, following(0, 170)));
  fork.truncate(64);
  ASSERT_NO_FATAL_FAILURE(expect_tokens(fork, following(0, 64)));
  ASSERT_NO_FATAL_FAILURE(expect_tokens(trunk, following(0, 170)));
  Sequence moved = std::move(fork);
  ASSERT_NO_FATAL_FAILURE(expect_tokens(moved, following(0, 64)));
}

}  // namespace
}  // namespace fathom
