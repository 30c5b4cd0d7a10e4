#include "memory/recurrent_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "allocation_limit.h"
#include "base/error.h"
#include "number_recurrence.h"
#include "seed.h"

namespace fathom {
namespace {

using test::expect_numbers;
using test::number_layout;
using test::write_numbers;
using Int64List = std::vector<int64_t>;

Int64List ids_from(int64_t first, int64_t count) {
  Int64List ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

RecurrentState empty(std::shared_ptr<MemoryBudget> budget = nullptr) {
  return RecurrentState(number_layout(), std::move(budget));
}

void open(RecurrentState& state, const Int64List& stops) {
  OpenedTokens opened;
  const Int64List positions(stops.back());
  opened.positions = positions;
  opened.stops = stops;
  state.open(opened);
}

/// Reads tokens with the ids `more` and appends them to `ids`. stops: as for open(), without the last one.
void read(RecurrentState& state, Int64List& ids, const Int64List& more, Int64List stops = {}) {
  stops.push_back(std::ssize(more));
  open(state, stops);
  write_numbers(state, more);
  state.commit();
  ids.insert(ids.end(), more.begin(), more.end());
}

/// Opens and writes tokens, with a stop after each.
void open_draft(RecurrentState& state, const Int64List& ids) {
  open(state, ids_from(1, std::ssize(ids)));
  write_numbers(state, ids);
}

TEST(RecurrentLayout, TensorsBeginAtCacheLines) {
  const RecurrentLayout layout{{{"a", 3}, {"b", 16}, {"c", 17}, {"d", 1}}};
  EXPECT_EQ(layout.offset(0), 0);
  EXPECT_EQ(layout.offset(1), 16);
  EXPECT_EQ(layout.offset(2), 32);
  EXPECT_EQ(layout.offset(3), 64);
  EXPECT_EQ(layout.floats(), 80);
  EXPECT_EQ(RecurrentLayout{}.floats(), 0);
}

TEST(RecurrentState, IsZeroBeforeTheFirstToken) {
  RecurrentState state = empty();
  EXPECT_EQ(state.tokens(), 0);
  EXPECT_EQ(state.bytes(), 0u);
  EXPECT_EQ(state.floor(0), 0);
  EXPECT_EQ(state.snapshot(0), nullptr);
  EXPECT_TRUE(state.checkpoints().empty());
  EXPECT_EQ(state.recurrent(), &state);
  EXPECT_EQ(state.paged(), nullptr);
  open(state, {5});
  EXPECT_EQ(state.before(0, 0), nullptr) << "null: all zeros";
  EXPECT_EQ(state.before(0, 1), nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(state.after(0, 0)) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(state.after(0, 1)) % 64, 0u);
}

TEST(RecurrentState, DoesNotDependOnPassesAndSegments) {
  for (const Int64List& stops : {Int64List{}, {1}, {7, 50}, {64, 128, 192}}) {
    for (const int64_t at_once : {300, 200, 193}) {
      RecurrentState state = empty();
      Int64List ids;
      for (int64_t first = 0; first < 600; first += at_once)
        read(state, ids, ids_from(first, std::min(at_once, 600 - first)),
             at_once == 300 || first == 0 ? stops : Int64List{});
      ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids_from(0, 600)));
    }
  }
  RecurrentState state = empty();
  Int64List ids;
  for (int64_t i = 0; i < 600; ++i) read(state, ids, {i});
  expect_numbers(state, ids_from(0, 600));
}

TEST(RecurrentState, StatesAtPassAndSegmentBoundariesBecomeCheckpoints) {
  RecurrentState state = empty();
  Int64List ids;
  read(state, ids, ids_from(0, 100), {20, 50});
  EXPECT_EQ(state.checkpoints(), (Int64List{20, 50}));
  read(state, ids, ids_from(100, 30), {10});
  EXPECT_EQ(state.checkpoints(), (Int64List{20, 50, 100, 110}));
  for (const int64_t at : {0, 20, 50, 100, 110, 130}) ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids, at));
  EXPECT_EQ(state.bytes(), 5 * state.state_bytes());
  const std::pair<int64_t, int64_t> floors[] = {{0, 0},     {19, 0},    {20, 20},   {49, 20},
                                                {50, 50},   {99, 50},   {100, 100}, {109, 100},
                                                {110, 110}, {129, 110}, {130, 130}, {500, 130}};
  for (const auto& [tokens, floor] : floors) EXPECT_EQ(state.floor(tokens), floor) << tokens;
}

TEST(RecurrentState, KeepsTheRequestedCheckpoints) {
  RecurrentState state = empty();
  Int64List ids;
  read(state, ids, ids_from(0, 100), {10, 20, 30, 40, 50});
  state.keep_checkpoints(Int64List{20, 35, 50});
  EXPECT_EQ(state.checkpoints(), (Int64List{20, 50})) << "35 is not a checkpoint";
  for (const int64_t at : {20, 50, 100}) ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids, at));
  EXPECT_EQ(state.floor(45), 20);
  state.keep_checkpoints({});
  EXPECT_TRUE(state.checkpoints().empty());
  EXPECT_EQ(state.floor(99), 0);
  ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
  read(state, ids, ids_from(100, 5));  // reuses the memory of a discarded state
  ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
  ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids, 100));
}

TEST(RecurrentState, TruncatesToCheckpoints) {
  for (const int64_t kept : {0, 20, 50, 100, 110, 130}) {
    RecurrentState state = empty();
    Int64List ids;
    read(state, ids, ids_from(0, 100), {20, 50});
    read(state, ids, ids_from(100, 30), {10});
    state.truncate(kept);
    ids.resize(kept);
    ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
    EXPECT_EQ(state.floor(1000), kept);
    for (const int64_t at : state.checkpoints()) {
      EXPECT_LT(at, kept);
      ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids, at));
    }
    read(state, ids, ids_from(7000, 40));
    ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
  }
}

TEST(RecurrentState, TruncatingToAMissingCheckpointIsAnError) {
  RecurrentState state = empty();
  Int64List ids;
  read(state, ids, ids_from(0, 100), {20});
  try {
    state.truncate(50);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the recurrent state after 50 tokens was not stored as a checkpoint");
  }
  EXPECT_THROW(state.snapshot(99), Error);
  ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
  EXPECT_EQ(state.checkpoints(), (Int64List{20}));
}

TEST(RecurrentState, AnAbandonedPassChangesNothing) {
  RecurrentState state = empty();
  Int64List ids;
  for (const int64_t count : {0, 60}) {
    if (count > 0) read(state, ids, ids_from(0, count), {30});
    const size_t bytes = state.bytes();
    const Int64List checkpoints = state.checkpoints();
    for (const bool written : {false, true}) {
      open(state, {5, 20, 33});
      if (written) write_numbers(state, ids_from(500, 33));
      state.truncate(count);
      EXPECT_TRUE(state.stops().empty());
      EXPECT_EQ(state.bytes(), bytes);
      EXPECT_EQ(state.checkpoints(), checkpoints);
      ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
    }
  }
  open(state, {5, 20});
  state.truncate(30);  // before the beginning of the pass
  ids.resize(30);
  ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
  read(state, ids, ids_from(800, 9));
  ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
}

TEST(RecurrentState, ForksShareStatesAndAreIndependent) {
  const auto budget = std::make_shared<MemoryBudget>();
  RecurrentState trunk = empty(budget);
  Int64List ids;
  read(trunk, ids, ids_from(0, 100), {20, 50});
  const size_t in_use = budget->in_use();
  EXPECT_EQ(in_use, 3 * trunk.state_bytes());
  const std::unique_ptr<LayerState> forked = trunk.fork();
  RecurrentState& fork = *forked->recurrent();
  EXPECT_EQ(budget->in_use(), in_use) << "a fork copies only pointers";
  EXPECT_EQ(fork.snapshot(50), trunk.snapshot(50));
  EXPECT_EQ(fork.bytes(), trunk.bytes()) << "shared bytes are included";
  Int64List others = ids;
  read(fork, others, ids_from(900, 30));
  read(trunk, ids, ids_from(700, 5));
  ASSERT_NO_FATAL_FAILURE(expect_numbers(fork, others));
  ASSERT_NO_FATAL_FAILURE(expect_numbers(trunk, ids));
  fork.truncate(20);
  fork.keep_checkpoints({});
  others.resize(20);
  ASSERT_NO_FATAL_FAILURE(expect_numbers(fork, others));
  for (const int64_t at : {20, 50, 100}) ASSERT_NO_FATAL_FAILURE(expect_numbers(trunk, ids, at));
  read(fork, others, ids_from(20, 3));  // must not write to states of the trunk
  ASSERT_NO_FATAL_FAILURE(expect_numbers(fork, others));
  for (const int64_t at : {20, 50, 100}) ASSERT_NO_FATAL_FAILURE(expect_numbers(trunk, ids, at));
}

TEST(RecurrentState, AcceptsAnyPrefixOfAChain) {
  for (int accepted = 0; accepted <= 8; ++accepted) {
    RecurrentState state = empty();
    Int64List ids;
    read(state, ids, ids_from(0, 40));
    for (int round = 0; round < 3; ++round) {
      const Int64List drafted = ids_from(1000 * (round + 1), 8);
      open_draft(state, drafted);
      EXPECT_EQ(state.stops().size(), 8u) << "one state per token";
      EXPECT_EQ(state.tokens(), std::ssize(ids));
      state.accept(accepted);
      ids.insert(ids.end(), drafted.begin(), drafted.begin() + accepted);
      ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
      EXPECT_TRUE(state.stops().empty());
      for (int64_t at = 40; at <= std::ssize(ids); ++at) {
        EXPECT_EQ(state.floor(at), at);
        ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids, at));
      }
    }
    read(state, ids, ids_from(7000, 5));
    ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
  }
}

TEST(RecurrentState, AnAbandonedDraftChangesNothing) {
  RecurrentState state = empty();
  Int64List ids;
  read(state, ids, ids_from(0, 40), {16});
  open_draft(state, ids_from(1000, 64));
  state.truncate(40);
  EXPECT_EQ(state.checkpoints(), (Int64List{16}));
  EXPECT_EQ(state.bytes(), 2 * state.state_bytes());
  ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
}

TEST(RecurrentState, IsChargedToTheBudget) {
  const RecurrentState any = empty();
  const auto budget = std::make_shared<MemoryBudget>(5 * any.state_bytes());
  {
    RecurrentState state = empty(budget);
    Int64List ids;
    read(state, ids, ids_from(0, 100), {20, 50});
    EXPECT_EQ(budget->in_use(), 3 * any.state_bytes());
    EXPECT_THROW(open(state, {5, 10, 15}), Error) << "needs three states, two are free";
    state.truncate(100);
    EXPECT_EQ(budget->in_use(), 3 * any.state_bytes()) << "opened states are released";
    ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
    EXPECT_EQ(state.checkpoints(), (Int64List{20, 50}));
    read(state, ids, ids_from(100, 10), {5});
    EXPECT_EQ(budget->in_use(), 5 * any.state_bytes());
    state.keep_checkpoints({});
    EXPECT_LE(budget->in_use(), 2 * any.state_bytes()) << "one state is kept for reuse";
  }
  EXPECT_EQ(budget->in_use(), 0u);
}

TEST(RecurrentState, DecodingUsesTwoStates) {
  const auto budget = std::make_shared<MemoryBudget>();
  RecurrentState state = empty(budget);
  Int64List ids;
  size_t in_use = 0;
  for (int64_t i = 0; i < 100; ++i) {
    read(state, ids, {i});
    state.keep_checkpoints({});
    EXPECT_LE(budget->in_use(), 2 * state.state_bytes());
    if (i == 10) in_use = budget->in_use();
    if (i > 10) {
      EXPECT_EQ(budget->in_use(), in_use);
    }
  }
  ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
}

TEST(RecurrentState, OpeningWithoutMemoryCanBeUndone) {
  RecurrentState state = empty();
  Int64List ids;
  read(state, ids, ids_from(0, 100), {20});
  test::with_each_failing_allocation(
      [&] {
        open(state, {3, 6, 9});
      },
      [&] {
        state.truncate(100);
        ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids));
        EXPECT_EQ(state.checkpoints(), (Int64List{20}));
      });
  write_numbers(state, ids_from(100, 9));
  {
    const test::AllocationLimit limit(0);
    state.commit();  // allocates nothing
  }
  ASSERT_NO_FATAL_FAILURE(expect_numbers(state, ids_from(0, 109)));
  EXPECT_EQ(state.checkpoints(), (Int64List{20, 100, 103, 106}));
}

TEST(RecurrentState, RestoreReplacesTheStateByASnapshot) {
  RecurrentState written = empty(), other = empty();
  Int64List ids, others;
  read(written, ids, ids_from(0, 128), {64});
  read(other, others, ids_from(5000, 30), {10});
  other.restore(64, written.snapshot(64));
  EXPECT_TRUE(other.checkpoints().empty() || other.checkpoints().back() < 64);
  others = ids_from(0, 64);
  ASSERT_NO_FATAL_FAILURE(expect_numbers(other, others));
  read(other, others, ids_from(900, 10));
  ASSERT_NO_FATAL_FAILURE(expect_numbers(other, others));
  ASSERT_NO_FATAL_FAILURE(expect_numbers(written, ids, 64));
  other.restore(0, nullptr);
  EXPECT_EQ(other.tokens(), 0);
  EXPECT_EQ(other.floor(100), 0);
}

TEST(RecurrentState, FillRepeatsTheNumbers) {
  RecurrentState state = empty();
  open(state, {5, 10});
  const std::vector<float> noise = {1, 2, 3};
  state.fill(noise);
  state.commit();
  for (const int64_t at : {5, 10})
    for (int64_t i = 0; i < number_layout()->floats(); ++i) EXPECT_EQ(state.snapshot(at)->floats[i], noise[i % 3]);
}

/// Returns the number of tokens that a rewind of n tokens from `end` re-reads.
int64_t reread_tokens(const Int64List& kept, int64_t end, int64_t n) {
  const int64_t target = end - n;
  int64_t floor = 0;
  for (const int64_t at : kept)
    if (at <= target) floor = at;
  return target - floor;
}

void expect_bound(const Int64List& kept, int64_t end, int64_t spacing) {
  for (int64_t n = 1; n <= std::min<int64_t>(end, 4096); ++n)
    ASSERT_LE(reread_tokens(kept, end, n), std::max(spacing, n)) << "a rewind of " << n << " from " << end;
}

TEST(NeededCheckpoints, AreASufficientSubsetOfTheCandidates) {
  EXPECT_TRUE(needed_checkpoints({}, 100, 64).empty());
  EXPECT_TRUE(needed_checkpoints(Int64List{10, 20, 30}, 60, 64).empty()) << "the state after 0 tokens suffices";
  EXPECT_EQ(needed_checkpoints(Int64List{64}, 128, 64), (Int64List{64}));
  EXPECT_EQ(needed_checkpoints(Int64List{1, 2, 3, 64, 65, 66, 126}, 127, 64).size(), 1u);
  std::mt19937 random(test::seed(1));
  for (int round = 0; round < 200; ++round) {
    Int64List candidates;
    for (int64_t at = 1; at < 3000; at += 1 + static_cast<int64_t>(random() % 64)) candidates.push_back(at);
    const int64_t end = candidates.back() + 1 + static_cast<int64_t>(random() % 64);
    const Int64List kept = needed_checkpoints(candidates, end, 64);
    EXPECT_TRUE(std::ranges::is_sorted(kept));
    EXPECT_TRUE(std::ranges::includes(candidates, kept));
    ASSERT_NO_FATAL_FAILURE(expect_bound(kept, end, 64));
    EXPECT_EQ(needed_checkpoints(kept, end, 64), kept) << "all of them are needed";
  }
}

/// Returns random sizes of passes with `tokens` tokens in total: prompts and single generated tokens.
Int64List random_passes(std::mt19937& random, int64_t tokens) {
  Int64List passes;
  for (int64_t read = 0; read < tokens; read += passes.back()) {
    const int64_t most[] = {1, 1, 1, 8, 64, 512, 3000};
    passes.push_back(1 + static_cast<int64_t>(random()) % most[random() % 7]);
  }
  return passes;
}

TEST(NeededCheckpoints, BoundTheRereadTokensForRandomPasses) {
  std::mt19937 random(test::seed(1));
  for (int round = 0; round < 30; ++round) {
    const int64_t spacing = round % 3 == 0 ? 16 : 64;
    Int64List kept;
    int64_t end = 0, passes = 0;
    for (const int64_t count : random_passes(random, round % 2 ? 3000 : 40000)) {
      const int64_t begin = end;
      end += count;
      Int64List candidates = kept;
      if (begin > 0) candidates.push_back(begin);
      for (int64_t at = (begin / spacing + 1) * spacing; at < end; at += spacing) candidates.push_back(at);
      kept = needed_checkpoints(candidates, end, spacing);
      ASSERT_TRUE(kept.empty() || kept.back() < end);
      ASSERT_LE(kept.size(), 30u) << "their number grows with the logarithm of the length";
      if (++passes % 7 == 0 || count > 500) {
        ASSERT_NO_FATAL_FAILURE(expect_bound(kept, end, spacing));
      }
    }
    ASSERT_NO_FATAL_FAILURE(expect_bound(kept, end, spacing));
  }
}

TEST(NeededCheckpoints, AreFewForAMillionTokens) {
  Int64List kept;
  for (int64_t end = 512; end <= 1 << 20; end += 512) {
    Int64List candidates = kept;
    if (end > 512) candidates.push_back(end - 512);
    for (int64_t at = end - 512 + 64; at < end; at += 64) candidates.push_back(at);
    kept = needed_checkpoints(candidates, end, 64);
  }
  EXPECT_LE(kept.size(), 40u);
  for (int64_t n = 1; n <= 1 << 20; n = n * 5 / 4 + 1)
    EXPECT_LE(reread_tokens(kept, 1 << 20, n), std::max<int64_t>(64, n));
}

}  // namespace
}  // namespace fathom
