// Random operations on the sequences of one pool under memory pressure, compared with lists of token ids.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <set>

#include "base/error.h"
#include "memory/page_pool.h"
#include "seed.h"
#include "token_pages.h"

namespace fathom {
namespace {

constexpr int kDim = 2, kValues = 14;  // pages of 4 KiB
constexpr size_t kBudget = size_t{64} << 20;
constexpr int kSequences = 200;

/// Returns the number of operations of the test.
int64_t steps() {
  if (const char* value = std::getenv("FATHOM_MODEL_STEPS")) return std::atoll(value);
#ifdef NDEBUG
  return 200'000;
#else
  return 50'000;
#endif
}

/// A sequence and its expected contents. Layers 0 and 1 have attention, layer 2 a recurrence.
struct PooledSequence {
  Sequence sequence;
  std::vector<int32_t> ids;       // of its tokens
  std::vector<int64_t> masked{};  // tokens, ascending
  // Tokens before this one may have sparse checkpoints, planned by another sequence or for a longer one. A rewind
  // to them may re-read more tokens.
  int64_t sparse = 0;
};

/// Applies random operations to sequences and to their expected contents.
class PoolModel {
 public:
  explicit PoolModel(uint64_t seed) : random_(seed), pool_(kBudget), prefixes_(pool_.prefixes(64)) {
    layout_ = std::make_shared<RecurrentLayout>();
    const_cast<RecurrentLayout&>(*layout_).tensors = {{"count", 1}, {"sum", 1}};
    rotations_ = std::make_shared<PositionRotations>(rotary_);
    while (sequences_.size() < kSequences) sequences_.push_back({make(), {}});
  }

  void step() {
    PooledSequence& pooled = sequences_[below(kSequences)];
    switch (below(16)) {
      case 0:
        return below(4) == 0 ? fork(pooled, sequences_[below(kSequences)]) : append(pooled, 1);
      case 1:
        return rewind(pooled, below(32) == 0 ? below(std::ssize(pooled.ids) + 1) : below(70));
      case 2:
        if (below(32) > 0) return;
        pooled = {make(), {}};
        return;
      case 3:
        return mask(pooled);
      case 4:
        return prefixes_.publish(pooled.sequence, 1);
      case 5:
        return below(32) == 0 ? restore(pooled) : append(pooled, 64);
      default:
        return append(pooled, 1 + below(below(16) == 0 ? 700 : 20));
    }
  }

  /// Checks one random token in each layer of a random sequence, and its recurrent state.
  void check_some() {
    const PooledSequence& pooled = sequences_[below(kSequences)];
    ASSERT_EQ(pooled.sequence.tokens(), std::ssize(pooled.ids));
    if (pooled.ids.empty()) return;
    check_token(pooled, below(std::ssize(pooled.ids)));
    check_recurrence(pooled);
  }
  /// Checks all sequences and the memory accounting.
  void check_all() {
    size_t expected = 0;
    std::set<PageId> pages;
    for (const PooledSequence& pooled : sequences_) {
      ASSERT_EQ(pooled.sequence.tokens(), std::ssize(pooled.ids));
      for (int64_t i = 0; i < std::ssize(pooled.ids); i += 1 + below(200))
        ASSERT_NO_FATAL_FAILURE(check_token(pooled, i));
      ASSERT_NO_FATAL_FAILURE(check_recurrence(pooled));
      for (int layer = 0; layer < 2; ++layer)
        for (const PageEntry& entry : pooled.sequence.kv(layer).table(0)) pages.insert(entry.page);
    }
    expected = pages.size() * store().shape().bytes();
    EXPECT_LE(expected, store().bytes_in_use()) << "the prefix index holds further pages";
    EXPECT_LE(pool_.budget()->in_use(), kBudget);
  }
  /// Destroys all sequences and prefixes, and expects that no memory is in use.
  void finish() {
    sequences_.clear();
    while (prefixes_.reclaim()) {
    }
    EXPECT_EQ(prefixes_.size(), 0);
    EXPECT_EQ(store().bytes_in_use(), 0);
    EXPECT_EQ(pool_.budget()->in_use(), 0) << "memory leaked";
  }
  int64_t exhausted() const { return exhausted_; }
  int64_t restored() const { return restored_; }

 private:
  int64_t below(int64_t n) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(std::max<int64_t>(n, 1)));
  }
  PageStore& store() { return *pool_.store({PageFormat::kF32, kDim, kValues}); }

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

  /// Reads tokens and returns true. If memory is exhausted, expects an unchanged sequence and returns false.
  bool read(Sequence& sequence, std::span<const int32_t> ids) {
    const int64_t before = sequence.tokens();
    try {
      sequence.open(test::following(sequence.next_position(), std::ssize(ids)), ids);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kOutOfMemory) << error.what();
      EXPECT_EQ(sequence.tokens(), before);
      ++exhausted_;
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

  void append(PooledSequence& pooled, int64_t count) {
    if (std::ssize(pooled.ids) > 20'000) return;
    std::vector<int32_t> ids;
    // only two different tokens at first, so that sequences share prefixes
    for (int64_t i = 0; i < count; ++i)
      ids.push_back(static_cast<int32_t>(below(std::ssize(pooled.ids) + i < 256 ? 2 : 10'000)));
    if (read(pooled.sequence, ids)) {
      pooled.ids.insert(pooled.ids.end(), ids.begin(), ids.end());
    } else {
      sequences_[below(kSequences)] = {make(), {}};
    }
  }
  void fork(const PooledSequence& from, PooledSequence& to) {
    if (&from == &to) return;
    to = {from.sequence.fork(), from.ids, from.masked, from.sparse};
  }
  void rewind(PooledSequence& pooled, int64_t n) {
    const int64_t kept = std::max<int64_t>(0, std::ssize(pooled.ids) - n), floor = pooled.sequence.floor(kept);
    if (n <= 4096 && n <= std::ssize(pooled.ids) && kept >= pooled.sparse) {
      EXPECT_LE(kept - floor, std::max<int64_t>(64, n))
          << "of " << pooled.ids.size() << " tokens, rewound by " << n;
    }
    pooled.sequence.truncate(floor);
    pooled.sparse = std::max(pooled.sparse, floor);
    const std::vector<int32_t> reread(pooled.ids.begin() + floor, pooled.ids.begin() + kept);
    pooled.ids.resize(floor);
    std::erase_if(pooled.masked, [&](int64_t token) { return token >= floor; });
    if (!reread.empty() && read(pooled.sequence, reread))
      pooled.ids.insert(pooled.ids.end(), reread.begin(), reread.end());
  }
  void mask(PooledSequence& pooled) {
    if (below(8) > 0 || pooled.ids.empty()) return;
    const int64_t begin = below(std::ssize(pooled.ids)),
                  end = std::min<int64_t>(begin + below(100), std::ssize(pooled.ids));
    pooled.sequence.mask(begin, end);
    for (int64_t i = begin; i < end; ++i)
      if (!std::ranges::binary_search(pooled.masked, i))
        pooled.masked.insert(std::ranges::upper_bound(pooled.masked, i), i);
  }
  void restore(PooledSequence& pooled) {
    const std::vector<int32_t> ids = sequences_[below(kSequences)].ids;
    pooled = {make(), {}};
    const int64_t count = prefixes_.restore(pooled.sequence, ids, 1);
    restored_ += count;
    pooled.sparse = count;
    pooled.ids.assign(ids.begin(), ids.begin() + count);
  }

  void check_token(const PooledSequence& pooled, int64_t i) {
    const auto id = static_cast<float>(pooled.ids[i]);
    ASSERT_EQ(pooled.sequence.ids()[i], pooled.ids[i]);
    for (int layer = 0; layer < 2; ++layer) {
      const PagedKv& kv = pooled.sequence.kv(layer);
      const PageTable& table = kv.table(0);
      ASSERT_EQ(table[i / kPageTokens].first, i / kPageTokens * kPageTokens);
      const PageEntry& entry = table[i / kPageTokens];
      const auto at = static_cast<int>(i % kPageTokens);
      ASSERT_EQ(page_value(PageFormat::kF32, kValues, kv.store().values(entry.page), at, 0), id) << "token " << i;
      ASSERT_EQ(page_value(PageFormat::kF32, kValues, kv.store().values(entry.page), at, 1), -id) << "token " << i;
      float key[kDim];
      read_key(PageFormat::kF32, kDim, kv.store().keys(entry.page), at, key);
      ASSERT_NEAR(std::hypot(key[0], key[1]), std::hypot(id, 1.0f), 1e-3 + 1e-6 * id);
      ASSERT_EQ(entry.mask >> at & 1, std::ranges::binary_search(pooled.masked, i) ? 0 : 1) << "token " << i;
    }
  }
  void check_recurrence(const PooledSequence& pooled) {
    const auto state = pooled.sequence.recurrent(2)->snapshot(std::ssize(pooled.ids));
    if (pooled.ids.empty()) {
      ASSERT_EQ(state, nullptr);
      return;
    }
    float sum = 0;
    for (const int32_t id : pooled.ids) sum = next_sum(sum, id);
    ASSERT_EQ(state->floats[layout_->offset(0)], static_cast<float>(pooled.ids.size()));
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
  std::vector<PooledSequence> sequences_;
  int64_t exhausted_ = 0, restored_ = 0;
};

TEST(PoolModel, RandomOperationsUnderMemoryPressureMatchLists) {
  PoolModel model(test::seed(0));
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
    EXPECT_GT(model.exhausted(), 0) << "the pool was never full, so memory pressure was not tested";
    EXPECT_GT(model.restored(), 0);
  }
  model.finish();
}

}  // namespace
}  // namespace fathom
