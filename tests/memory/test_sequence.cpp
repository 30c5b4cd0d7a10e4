// Sequences with different kinds of layers: paged, recurrent, both, and layers that fail.
#include "memory/sequence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "allocation_limit.h"
#include "base/error.h"
#include "number_recurrence.h"
#include "seed.h"
#include "token_pages.h"

namespace fathom {
namespace {

using test::following;
using Int64List = std::vector<int64_t>;

enum class LayerKind { kPaged, kRecurrent, kBoth };

/// Creates layers and sequences that share a page store and a budget.
struct LayerFactory {
  std::shared_ptr<PageStore> store = test::small_store();
  std::shared_ptr<MemoryBudget> budget;  // for recurrent states

  std::unique_ptr<LayerState> paged() const {
    PagedKvConfig config;
    config.store = store;
    config.heads = 2;
    config.rotations = test::small_rotations();
    return std::make_unique<PagedKv>(config);
  }
  std::unique_ptr<LayerState> recurrent() const {
    return std::make_unique<RecurrentState>(test::number_layout(), budget);
  }
  std::unique_ptr<LayerState> layer(LayerKind kind) const {
    if (kind == LayerKind::kPaged) return paged();
    if (kind == LayerKind::kRecurrent) return recurrent();
    return std::make_unique<CombinedState>(paged(), recurrent());
  }
  Sequence sequence(const std::vector<LayerKind>& kinds, CheckpointPolicy checkpoints = {}) const {
    std::vector<std::unique_ptr<LayerState>> layers;
    for (const LayerKind kind : kinds) layers.push_back(layer(kind));
    return Sequence(std::move(layers), std::move(checkpoints));
  }
};

/// Writes the opened tokens in all layers, as mixers do.
void write(Sequence& sequence, const Int64List& ids) {
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    if (sequence.paged(layer)) test::write_tokens(sequence, layer, ids);
    if (sequence.recurrent(layer)) test::write_numbers(*sequence.recurrent(layer), ids);
  }
}

void open(Sequence& sequence, const Int64List& ids) {
  sequence.open(following(sequence.next_position(), std::ssize(ids)), std::vector<int32_t>(ids.begin(), ids.end()));
}

void read(Sequence& sequence, const Int64List& ids) {
  open(sequence, ids);
  write(sequence, ids);
  sequence.commit();
}

/// Expects that all layers hold these tokens.
void expect_tokens(Sequence& sequence, const Int64List& ids) {
  const auto tokens = std::ssize(ids);
  ASSERT_EQ(sequence.tokens(), tokens);
  ASSERT_EQ(sequence.next_position(), tokens);
  ASSERT_EQ(sequence.ids().size(), tokens);
  for (int64_t i = 0; i < tokens; ++i) ASSERT_EQ(sequence.ids()[i], ids[i]);
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    if (const RecurrentState* state = sequence.recurrent(layer)) {
      ASSERT_NO_FATAL_FAILURE(test::expect_numbers(*state, ids)) << "layer " << layer;
    }
    const PagedKv* kv = sequence.paged(layer);
    if (!kv) continue;
    ASSERT_EQ(kv->tokens(), tokens);
    for (int head = 0; head < kv->heads(); ++head) {
      ASSERT_EQ(kv->table(head).size(), (tokens + kPageTokens - 1) / kPageTokens);
      for (int64_t i = 0; i < tokens; ++i) {
        ASSERT_NO_FATAL_FAILURE(test::expect_token(kv->store(), kv->table(head)[i / kPageTokens].page,
                                                   static_cast<int>(i % kPageTokens), ids[i],
                                                   layer * kv->heads() + head));
      }
    }
  }
}

/// A layer that counts tokens, throws if its switches say so, and can only be truncated to multiples of `step`.
class FakeLayer final : public LayerState {
 public:
  struct Switches {
    bool open_fails = false, accept_fails = false;
    int opened = 0, truncated = 0;  // numbers of calls
  };
  FakeLayer(std::shared_ptr<Switches> switches, int64_t step) : switches_(std::move(switches)), step_(step) {}

  std::unique_ptr<LayerState> fork() const override { return std::make_unique<FakeLayer>(*this); }
  void open(const OpenedTokens& tokens) override {
    if (switches_->open_fails) throw Error("this layer fails");
    ++switches_->opened;
    open_ = std::ssize(tokens.positions);
  }
  void commit() noexcept override { tokens_ += std::exchange(open_, 0); }
  void accept(int64_t count) override {
    if (switches_->accept_fails) throw Error("this layer fails");
    tokens_ += count;
    open_ = 0;
  }
  int64_t floor(int64_t tokens) const override {
    return tokens >= tokens_ ? std::min(tokens, tokens_) : tokens / step_ * step_;
  }
  void truncate(int64_t tokens) override {
    ++switches_->truncated;
    tokens_ = std::min(tokens, tokens_);
    open_ = 0;
  }
  size_t bytes() const override { return 1000; }

 private:
  std::shared_ptr<Switches> switches_;
  int64_t step_, tokens_ = 0, open_ = 0;
};

/// A sequence of layers of all kinds and, at index `at`, a FakeLayer.
struct SequenceWithFakeLayer {
  explicit SequenceWithFakeLayer(size_t at, int64_t step = 1) {
    std::vector<std::unique_ptr<LayerState>> layers;
    for (const LayerKind kind : {LayerKind::kPaged, LayerKind::kRecurrent, LayerKind::kBoth})
      layers.push_back(factory.layer(kind));
    layers.insert(layers.begin() + static_cast<std::ptrdiff_t>(at), std::make_unique<FakeLayer>(switches, step));
    sequence = Sequence(std::move(layers));
  }
  LayerFactory factory;
  std::shared_ptr<FakeLayer::Switches> switches = std::make_shared<FakeLayer::Switches>();
  Sequence sequence{{}};
};

TEST(Sequence, OpensAllLayersOrNone) {
  for (size_t at = 0; at <= 3; ++at) {
    for (const int64_t before : {0, 50, 64}) {
      SCOPED_TRACE(testing::Message() << "layer " << at << " fails after " << before << " tokens");
      SequenceWithFakeLayer f(at);
      read(f.sequence, following(0, before));
      const size_t bytes = f.factory.store->bytes_in_use();
      f.switches->open_fails = true;
      for (int attempt = 0; attempt < 3; ++attempt) {
        EXPECT_THROW(open(f.sequence, following(500, 100)), Error);
        EXPECT_EQ(f.factory.store->bytes_in_use(), bytes);
        ASSERT_NO_FATAL_FAILURE(expect_tokens(f.sequence, following(0, before)));
      }
      f.switches->open_fails = false;
      read(f.sequence, following(before, 100));
      ASSERT_NO_FATAL_FAILURE(expect_tokens(f.sequence, following(0, before + 100)));
    }
  }
}

TEST(Sequence, AcceptsADraftInAllLayersOrNone) {
  const Int64List ids = following(1000, 20);
  for (size_t at = 0; at <= 3; ++at) {
    SequenceWithFakeLayer f(at);
    read(f.sequence, following(0, 50));
    for (const bool fails : {true, false}) {
      f.switches->accept_fails = fails;
      f.sequence.open(following(f.sequence.next_position(), 20), std::vector<int32_t>(ids.begin(), ids.end()),
                      true);
      write(f.sequence, ids);
      Int64List expected = following(0, 50);
      if (fails) {
        EXPECT_THROW(f.sequence.accept(17), Error);
      } else {
        f.sequence.accept(17);
        expected.insert(expected.end(), ids.begin(), ids.begin() + 17);
      }
      EXPECT_FALSE(f.sequence.is_open());
      ASSERT_NO_FATAL_FAILURE(expect_tokens(f.sequence, expected)) << "layer " << at;
    }
    read(f.sequence, following(9000, 9));
  }
}

TEST(Sequence, ExceedingTheBudgetInOneLayerUndoesTheOthers) {
  LayerFactory factory;
  const RecurrentState any(test::number_layout(), nullptr);
  factory.budget = std::make_shared<MemoryBudget>(7 * any.state_bytes());
  Sequence sequence = factory.sequence({LayerKind::kRecurrent, LayerKind::kPaged, LayerKind::kRecurrent});
  read(sequence, following(0, 50));
  const size_t bytes = factory.store->bytes_in_use(), states = factory.budget->in_use();
  EXPECT_THROW(open(sequence, following(50, 300)), Error) << "the checkpoints of the pass do not fit";
  EXPECT_EQ(factory.store->bytes_in_use(), bytes);
  EXPECT_EQ(factory.budget->in_use(), states);
  ASSERT_NO_FATAL_FAILURE(expect_tokens(sequence, following(0, 50)));
  read(sequence, following(50, 5));
  ASSERT_NO_FATAL_FAILURE(expect_tokens(sequence, following(0, 55)));
}

TEST(Sequence, AnAbandonedPassChangesNothing) {
  LayerFactory factory;
  for (const int64_t before : {0, 50, 64, 200}) {
    Sequence sequence = factory.sequence({LayerKind::kPaged, LayerKind::kRecurrent, LayerKind::kBoth});
    read(sequence, following(0, before));
    const size_t bytes = sequence.bytes(), pages = factory.store->bytes_in_use();
    for (const int64_t count : {1, 20, 200, 3000}) {
      open(sequence, following(7000, count));
      EXPECT_EQ(sequence.tokens(), before + count) << "opened tokens count";
      if (count < 1000) write(sequence, following(7000, count));
      sequence.abandon();
      EXPECT_EQ(sequence.bytes(), bytes);
      EXPECT_EQ(factory.store->bytes_in_use(), pages);
      ASSERT_NO_FATAL_FAILURE(expect_tokens(sequence, following(0, before)));
    }
    read(sequence, following(before, 70));
    ASSERT_NO_FATAL_FAILURE(expect_tokens(sequence, following(0, before + 70)));
  }
}

/// A method state that records rewinds.
struct RewindRecorder final : test::UnsavedState {
  std::unique_ptr<SequenceState> fork() const override { return std::make_unique<RewindRecorder>(*this); }
  void rewind(int64_t tokens) override { rewound.push_back(tokens); }
  Int64List rewound;
};

TEST(Sequence, MethodStatesAreRewoundWithTheTokens) {
  LayerFactory factory;
  Sequence sequence = factory.sequence({LayerKind::kPaged});
  for (const auto owner : {Sequence::StateOf::kSelector, Sequence::StateOf::kEvictor})
    sequence.set_state(owner, std::make_unique<RewindRecorder>());
  const auto rewound = [&](Sequence::StateOf owner) {
    return static_cast<RewindRecorder*>(sequence.state(owner))->rewound;
  };
  const auto expect = [&](const Int64List& expected) {
    EXPECT_EQ(rewound(Sequence::StateOf::kSelector), expected);
    EXPECT_EQ(rewound(Sequence::StateOf::kEvictor), expected);
  };
  read(sequence, following(0, 50));
  sequence.truncate(30);
  expect({30});
  open(sequence, following(0, 9));
  sequence.abandon();  // selectors may have planned for the open tokens
  expect({30, 30});
  Sequence fork = sequence.fork();
  fork.truncate(10);
  expect({30, 30});
  EXPECT_EQ(static_cast<RewindRecorder*>(fork.state(Sequence::StateOf::kEvictor))->rewound,
            (Int64List{30, 30, 10}));
}

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

TEST(Sequence, APassWithoutTokensChangesNothing) {
  LayerFactory factory;
  Sequence sequence = factory.sequence({LayerKind::kRecurrent, LayerKind::kPaged, LayerKind::kBoth});
  read(sequence, {});
  ASSERT_NO_FATAL_FAILURE(expect_tokens(sequence, {}));
  read(sequence, following(0, 100));
  const Int64List checkpoints = sequence.recurrent(0)->checkpoints();
  sequence.open({});
  sequence.commit();
  ASSERT_NO_FATAL_FAILURE(expect_tokens(sequence, following(0, 100)));
  EXPECT_EQ(sequence.recurrent(0)->checkpoints(), checkpoints);
}

TEST(Sequence, EmbeddingsHaveTheIdMinusOne) {
  LayerFactory factory;
  Sequence sequence = factory.sequence({LayerKind::kPaged});
  sequence.open(following(0, 3), std::vector<int32_t>{4, 5, 6});
  sequence.commit();
  sequence.open(following(3, 2));
  sequence.commit();
  EXPECT_EQ(sequence.ids().copy(0, 5), (std::vector<int32_t>{4, 5, 6, -1, -1}));
}

TEST(Sequence, GivesAccessToItsLayersAndTheirSizes) {
  LayerFactory factory;
  Sequence sequence = factory.sequence({LayerKind::kPaged, LayerKind::kRecurrent, LayerKind::kBoth});
  EXPECT_EQ(sequence.layers(), 3);
  EXPECT_EQ(sequence.paged(0), &sequence.kv(0));
  EXPECT_EQ(sequence.recurrent(0), nullptr);
  EXPECT_EQ(sequence.paged(1), nullptr);
  EXPECT_NE(sequence.recurrent(1), nullptr);
  EXPECT_NE(sequence.paged(2), nullptr);
  EXPECT_NE(sequence.recurrent(2), nullptr);
  EXPECT_EQ(sequence.max_heads(), 2);
  EXPECT_EQ(factory.sequence({LayerKind::kRecurrent}).max_heads(), 0);
  read(sequence, following(0, 50));
  EXPECT_GE(sequence.bytes(), 4 * factory.store->shape().bytes() + 2 * sequence.recurrent(1)->state_bytes());
  sequence.mask(10, 20);
  sequence.move_to(640);
  for (const int layer : {0, 2}) {
    EXPECT_EQ(sequence.kv(layer).table(1)[0].mask, page_bits(0, 50) & ~page_bits(10, 20));
    EXPECT_EQ(sequence.kv(layer).table(1)[0].position, 640);
  }
  EXPECT_EQ(sequence.next_position(), 690);
  EXPECT_EQ(sequence.end_position(), 690);
  EXPECT_THROW(sequence.move_to(-1), Error);
  EXPECT_THROW(sequence.truncate(51), Error);
  EXPECT_THROW(sequence.truncate(-1), Error);
  EXPECT_EQ(sequence.tokens(), 50);
}

TEST(Sequence, OpeningWithoutMemoryChangesNothing) {
  const LayerFactory factory;
  Sequence sequence = factory.sequence({LayerKind::kPaged, LayerKind::kRecurrent, LayerKind::kBoth});
  Int64List ids = following(0, 1000);  // blocks of ids have 1,024 tokens
  read(sequence, ids);
  const Int64List more = following(1000, 1500);
  const std::vector<int64_t> positions = following(1000, 1500);
  const std::vector<int32_t> more_ids(more.begin(), more.end());
  const size_t pages = factory.store->bytes_in_use();
  const std::vector<int32_t> before = sequence.ids().copy(0, 1000);
  test::with_each_failing_allocation([&] { sequence.open(positions, more_ids); },
                                     [&] {
                                       ASSERT_EQ(sequence.tokens(), 1000);
                                       ASSERT_EQ(sequence.ids().size(), 1000);
                                       ASSERT_EQ(sequence.ids().copy(0, 1000), before);
                                       ASSERT_EQ(factory.store->bytes_in_use(), pages);
                                     });
  write(sequence, more);
  sequence.commit();
  ids.insert(ids.end(), more.begin(), more.end());
  expect_tokens(sequence, ids);
}

TEST(Sequence, AForkOf128kTokensUsesLittleMemory) {
  constexpr int64_t kTokens = 128 * 1024;
  const LayerFactory factory;
  Sequence sequence =
      factory.sequence({LayerKind::kPaged, LayerKind::kRecurrent, LayerKind::kPaged, LayerKind::kBoth});
  for (int64_t read = 0; read < kTokens; read += 4096) {
    sequence.open(following(read, 4096), std::vector<int32_t>(4096, 7));
    sequence.commit();
  }
  const size_t pages = factory.store->bytes_in_use();
  ASSERT_EQ(pages, 6 * kTokens / kPageTokens * factory.store->shape().bytes());
  const size_t before = test::allocated_bytes();
  Sequence fork = sequence.fork();
  const size_t allocated = test::allocated_bytes() - before;
  EXPECT_LE(allocated, size_t{1} << 20);
  EXPECT_LE(allocated, size_t{16} << 10) << "pointers to the runs of 6 tables and to blocks of ids";
  EXPECT_EQ(factory.store->bytes_in_use(), pages);
  EXPECT_EQ(fork.tokens(), kTokens);

  const size_t before_reading = test::allocated_bytes();
  fork.open(following(kTokens, 1), std::vector<int32_t>{7});
  fork.commit();
  EXPECT_LE(test::allocated_bytes() - before_reading, size_t{64} << 10) << "one run per table";
  EXPECT_EQ(factory.store->bytes_in_use(), pages + 6 * factory.store->shape().bytes());
  EXPECT_EQ(sequence.tokens(), kTokens);
}

}  // namespace
}  // namespace fathom
