// The laws of all mixers, whatever their state is.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <numeric>
#include <random>

#include "attend/methods.h"
#include "mixers/attention_mixer.h"
#include "mixers/mamba2_mixer.h"
#include "mixers/mamba_mixer.h"
#include "scalar_mixers.h"
#include "seed.h"

namespace fathom {
namespace {

using test::Rows64;
using test::ScalarMixer;

constexpr int64_t kWidth = 48;

// "Plain": without what may be absent.
enum class Kind { kAttention, kWindow, kMamba, kPlainMamba, kMamba2, kPlainMamba2, kCombined };
bool has_pages(Kind kind) { return kind == Kind::kAttention || kind == Kind::kWindow || kind == Kind::kCombined; }
bool is_recurrent(Kind kind) { return kind != Kind::kAttention && kind != Kind::kWindow; }

/// Random float32 weights, which mixers point into.
class RandomFloats {
 public:
  explicit RandomFloats(uint32_t seed) : random_(seed) {}
  std::vector<float> vector(int64_t n, float deviation, float mean = 0) {
    std::vector<float> numbers(n);
    for (float& x : numbers) x = mean + deviation * normal_(random_);
    return numbers;
  }
  Matrix matrix(int64_t rows, int64_t cols) {
    owned_.push_back(vector(rows * cols, 1.5f / std::sqrt(static_cast<float>(cols))));
    return {WeightType::kF32, reinterpret_cast<const std::byte*>(owned_.back().data()), rows, cols};
  }
  ShortConv conv(int64_t channels) { return {channels, 4, vector(channels * 4, 0.5f), vector(channels, 0.3f)}; }
  /// Decays of a state, ≤ 0.
  std::vector<float> decays(int64_t n) {
    std::vector<float> a = vector(n, 0.7f);
    for (float& x : a) x = -std::exp(x);
    return a;
  }

 private:
  std::mt19937 random_;
  std::normal_distribution<float> normal_;
  std::deque<std::vector<float>> owned_;
};

AttentionWeights attention_weights(RandomFloats& random, int64_t window) {
  AttentionWeights w;
  w.heads = 4;
  w.kv_heads = 2;
  w.key_dim = w.value_dim = 16;
  w.window = window;
  w.scale = 0.25f;
  w.q = random.matrix(64, kWidth);
  w.k = random.matrix(32, kWidth);
  w.v = random.matrix(32, kWidth);
  w.out = random.matrix(kWidth, 64);
  return w;
}

/// Channels, states and ranks that are no multiples of vectors or of blocks.
MambaWeights mamba_weights(RandomFloats& random) {
  MambaWeights w;
  w.inner = 83;
  w.state = 13;
  w.rank = 5;
  w.in = random.matrix(2 * w.inner, kWidth);
  w.conv = random.conv(w.inner);
  w.select = random.matrix(w.rank + 2 * w.state, w.inner);
  w.time = random.matrix(w.inner, w.rank);
  w.time_bias = random.vector(w.inner, 0.5f, -2);
  w.a = random.decays(w.inner * w.state);
  w.d = random.vector(w.inner, 1);
  w.time_norm = random.vector(w.rank, 0.1f, 1);
  w.b_norm = random.vector(w.state, 0.1f, 1);
  w.c_norm = random.vector(w.state, 0.1f, 1);
  w.norm_eps = 1e-3f;
  w.out = random.matrix(kWidth, w.inner);
  return w;
}

Mamba2Weights mamba2_weights(RandomFloats& random) {
  Mamba2Weights w;
  w.heads = 6;
  w.groups = 2;
  w.inner = w.heads * 19;
  w.state = 21;
  const int64_t channels = w.inner + 2 * w.groups * w.state;
  w.in = random.matrix(w.inner + channels + w.heads, kWidth);
  w.conv = random.conv(channels);
  w.time_bias = random.vector(w.heads, 0.5f, -2);
  w.a = random.decays(w.heads);
  w.d = random.vector(w.heads, 1);
  w.norm = random.vector(w.inner, 0.1f, 1);
  w.norm_eps = 1e-3f;
  w.out = random.matrix(kWidth, w.inner);
  return w;
}

/// The sum of two mixers that read the same rows, as layers with several branches have it.
class SumMixer final : public Mixer {
 public:
  SumMixer(std::unique_ptr<Mixer> paged, std::unique_ptr<Mixer> recurrent)
      : paged_(std::move(paged)), recurrent_(std::move(recurrent)) {}
  std::unique_ptr<LayerState> new_state(const StateOptions& options) const override {
    return std::make_unique<CombinedState>(paged_->new_state(options), recurrent_->new_state(options));
  }
  void forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
               float* y) const override {
    std::vector<float> second(x.rows() * x.cols());
    paged_->forward(work, sequences, x, y);
    recurrent_->forward(work, sequences, x, second.data());
    for (size_t i = 0; i < second.size(); ++i) y[i] += second[i];
  }

 private:
  std::unique_ptr<Mixer> paged_, recurrent_;
};

using Numbers = std::vector<float>;

/// A mixer, and sequences in its one layer.
class Laws : public testing::TestWithParam<Kind> {
 protected:
  Laws() {
    const Kind kind = GetParam();
    if (kind == Kind::kAttention || kind == Kind::kWindow) {
      attention_ = attention_weights(random_, kind == Kind::kWindow ? 17 : 0);
      scalar_ = test::scalar_attention(attention_, rotary_);
      mixer_ = std::make_unique<AttentionMixer>(std::move(attention_));
    } else if (kind == Kind::kMamba || kind == Kind::kPlainMamba) {
      MambaWeights w = mamba_weights(random_);
      if (kind == Kind::kPlainMamba) w.conv.bias = w.time_norm = w.b_norm = w.c_norm = {};
      scalar_ = test::scalar_mamba(w);
      mixer_ = std::make_unique<MambaMixer>(std::move(w));
    } else if (kind == Kind::kMamba2 || kind == Kind::kPlainMamba2) {
      Mamba2Weights w = mamba2_weights(random_);
      if (kind == Kind::kPlainMamba2) w.conv.bias = w.norm = {};
      scalar_ = test::scalar_mamba2(w);
      mixer_ = std::make_unique<Mamba2Mixer>(std::move(w));
    } else {
      attention_ = attention_weights(random_, 0);
      Mamba2Weights w = mamba2_weights(random_);
      scalar_ = [a = test::scalar_attention(attention_, rotary_), b = test::scalar_mamba2(w)](const Rows64& x) {
        Rows64 sum = a(x);
        const Rows64 second = b(x);
        for (size_t t = 0; t < sum.size(); ++t)
          std::ranges::transform(sum[t], second[t], sum[t].begin(), std::plus<>());
        return sum;
      };
      mixer_ = std::make_unique<SumMixer>(std::make_unique<AttentionMixer>(std::move(attention_)),
                                          std::make_unique<Mamba2Mixer>(std::move(w)));
    }
  }

  static uint32_t seed() { return test::seed(0); }
  Numbers inputs(int64_t rows) { return random_.vector(rows * kWidth, 1); }
  static std::span<const float> part(const Numbers& x, int64_t begin, int64_t end) {
    return std::span(x).subspan(begin * kWidth, (end - begin) * kWidth);
  }

  Sequence new_sequence(int64_t spacing = 64) {
    const StateOptions::Rotations rotations[] = {{rotations_, 1}};
    const StateOptions options{pages_, PageFormat::kF32, kPageTokens, rotations};
    std::vector<std::unique_ptr<LayerState>> layers;
    layers.push_back(mixer_->new_state(options));
    CheckpointPolicy checkpoints;
    checkpoints.spacing = spacing;
    return Sequence(std::move(layers), checkpoints);
  }

  struct Part {
    Sequence* sequence;
    std::span<const float> x;  // [rows, kWidth]
    const DraftTree* draft = nullptr;
  };
  /// Reads rows of several sequences in one pass: [rows of all, kWidth].
  Numbers read(std::span<const Part> parts, Workspace& work) const {
    std::vector<SequenceRows> sequences;
    std::deque<std::vector<int64_t>> positions;
    ActivationBuffer x;
    int64_t total = 0;
    for (const Part& part : parts) total += std::ssize(part.x) / kWidth;
    x.resize(total, kWidth);
    total = 0;
    for (const Part& part : parts) {
      const int64_t rows = std::ssize(part.x) / kWidth;
      std::vector<int64_t>& own = positions.emplace_back(rows);
      std::iota(own.begin(), own.end(), part.sequence->next_position());
      if (part.draft) {
        part.sequence->open_draft(*part.draft, std::vector<int32_t>(rows, 0));
      } else {
        part.sequence->open(own);
      }
      if (PagedKv* kv = part.sequence->paged(0)) kv->reserve_rotations(own.back() + 1);
      std::ranges::copy(part.x, x.row(total));
      SequenceRows& s = sequences.emplace_back();
      s.sequence = part.sequence;
      s.policy.selector = dense_.get();
      s.first_row = total;
      s.rows = rows;
      s.positions = own.data();
      total += rows;
    }
    Numbers y(total * kWidth);
    mixer_->forward(work, sequences, x, y.data());
    for (const Part& part : parts)
      if (!part.draft) part.sequence->commit();
    return y;
  }
  Numbers read(Sequence& sequence, std::span<const float> x) {
    const Part all[] = {{&sequence, x}};
    return read(all, work_);
  }
  Numbers read_one_by_one(Sequence& sequence, std::span<const float> x) {
    Numbers y;
    for (size_t at = 0; at < x.size(); at += kWidth) {
      const Numbers row = read(sequence, x.subspan(at, kWidth));
      y.insert(y.end(), row.begin(), row.end());
    }
    return y;
  }

  /// All that a sequence's recurrence holds after its newest token.
  static Numbers state_of(Sequence& sequence) {
    RecurrentState* state = sequence.recurrent(0);
    if (!state || state->tokens() == 0) return {};
    const auto snapshot = state->snapshot(state->tokens());
    Numbers all;
    for (size_t i = 0; i < state->layout().tensors.size(); ++i) {
      const float* begin = snapshot->floats.data() + state->layout().offset(i);
      all.insert(all.end(), begin, begin + state->layout().tensors[i].size);
    }
    return all;
  }

  static void expect_near(std::span<const float> expected, std::span<const float> found, float relative) {
    ASSERT_EQ(expected.size(), found.size());
    float largest = 0;
    for (const float v : expected) largest = std::max(largest, std::fabs(v));
    ASSERT_GT(largest, 0);
    for (size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(expected[i], found[i], relative * largest) << "row " << i / kWidth << ", column " << i % kWidth;
  }

  testing::ScopedTrace trace_{__FILE__, __LINE__, "--gtest_random_seed=" + std::to_string(seed())};
  RandomFloats random_{seed()};
  static RotaryConfig rotary_config() {
    RotaryConfig config;
    config.dims = 16;
    return config;
  }
  Rotary rotary_{rotary_config(), 1 << 20};
  std::shared_ptr<PositionRotations> rotations_ = std::make_shared<PositionRotations>(rotary_);
  std::unique_ptr<Selector> dense_ = attend_methods().make("dense");
  PagePool pages_;
  ThreadPool pool_{2};
  Workspace work_{pool_, kernels()};
  AttentionWeights attention_;
  ScalarMixer scalar_;
  std::unique_ptr<Mixer> mixer_;
};

// Beyond two blocks of a scan and a page of keys.
constexpr int64_t kTokens = 100;

TEST_P(Laws, AnySplitIntoCallsGivesTheSame) {
  const Numbers x = inputs(kTokens);
  Sequence all = new_sequence();
  const Numbers expected = read(all, x);
  for (int64_t split = 1; split < kTokens; ++split) {
    Sequence sequence = new_sequence();
    Numbers found = read(sequence, part(x, 0, split));
    const Numbers rest = read(sequence, part(x, split, kTokens));
    found.insert(found.end(), rest.begin(), rest.end());
    SCOPED_TRACE("split at " + std::to_string(split));
    expect_near(expected, found, 1e-5f);
  }
}

TEST_P(Laws, TokenByTokenGivesTheSameAsAtOnce) {
  const Numbers x = inputs(kTokens);
  Sequence all = new_sequence(), single = new_sequence();
  expect_near(read(all, x), read_one_by_one(single, x), 1e-5f);
  if (is_recurrent(GetParam())) expect_near(state_of(all), state_of(single), 1e-5f);
}

TEST_P(Laws, LaterInputsDoNotChangeEarlierOutputs) {
  const Numbers x = inputs(kTokens);
  Sequence plain = new_sequence();
  const Numbers expected = read(plain, x);
  for (const int64_t changed : {0, 1, 8, 31, 32, 63, 64, 65, 99}) {
    Numbers other = x;
    for (int64_t i = 0; i < kWidth; ++i) other[changed * kWidth + i] += 1;
    Sequence sequence = new_sequence();
    const Numbers found = read(sequence, other);
    const int64_t before = changed * kWidth;
    EXPECT_TRUE(std::equal(found.begin(), found.begin() + before, expected.begin())) << changed;
    EXPECT_FALSE(std::equal(found.begin() + before, found.begin() + before + kWidth, expected.begin() + before));
  }
}

TEST_P(Laws, OnlyKeysAndValuesGrowWithTheTokens) {
  constexpr int64_t kChunk = 1000;
  Sequence sequence = new_sequence(int64_t{1} << 40);  // without checkpoints
  const Numbers x = inputs(kChunk);
  read(sequence, part(x, 0, 1));
  const auto bytes_of = [](const LayerState* state) { return state ? state->bytes() : 0; };
  const size_t recurrent = bytes_of(sequence.recurrent(0)), paged = bytes_of(sequence.paged(0));
  const int chunks = has_pages(GetParam()) ? 2 : 100;  // attention to 1e5 tokens would take long
  for (int i = 0; i < chunks; ++i) read(sequence, x);
  EXPECT_EQ(recurrent > 0, is_recurrent(GetParam()));
  EXPECT_EQ(bytes_of(sequence.recurrent(0)), recurrent);
  EXPECT_EQ(bytes_of(sequence.paged(0)) > paged, has_pages(GetParam()));
  for (const float v : state_of(sequence)) ASSERT_TRUE(std::isfinite(v));
}

TEST_P(Laws, OutputsAreThoseOfTheDefinition) {
  for (const int64_t tokens : {1, 2, 9, 33, 64}) {
    const Numbers x = inputs(tokens);
    Rows64 rows(tokens);
    for (int64_t t = 0; t < tokens; ++t) rows[t].assign(x.begin() + t * kWidth, x.begin() + (t + 1) * kWidth);
    Numbers expected;
    for (const std::vector<double>& row : scalar_(rows)) expected.insert(expected.end(), row.begin(), row.end());
    for (const std::string& isa : available_isas()) {
      Workspace work(pool_, kernels(isa));
      Sequence sequence = new_sequence();
      const Part all[] = {{&sequence, x}};
      SCOPED_TRACE(isa + ", " + std::to_string(tokens) + " tokens");
      expect_near(expected, read(all, work), 1e-5f);
    }
  }
}

TEST_P(Laws, SequencesOfABatchDoNotInfluenceEachOther) {
  // sums of rows that are multiplied in the same way as the rows alone
  for (const auto& [a, b, history] : {std::tuple{1, 1, 40}, {3, 4, 7}, {20, 70, 33}, {100, 9, 1}}) {
    SCOPED_TRACE(testing::Message() << a << " and " << b << " rows");
    const Numbers first = inputs(history + a), second = inputs(b);
    Sequence alone[] = {new_sequence(), new_sequence()}, compacted[] = {new_sequence(), new_sequence()};
    read(alone[0], part(first, 0, history));
    read(compacted[0], part(first, 0, history));
    Numbers expected = read(alone[0], part(first, history, history + a));
    const Numbers rest = read(alone[1], second);
    expected.insert(expected.end(), rest.begin(), rest.end());
    const Part both[] = {{&compacted[0], part(first, history, history + a)}, {&compacted[1], second}};
    EXPECT_EQ(expected, read(both, work_));
    for (int i = 0; i < 2; ++i) EXPECT_EQ(state_of(alone[i]), state_of(compacted[i]));
  }
}

TEST_P(Laws, ATruncatedSequenceIsOneThatStoppedThere) {
  constexpr int64_t kChunk = 75, kAll = 600;
  const Numbers x = inputs(kAll), next = inputs(11);
  Sequence sequence = new_sequence();
  for (int64_t at = 0; at < kAll; at += kChunk) read(sequence, part(x, at, at + kChunk));
  int64_t last = -1;
  for (const int64_t wanted : {0, 64, 300, 400, 500, 540, 575, 599, 600}) {
    const int64_t kept = sequence.floor(wanted);
    if (kept == last) continue;
    last = kept;
    SCOPED_TRACE("truncated to " + std::to_string(kept));
    Sequence truncated = sequence.fork(), stopped = new_sequence();
    truncated.truncate(kept);
    // products of few rows are others: so no chunk has less than 9
    for (int64_t at = 0; at < kept; at += kChunk) read(stopped, part(x, at, std::min(at + kChunk, kept)));
    EXPECT_EQ(truncated.tokens(), kept);
    EXPECT_EQ(state_of(truncated), state_of(stopped));
    EXPECT_EQ(read(truncated, next), read(stopped, next));
    EXPECT_EQ(state_of(truncated), state_of(stopped));
  }
  EXPECT_GT(last, 0);
}

TEST_P(Laws, ForksAreIndependent) {
  const Numbers x = inputs(50), left = inputs(30), right = inputs(20);
  Sequence trunk = new_sequence();
  read(trunk, x);
  Sequence fork = trunk.fork(), deep = fork.fork();
  const Numbers from_trunk = read(trunk, left), from_fork = read(fork, right);
  Sequence expected_left = new_sequence(), expected_right = new_sequence();
  read(expected_left, x);
  read(expected_right, x);
  EXPECT_EQ(from_trunk, read(expected_left, left));
  EXPECT_EQ(from_fork, read(expected_right, right));
  EXPECT_EQ(state_of(trunk), state_of(expected_left));
  EXPECT_EQ(state_of(fork), state_of(expected_right));
  EXPECT_EQ(read(deep, left), from_trunk) << "what the others read is not in a fork";
}

TEST_P(Laws, TheNumberOfThreadsDoesNotChangeABit) {
  const Numbers x = inputs(kTokens), y = inputs(13), z = inputs(1);
  std::vector<Numbers> results;
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    Workspace work(pool, kernels());
    Sequence first = new_sequence(), second = new_sequence();
    const Part both[] = {{&first, x}, {&second, y}}, one[] = {{&second, z}};
    Numbers all = read(both, work);
    const Numbers step = read(one, work);
    all.insert(all.end(), step.begin(), step.end());
    for (Sequence* sequence : {&first, &second}) {
      const Numbers state = state_of(*sequence);
      all.insert(all.end(), state.begin(), state.end());
    }
    results.push_back(std::move(all));
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST_P(Laws, AcceptedTokensOfADraftAreAsIfReadOneByOne) {
  const Numbers x = inputs(37), draft = inputs(8), next = inputs(5);
  const DraftTree chain = DraftTree::chain(8);
  for (int accepted = 0; accepted <= 8; ++accepted) {
    SCOPED_TRACE(std::to_string(accepted) + " tokens accepted");
    Sequence drafted = new_sequence(), plain = new_sequence();
    read(drafted, x);
    read(plain, x);
    const Part open[] = {{&drafted, draft, &chain}};
    const Numbers of_draft = read(open, work_);
    std::vector<int> path(accepted);
    std::iota(path.begin(), path.end(), 0);
    drafted.accept(path);
    const Numbers expected = read_one_by_one(plain, part(draft, 0, accepted));
    if (accepted > 0) expect_near(expected, part(of_draft, 0, accepted), 1e-5f);
    EXPECT_EQ(drafted.tokens(), 37 + accepted);
    EXPECT_EQ(state_of(plain), state_of(drafted));
    EXPECT_EQ(read(plain, next), read(drafted, next));
  }
}

constexpr const char* kNames[] = {"Attention", "Window",      "Mamba",   "PlainMamba",
                                  "Mamba2",    "PlainMamba2", "Combined"};
INSTANTIATE_TEST_SUITE_P(Mixers, Laws,
                         testing::Values(Kind::kAttention, Kind::kWindow, Kind::kMamba, Kind::kPlainMamba,
                                         Kind::kMamba2, Kind::kPlainMamba2, Kind::kCombined),
                         [](const auto& kind) { return std::string(kNames[static_cast<int>(kind.param)]); });

}  // namespace
}  // namespace fathom
