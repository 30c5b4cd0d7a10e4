// Sequences with different kinds of layers: paged, recurrent, both, and layers that fail.
#include "memory/sequence.h"

#include <gtest/gtest.h>

#include "allocation_limit.h"
#include "base/error.h"
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
using test::SequenceWithFakeLayer;
using test::write;

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
