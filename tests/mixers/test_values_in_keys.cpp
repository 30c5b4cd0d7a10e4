// Attention whose values are dimensions of its keys (latent attention).
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <numeric>
#include <random>

#include "attend/methods.h"
#include "mixers/attention_mixer.h"
#include "seed.h"

namespace fathom {
namespace {

constexpr int64_t kWidth = 40;
constexpr int kHeads = 4, kKvHeads = 2, kKeyDim = 24, kValueDim = 16, kRotary = 8;

class ValuesInKeysMixer : public testing::Test {
 protected:
  ValuesInKeysMixer() : work_(pool_, kernels()), selector_(attend_methods().make("dense")) {
    RotaryConfig config;
    config.dims = kRotary;
    rotary_ = std::make_unique<Rotary>(config, 1024);
    rotations_ = {{std::make_shared<PositionRotations>(*rotary_), 1}};
  }
  Matrix random_matrix(int64_t rows, int64_t cols) {
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(cols)));
    std::vector<float>& numbers = owned_.emplace_back(rows * cols);
    for (float& x : numbers) x = normal(random_);
    return matrix_of(numbers, rows, cols);
  }
  static Matrix matrix_of(const std::vector<float>& numbers, int64_t rows, int64_t cols) {
    return {WeightType::kF32, reinterpret_cast<const std::byte*>(numbers.data()), rows, cols};
  }
  AttentionWeights weights() {
    AttentionWeights w;
    w.heads = kHeads;
    w.kv_heads = kKvHeads;
    w.key_dim = kKeyDim;
    w.value_dim = kValueDim;
    w.scale = 1 / std::sqrt(static_cast<float>(kKeyDim));
    w.q = q_;
    w.k = k_;
    w.out = out_;
    return w;
  }
  Sequence sequence(const AttentionMixer& mixer) {
    std::vector<std::unique_ptr<LayerState>> states;
    states.push_back(mixer.new_state({pages_, PageFormat::kF32, kPageTokens, rotations_}));
    return Sequence(std::move(states));
  }
  /// Reads x in calls of `chunk` rows. Returns the outputs, [rows, width].
  std::vector<float> read(const AttentionMixer& mixer, Sequence& sequence, const std::vector<float>& x,
                          int64_t chunk) {
    std::vector<float> all;
    const int64_t rows = std::ssize(x) / kWidth;
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t count = std::min(chunk, rows - begin);
      std::vector<int64_t> positions(count);
      std::iota(positions.begin(), positions.end(), begin);
      sequence.open(positions);
      sequence.kv(0).reserve_rotations(rows);
      ActivationBuffer input;
      input.resize(count, kWidth);
      std::copy_n(x.data() + begin * kWidth, count * kWidth, input.data());
      SequenceRows own;
      own.sequence = &sequence;
      own.policy.selector = selector_.get();
      own.rows = count;
      own.positions = positions.data();
      std::vector<float> y(count * kWidth);
      mixer.forward(work_, {&own, 1}, input, y.data());
      sequence.commit();
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  }

  std::mt19937 random_{test::seed(7)};
  std::deque<std::vector<float>> owned_;
  ThreadPool pool_{2};
  Workspace work_;
  PagePool pages_;
  std::unique_ptr<Selector> selector_;
  std::unique_ptr<Rotary> rotary_;
  std::vector<StateOptions::Rotations> rotations_;
  Matrix q_ = random_matrix(kHeads * kKeyDim, kWidth), k_ = random_matrix(kKvHeads * kKeyDim, kWidth),
         out_ = random_matrix(kWidth, kHeads*kValueDim);
};

TEST_F(ValuesInKeysMixer, EqualSeparateValuesOfTheSameDimensions) {
  AttentionWeights latent = weights(), plain = weights();
  latent.value_offset = kRotary;
  std::vector<float>& v = owned_.emplace_back();  // a value projection with the same rows as k
  for (int head = 0; head < kKvHeads; ++head) {
    const auto* from = reinterpret_cast<const float*>(k_.row(head * kKeyDim + kRotary));
    v.insert(v.end(), from, from + kValueDim * kWidth);
  }
  plain.v = matrix_of(v, kKvHeads * kValueDim, kWidth);
  const AttentionMixer in_keys(std::move(latent)), separate(std::move(plain));
  std::normal_distribution<float> normal;
  std::vector<float> x(200 * kWidth);
  for (float& number : x) number = normal(random_);
  for (const int64_t chunk : {200, 64, 7, 1}) {
    SCOPED_TRACE(chunk);
    Sequence one = sequence(in_keys), other = sequence(separate);
    const std::vector<float> found = read(in_keys, one, x, chunk), expected = read(separate, other, x, chunk);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-5) << "row " << i / kWidth;
    EXPECT_EQ(one.kv(0).shape().value_bytes(), 0) << "pages hold only keys";
    EXPECT_LT(one.kv(0).page_bytes(), other.kv(0).page_bytes());
  }
}

}  // namespace
}  // namespace fathom
