// Properties that all mixers share.
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

/// The tested mixers. kPlain…: without optional biases and norms.
enum class MixerKind { kAttention, kWindow, kMamba, kPlainMamba, kMamba2, kPlainMamba2, kCombined };
bool has_pages(MixerKind kind) {
  return kind == MixerKind::kAttention || kind == MixerKind::kWindow || kind == MixerKind::kCombined;
}
bool is_recurrent(MixerKind kind) { return kind != MixerKind::kAttention && kind != MixerKind::kWindow; }

/// Creates and owns random float32 weights.
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
  /// Returns random decays, ≤ 0.
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

/// The numbers of channels, states and ranks are not multiples of vector or block sizes.
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

/// The sum of two mixers that read the same rows, as in layers with two branches.
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

using FloatList = std::vector<float>;

/// A mixer and sequences of one layer.
class MixerLaws : public testing::TestWithParam<MixerKind> {
 protected:
  MixerLaws() {
    const MixerKind kind = GetParam();
    if (kind == MixerKind::kAttention || kind == MixerKind::kWindow) {
      attention_ = attention_weights(random_, kind == MixerKind::kWindow ? 17 : 0);
      scalar_ = test::scalar_attention(attention_, rotary_);
      mixer_ = std::make_unique<AttentionMixer>(std::move(attention_));
    } else if (kind == MixerKind::kMamba || kind == MixerKind::kPlainMamba) {
      MambaWeights w = mamba_weights(random_);
      if (kind == MixerKind::kPlainMamba) w.conv.bias = w.time_norm = w.b_norm = w.c_norm = {};
      scalar_ = test::scalar_mamba(w);
      mixer_ = std::make_unique<MambaMixer>(std::move(w));
    } else if (kind == MixerKind::kMamba2 || kind == MixerKind::kPlainMamba2) {
      Mamba2Weights w = mamba2_weights(random_);
      if (kind == MixerKind::kPlainMamba2) w.conv.bias = w.norm = {};
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

  FloatList inputs(int64_t rows) { return random_.vector(rows * kWidth, 1); }
  static std::span<const float> part(const FloatList& x, int64_t begin, int64_t end) {
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
    bool draft = false;
  };
  /// Runs one pass over rows of several sequences. Returns the outputs, [total rows, kWidth].
  FloatList read(std::span<const Part> parts, Workspace& work) const {
    std::vector<SequenceRows> sequences;
    std::deque<std::vector<int64_t>> positions;
    ActivationBuffer x;
    int64_t total = 0;
    for (const Part& part : parts) total += std::ssize(part.x) / kWidth;
    x.resize(total, kWidth, parts[0].draft ? total : 0);
    total = 0;
    for (const Part& part : parts) {
      const int64_t rows = std::ssize(part.x) / kWidth;
      std::vector<int64_t>& own = positions.emplace_back(rows);
      std::iota(own.begin(), own.end(), part.sequence->next_position());
      part.sequence->open(own, {}, part.draft);
      if (PagedKv* kv = part.sequence->paged(0)) kv->reserve_rotations(own.back() + 1);
      std::ranges::copy(part.x, x.row(total));
      SequenceRows& s = sequences.emplace_back();
      s.sequence = part.sequence;
      s.policy.selector = dense_.get();
      s.first_row = total;
      s.rows = rows;
      s.positions = own.data();
      s.draft = part.draft;
      total += rows;
    }
    FloatList y(total * kWidth);
    mixer_->forward(work, sequences, x, y.data());
    for (const Part& part : parts)
      if (!part.draft) part.sequence->commit();
    return y;
  }
  FloatList read(Sequence& sequence, std::span<const float> x) {
    const Part all[] = {{&sequence, x}};
    return read(all, work_);
  }
  FloatList read_one_by_one(Sequence& sequence, std::span<const float> x) {
    FloatList y;
    for (size_t at = 0; at < x.size(); at += kWidth) {
      const FloatList row = read(sequence, x.subspan(at, kWidth));
      y.insert(y.end(), row.begin(), row.end());
    }
    return y;
  }

  /// Returns all tensors of a sequence's recurrent state after the newest token.
  static FloatList state_of(Sequence& sequence) {
    RecurrentState* state = sequence.recurrent(0);
    if (!state || state->tokens() == 0) return {};
    const auto snapshot = state->snapshot(state->tokens());
    FloatList all;
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

  RandomFloats random_{test::seed(0)};
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

// More than a page of keys and several blocks of a scan.
constexpr int64_t kTokens = 100;

TEST_P(MixerLaws, SplitsIntoCallsChangeOnlyRounding) {
  const FloatList x = inputs(kTokens);
  Sequence all = new_sequence();
  const FloatList expected = read(all, x);
  for (int64_t split = 1; split < kTokens; ++split) {
    Sequence sequence = new_sequence();
    FloatList found = read(sequence, part(x, 0, split));
    const FloatList rest = read(sequence, part(x, split, kTokens));
    found.insert(found.end(), rest.begin(), rest.end());
    SCOPED_TRACE("split at " + std::to_string(split));
    expect_near(expected, found, 1e-5f);
  }
}

TEST_P(MixerLaws, TokenByTokenEqualsOneCall) {
  const FloatList x = inputs(kTokens);
  Sequence all = new_sequence(), single = new_sequence();
  expect_near(read(all, x), read_one_by_one(single, x), 1e-5f);
  if (is_recurrent(GetParam())) expect_near(state_of(all), state_of(single), 1e-5f);
}

TEST_P(MixerLaws, LaterInputsDoNotChangeEarlierOutputs) {
  const FloatList x = inputs(kTokens);
  Sequence plain = new_sequence();
  const FloatList expected = read(plain, x);
  for (const int64_t changed : {0, 1, 8, 31, 32, 63, 64, 65, 99}) {
    FloatList other = x;
    for (int64_t i = 0; i < kWidth; ++i) other[changed * kWidth + i] += 1;
    Sequence sequence = new_sequence();
    const FloatList found = read(sequence, other);
    const int64_t before = changed * kWidth;
    EXPECT_TRUE(std::equal(found.begin(), found.begin() + before, expected.begin())) << changed;
    EXPECT_FALSE(std::equal(found.begin() + before, found.begin() + before + kWidth, expected.begin() + before));
  }
}

TEST_P(MixerLaws, OnlyKeysAndValuesGrowWithTheLength) {
  constexpr int64_t kChunk = 1000;
  Sequence sequence = new_sequence(int64_t{1} << 40);  // without checkpoints
  const FloatList x = inputs(kChunk);
  read(sequence, part(x, 0, 1));
  const auto bytes_of = [](const LayerState* state) { return state ? state->bytes() : 0; };
  const size_t recurrent = bytes_of(sequence.recurrent(0)), paged = bytes_of(sequence.paged(0));
  const int chunks = has_pages(GetParam()) ? 2 : 100;  // attention over 100,000 tokens would be slow
  for (int i = 0; i < chunks; ++i) read(sequence, x);
  EXPECT_EQ(recurrent > 0, is_recurrent(GetParam()));
  EXPECT_EQ(bytes_of(sequence.recurrent(0)), recurrent);
  EXPECT_EQ(bytes_of(sequence.paged(0)) > paged, has_pages(GetParam()));
  for (const float v : state_of(sequence)) ASSERT_TRUE(std::isfinite(v));
}

TEST_P(MixerLaws, OutputsEqualTheReference) {
  for (const int64_t tokens : {1, 2, 9, 33, 64}) {
    const FloatList x = inputs(tokens);
    Rows64 rows(tokens);
    for (int64_t t = 0; t < tokens; ++t) rows[t].assign(x.begin() + t * kWidth, x.begin() + (t + 1) * kWidth);
    FloatList expected;
    for (const std::vector<double>& row : scalar_(rows)) expected.insert(expected.end(), row.begin(), row.end());
    for (const std::string& isa : available_isas()) {
      Workspace work(pool_, kernels(isa));
      Sequence sequence = new_sequence();
      const Part all[] = {{&sequence, x}};
      SCOPED_TRACE(isa + ", " + std::to_string(tokens) + " tokens");
      expect_near(expected, read(all, work), isa == "amx" ? 1e-4f : 1e-5f);  // AMX rounds to bfloat16 pairs
    }
  }
}

TEST_P(MixerLaws, SequencesOfABatchAreIndependent) {
  // numbers of rows that use the same matrix product in the batch and alone
  for (const auto& [a, b, history] : {std::tuple{1, 1, 40}, {3, 4, 7}, {20, 70, 33}, {100, 9, 1}}) {
    SCOPED_TRACE(testing::Message() << a << " and " << b << " rows");
    const FloatList first = inputs(history + a), second = inputs(b);
    Sequence alone[] = {new_sequence(), new_sequence()}, batched[] = {new_sequence(), new_sequence()};
    read(alone[0], part(first, 0, history));
    read(batched[0], part(first, 0, history));
    FloatList expected = read(alone[0], part(first, history, history + a));
    const FloatList rest = read(alone[1], second);
    expected.insert(expected.end(), rest.begin(), rest.end());
    const Part both[] = {{&batched[0], part(first, history, history + a)}, {&batched[1], second}};
    EXPECT_EQ(expected, read(both, work_));
    for (int i = 0; i < 2; ++i) EXPECT_EQ(state_of(alone[i]), state_of(batched[i]));
  }
}

TEST_P(MixerLaws, TruncationEqualsAShorterSequence) {
  constexpr int64_t kChunk = 75, kAll = 600;
  const FloatList x = inputs(kAll), next = inputs(11);
  Sequence sequence = new_sequence();
  for (int64_t at = 0; at < kAll; at += kChunk) read(sequence, part(x, at, at + kChunk));
  int64_t last = -1;
  for (const int64_t target : {0, 64, 300, 400, 500, 540, 575, 599, 600}) {
    const int64_t kept = sequence.floor(target);
    if (kept == last) continue;
    last = kept;
    SCOPED_TRACE("truncated to " + std::to_string(kept));
    Sequence truncated = sequence.fork(), stopped = new_sequence();
    truncated.truncate(kept);
    // few rows use another matrix product, so every chunk has at least 9 rows
    for (int64_t at = 0; at < kept; at += kChunk) read(stopped, part(x, at, std::min(at + kChunk, kept)));
    EXPECT_EQ(truncated.tokens(), kept);
    EXPECT_EQ(state_of(truncated), state_of(stopped));
    EXPECT_EQ(read(truncated, next), read(stopped, next));
    EXPECT_EQ(state_of(truncated), state_of(stopped));
  }
  EXPECT_GT(last, 0);
}

TEST_P(MixerLaws, ForksAreIndependent) {
  const FloatList x = inputs(50), left = inputs(30), right = inputs(20);
  Sequence trunk = new_sequence();
  read(trunk, x);
  Sequence fork = trunk.fork(), deep = fork.fork();
  const FloatList from_trunk = read(trunk, left), from_fork = read(fork, right);
  Sequence expected_left = new_sequence(), expected_right = new_sequence();
  read(expected_left, x);
  read(expected_right, x);
  EXPECT_EQ(from_trunk, read(expected_left, left));
  EXPECT_EQ(from_fork, read(expected_right, right));
  EXPECT_EQ(state_of(trunk), state_of(expected_left));
  EXPECT_EQ(state_of(fork), state_of(expected_right));
  EXPECT_EQ(read(deep, left), from_trunk) << "a fork does not contain tokens that others read";
}

TEST_P(MixerLaws, ThreadsDoNotChangeResults) {
  const FloatList x = inputs(kTokens), y = inputs(13), z = inputs(1);
  std::vector<FloatList> results;
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    Workspace work(pool, kernels());
    Sequence first = new_sequence(), second = new_sequence();
    const Part both[] = {{&first, x}, {&second, y}}, one[] = {{&second, z}};
    FloatList all = read(both, work);
    const FloatList step = read(one, work);
    all.insert(all.end(), step.begin(), step.end());
    for (Sequence* sequence : {&first, &second}) {
      const FloatList state = state_of(*sequence);
      all.insert(all.end(), state.begin(), state.end());
    }
    results.push_back(std::move(all));
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST_P(MixerLaws, AcceptedTokensEqualTokensReadOneByOne) {
  const FloatList x = inputs(37), draft = inputs(8), next = inputs(5);
  for (int accepted = 0; accepted <= 8; ++accepted) {
    SCOPED_TRACE(std::to_string(accepted) + " tokens accepted");
    Sequence drafted = new_sequence(), plain = new_sequence();
    read(drafted, x);
    read(plain, x);
    const Part open[] = {{&drafted, draft, true}};
    const FloatList of_draft = read(open, work_);
    drafted.accept(accepted);
    const FloatList expected = read_one_by_one(plain, part(draft, 0, accepted));
    EXPECT_TRUE(std::ranges::equal(expected, part(of_draft, 0, accepted)));
    EXPECT_EQ(drafted.tokens(), 37 + accepted);
    EXPECT_EQ(state_of(plain), state_of(drafted));
    EXPECT_EQ(read(plain, next), read(drafted, next));
  }
}

constexpr const char* kNames[] = {"Attention", "Window",      "Mamba",   "PlainMamba",
                                  "Mamba2",    "PlainMamba2", "Combined"};
INSTANTIATE_TEST_SUITE_P(Mixers, MixerLaws,
                         testing::Values(MixerKind::kAttention, MixerKind::kWindow, MixerKind::kMamba,
                                         MixerKind::kPlainMamba, MixerKind::kMamba2, MixerKind::kPlainMamba2,
                                         MixerKind::kCombined),
                         [](const auto& kind) { return std::string(kNames[static_cast<int>(kind.param)]); });

}  // namespace
}  // namespace fathom
