// Sequences of one pool under memory pressure, against lists of token ids.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <set>

#include "base/error.h"
#include "memory/page_pool.h"
#include "token_pages.h"
#include "seed.h"

namespace fathom {
namespace {

constexpr int kDim = 2, kValues = 14;  // pages of 4 KiB
constexpr size_t kBudget = size_t{64} << 20;
constexpr int kSequences = 200;

int64_t steps() {
  if (const char* given = std::getenv("FATHOM_MODEL_STEPS")) return std::atoll(given);
#ifdef NDEBUG
  return 200'000;
#else
  return 50'000;
#endif
}

/// One sequence and what it must hold: attention in two layers, a recurrence in the third.
struct Pair {
  Sequence sequence;
  std::vector<int32_t> ids;       // of its tokens
  std::vector<int64_t> masked{};  // tokens, ascending
  // First tokens whose checkpoints were chosen by others, or for a longer sequence: a rewind to them may read more.
  int64_t sparse = 0;
};

class PoolModel {
 public:
  explicit PoolModel(uint64_t seed) : random_(seed), pool_(kBudget), prefixes_(pool_.prefixes(64)) {
    layout_ = std::make_shared<RecurrentLayout>();
    const_cast<RecurrentLayout&>(*layout_).tensors = {{"count", 1}, {"sum", 1}};
    rotations_ = std::make_shared<PositionRotations>(rotary_);
    while (pairs_.size() < kSequences) pairs_.push_back({make(), {}});
  }

  void step() {
    Pair& pair = pairs_[below(kSequences)];
    switch (below(16)) {
      case 0:
        return below(4) == 0 ? fork(pair, pairs_[below(kSequences)]) : append(pair, 1);
      case 1:
        return rewind(pair, below(32) == 0 ? below(std::ssize(pair.ids) + 1) : below(70));
      case 2:
        if (below(32) > 0) return;
        pair = {make(), {}};
        return;
      case 3:
        return mask(pair);
      case 4:
        return prefixes_.publish(pair.sequence, 1);
      case 5:
        return below(32) == 0 ? restore(pair) : append(pair, 64);
      default:
        return append(pair, 1 + below(below(16) == 0 ? 700 : 20));
    }
  }

  /// A token of each layer of one sequence, and its recurrent state.
  void check_some() {
    const Pair& pair = pairs_[below(kSequences)];
    ASSERT_EQ(pair.sequence.tokens(), std::ssize(pair.ids));
    if (pair.ids.empty()) return;
    check_token(pair, below(std::ssize(pair.ids)));
    check_recurrence(pair);
  }
  void check_all() {
    size_t expected = 0;
    std::set<PageId> pages;
    for (const Pair& pair : pairs_) {
      ASSERT_EQ(pair.sequence.tokens(), std::ssize(pair.ids));
      for (int64_t i = 0; i < std::ssize(pair.ids); i += 1 + below(200))
        ASSERT_NO_FATAL_FAILURE(check_token(pair, i));
      ASSERT_NO_FATAL_FAILURE(check_recurrence(pair));
      for (int layer = 0; layer < 2; ++layer)
        for (const PageEntry& entry : pair.sequence.kv(layer).table(0)) pages.insert(entry.page);
    }
    expected = pages.size() * pair_store().shape().bytes();
    EXPECT_LE(expected, pair_store().bytes_in_use()) << "the index holds some besides";
    EXPECT_LE(pool_.budget()->in_use(), kBudget);
  }
  /// All die: nothing may be left.
  void finish() {
    pairs_.clear();
    while (prefixes_.reclaim()) {
    }
    EXPECT_EQ(prefixes_.size(), 0);
    EXPECT_EQ(pair_store().bytes_in_use(), 0);
    EXPECT_EQ(pool_.budget()->in_use(), 0) << "leaked";
  }
  int64_t refused() const { return refused_; }
  int64_t restored() const { return restored_; }

 private:
  int64_t below(int64_t n) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(std::max<int64_t>(n, 1)));
  }
  PageStore& pair_store() { return *pool_.store({PageFormat::kF32, kDim, kValues}); }

  Sequence make() {
    std::vector<std::unique_ptr<LayerState>> layers;
    for (int i = 0; i < 2; ++i) {
      PagedKvConfig config;
      config.store = pool_.store({PageFormat::kF32, kDim, kValues});
      config.rotations = rotations_;
      layers.push_back(std::make_unique<PagedKv>(config));
    }
    layers.push_back(std::make_unique<RecurrentState>(layout_, pool_.budget()));
    return Sequence(std::move(layers), {.budget = checkpoints_});
  }

  /// Reads tokens; where memory is exhausted the sequence must be as it was, and another dies.
  bool read(Sequence& sequence, std::span<const int32_t> ids) {
    const int64_t before = sequence.tokens();
    try {
      sequence.open(test::following(sequence.next_position(), std::ssize(ids)), ids);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kOutOfMemory) << error.what();
      EXPECT_EQ(sequence.tokens(), before);
      ++refused_;
      return false;
    }
    std::vector<float> keys, values;
    for (const int32_t id : ids) {
      keys.insert(keys.end(), {static_cast<float>(id), 1});
      values.insert(values.end(), {static_cast<float>(id), static_cast<float>(-id)});
      values.resize(values.size() + kValues - 2);
    }
    for (int layer = 0; layer < 2; ++layer)
      sequence.kv(layer).write(kernels(), 0, std::ssize(ids), keys.data(), kDim, values.data(), kValues);
    RecurrentState& state = *sequence.recurrent(2);
    int64_t row = 0;
    for (size_t s = 0; s < state.stops().size(); ++s) {
      float count = state.before(s, 0) ? *state.before(s, 0) : 0,
            sum = state.before(s, 1) ? *state.before(s, 1) : 0;
      for (; row < state.stops()[s]; ++row) {
        ++count;
        sum = next_sum(sum, ids[row]);
      }
      *state.after(s, 0) = count;
      *state.after(s, 1) = sum;
    }
    sequence.commit();
    return true;
  }
  static float next_sum(float sum, int32_t id) {
    return static_cast<float>((static_cast<int64_t>(sum) * 31 + id) % 65521);
  }

  void append(Pair& pair, int64_t count) {
    if (std::ssize(pair.ids) > 20'000) return;
    std::vector<int32_t> ids;
    // few different tokens at first, so that sequences begin alike
    for (int64_t i = 0; i < count; ++i)
      ids.push_back(static_cast<int32_t>(below(std::ssize(pair.ids) + i < 256 ? 2 : 10'000)));
    if (read(pair.sequence, ids)) {
      pair.ids.insert(pair.ids.end(), ids.begin(), ids.end());
    } else {
      pairs_[below(kSequences)] = {make(), {}};
    }
  }
  void fork(const Pair& from, Pair& to) {
    if (&from == &to) return;
    to = {from.sequence.fork(), from.ids, from.masked, from.sparse};
  }
  void rewind(Pair& pair, int64_t n) {
    const int64_t kept = std::max<int64_t>(0, std::ssize(pair.ids) - n), floor = pair.sequence.floor(kept);
    if (n <= 4096 && n <= std::ssize(pair.ids) && kept >= pair.sparse) {
      EXPECT_LE(kept - floor, std::max<int64_t>(64, n)) << "of " << pair.ids.size() << " tokens, back " << n;
    }
    pair.sequence.truncate(floor);
    pair.sparse = std::max(pair.sparse, floor);
    const std::vector<int32_t> again(pair.ids.begin() + floor, pair.ids.begin() + kept);
    pair.ids.resize(floor);
    std::erase_if(pair.masked, [&](int64_t token) { return token >= floor; });
    if (!again.empty() && read(pair.sequence, again)) pair.ids.insert(pair.ids.end(), again.begin(), again.end());
  }
  void mask(Pair& pair) {
    if (below(8) > 0 || pair.ids.empty()) return;
    const int64_t begin = below(std::ssize(pair.ids)),
                  end = std::min<int64_t>(begin + below(100), std::ssize(pair.ids));
    pair.sequence.mask(begin, end);
    for (int64_t i = begin; i < end; ++i)
      if (!std::ranges::binary_search(pair.masked, i))
        pair.masked.insert(std::ranges::upper_bound(pair.masked, i), i);
  }
  void restore(Pair& pair) {
    const std::vector<int32_t> ids = pairs_[below(kSequences)].ids;
    pair = {make(), {}};
    const int64_t count = prefixes_.restore(pair.sequence, ids, 1);
    restored_ += count;
    pair.sparse = count;
    pair.ids.assign(ids.begin(), ids.begin() + count);
  }

  void check_token(const Pair& pair, int64_t i) {
    const auto id = static_cast<float>(pair.ids[i]);
    ASSERT_EQ(pair.sequence.ids()[i], pair.ids[i]);
    for (int layer = 0; layer < 2; ++layer) {
      const PagedKv& kv = pair.sequence.kv(layer);
      const PageTable& table = kv.table(0);
      ASSERT_EQ(table[i / kPageTokens].first, i / kPageTokens * kPageTokens);
      const PageEntry& entry = table[i / kPageTokens];
      const auto at = static_cast<int>(i % kPageTokens);
      ASSERT_EQ(page_value(PageFormat::kF32, kValues, kv.store().values(entry.page), at, 0), id) << "token " << i;
      ASSERT_EQ(page_value(PageFormat::kF32, kValues, kv.store().values(entry.page), at, 1), -id) << "token " << i;
      float key[kDim];
      read_key(PageFormat::kF32, kDim, kv.store().keys(entry.page), at, key);
      ASSERT_NEAR(std::hypot(key[0], key[1]), std::hypot(id, 1.0f), 1e-3 + 1e-6 * id);
      ASSERT_EQ(entry.mask >> at & 1, std::ranges::binary_search(pair.masked, i) ? 0 : 1) << "token " << i;
    }
  }
  void check_recurrence(const Pair& pair) {
    const auto state = pair.sequence.recurrent(2)->snapshot(std::ssize(pair.ids));
    if (pair.ids.empty()) {
      ASSERT_EQ(state, nullptr);
      return;
    }
    float sum = 0;
    for (const int32_t id : pair.ids) sum = next_sum(sum, id);
    ASSERT_EQ(state->floats[layout_->offset(0)], static_cast<float>(pair.ids.size()));
    ASSERT_EQ(state->floats[layout_->offset(1)], sum);
  }

  std::mt19937_64 random_;
  Rotary rotary_ = Rotary(
      [] {
        RotaryConfig config;
        config.dims = kDim;
        return config;
      }(),
      1 << 20);
  std::shared_ptr<PositionRotations> rotations_;
  std::shared_ptr<const RecurrentLayout> layout_;
  std::shared_ptr<MemoryBudget> checkpoints_ = std::make_shared<MemoryBudget>(size_t{1} << 30, "--checkpoints");
  PagePool pool_;
  PrefixIndex& prefixes_;
  std::vector<Pair> pairs_;
  int64_t refused_ = 0, restored_ = 0;
};

TEST(PoolModel, ForksRewindsDeathsAndPressureLoseNothing) {
  const auto seed = test::seed(0);
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  PoolModel model(seed);
  for (int64_t i = 0; i < steps(); ++i) {
    model.step();
    if (i % 64 == 0) {
      ASSERT_NO_FATAL_FAILURE(model.check_some()) << "step " << i;
    }
    if (i % 100'000 == 99'999) {
      ASSERT_NO_FATAL_FAILURE(model.check_all()) << "step " << i;
    }
    ASSERT_FALSE(testing::Test::HasFailure()) << "step " << i;
  }
  ASSERT_NO_FATAL_FAILURE(model.check_all());
  if (steps() >= 1'000'000) {
    EXPECT_GT(model.refused(), 0) << "the pool was never full: this tests no pressure";
    EXPECT_GT(model.restored(), 0);
  }
  model.finish();
}

}  // namespace
}  // namespace fathom
