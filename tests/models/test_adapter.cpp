// Adapter: what it accepts and rejects, and project(): products with its updates.
#include "models/adapter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "base/error.h"
#include "mixers/projection.h"
#include "tiny_adapter.h"
#include "tiny_model.h"

namespace fathom {
namespace {

using test::TinyAdapter;

/// Expects that opening the adapter throws an Error that contains every one of `parts`.
void expect_rejected(const TinyAdapter& file, const std::vector<std::string>& parts,
                     const std::shared_ptr<const Model>& model = test::floats()) {
  try {
    file.open(model);
    FAIL() << "opened; expected an error about " << parts.front();
  } catch (const Error& error) {
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("tiny-adapter.gguf"), std::string::npos) << error.what();
  }
}

TEST(AdapterFile, UnmodifiedFileOpens) {
  const auto adapter = TinyAdapter().open(test::floats());
  const Network& network = test::floats()->network();
  const auto found = adapter->weights().find(*network.projection("blk.1.ffn_up.weight"));
  ASSERT_TRUE(found.update);
  EXPECT_EQ(found.update->rank, 4);
  EXPECT_EQ(found.update->factor, 2) << "alpha 8, rank 4";
  EXPECT_EQ(found.first_row, 0);
  EXPECT_FALSE(adapter->weights().find(*network.projection("blk.0.ffn_up.weight")).update) << "not changed";
}

TEST(AdapterFile, AlphaOfZeroMeansNoFactor) {
  TinyAdapter file;
  file.alpha = 0;
  const auto adapter = file.open(test::floats());
  const Matrix& w = *test::floats()->network().projection("blk.1.ffn_up.weight");
  EXPECT_EQ(adapter->weights().find(w).update->factor, 1);
}

TEST(AdapterFile, QuantisedFactorsAreRead) {
  TinyAdapter file;
  file.weights = {"blk.1.ffn_up.weight"};
  file.rank = 32;
  file.factors = WeightType::kQ8_0;
  const auto adapter = file.open(test::floats());
  const Matrix& w = *test::floats()->network().projection("blk.1.ffn_up.weight");
  const WeightUpdate& update = *adapter->weights().find(w).update;
  const std::vector<std::byte> bytes = file.bytes(*test::floats());
  const Gguf gguf = Gguf::parse(bytes, "a");
  const std::vector<float> b = test::floats_of(*gguf.find_tensor("blk.1.ffn_up.weight.lora_b"));
  for (int64_t r = 0; r < w.rows; ++r)
    for (int64_t k = 0; k < 32; ++k) ASSERT_EQ(update.b[k * w.rows + r], b[r * 32 + k]);
}

TEST(AdapterFile, ForeignMetadataIsRejected) {
  TinyAdapter file;
  file.architecture = "qwen2";
  expect_rejected(file, {"general.architecture", "'llama'", "'qwen2'"});
  file = {};
  file.general_type = "model";
  expect_rejected(file, {"general.type", "'adapter'", "'model'"});
  file = {};
  file.type = "loha";
  expect_rejected(file, {"adapter.type", "'lora'", "'loha'"});
  file = {};
  file.alpha = INFINITY;
  expect_rejected(file, {"adapter.lora.alpha", "finite"});
  file = {};
  file.extra = [](GgufWriter& w) { w.set_integers("adapter.alora.invocation_tokens", {1, 2}); };
  expect_rejected(file, {"invocation_tokens"});
  try {
    const std::vector<std::byte> bytes = test::TinyFile().bytes();
    Adapter::from(Gguf::parse(bytes, "model.gguf"), test::floats());
    FAIL() << "a model is not an adapter";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'general.type' is missing"), std::string::npos) << error.what();
  }
}

TEST(AdapterFile, UnknownAndUnsupportedWeightsAreNamed) {
  const auto with = [](const std::string& weight) {
    TinyAdapter file;
    file.weights = {weight};
    return file;
  };
  expect_rejected(with("blk.9.attn_q.weight"), {"'blk.9.attn_q.weight'", "the model has no weight"});
  expect_rejected(with("output.weight"), {"'output.weight'", "the model has no weight"});  // tied
  expect_rejected(with("token_embd.weight"), {"token_embd.weight", "embeddings"});
  expect_rejected(with("blk.0.attn_norm.weight"), {"blk.0.attn_norm.weight", "norms"});
  TinyAdapter norm;
  norm.extra = [](GgufWriter& w) {
    const std::vector<float> ones(64, 1.0f);
    w.add_tensor("blk.0.attn_norm.weight", WeightType::kF32, {64}, std::as_bytes(std::span(ones)));
  };
  expect_rejected(norm, {"'blk.0.attn_norm.weight'", ".lora_a or .lora_b", "norms"});
  TinyAdapter none;
  none.weights = {};
  expect_rejected(none, {"found none"});
}

TEST(AdapterFile, MissingFactorsAndWrongShapesAreNamed) {
  for (const std::string tensor : {"blk.1.ffn_up.weight.lora_a", "blk.1.ffn_up.weight.lora_b"}) {
    TinyAdapter file;
    file.keep = [&](const std::string& name) { return name != tensor; };
    expect_rejected(file, {tensor, "is missing"});
    for (const int dimension : {0, 1}) {
      file = {};
      file.reshape = [&](const std::string& name, std::vector<int64_t>& shape) {
        if (name == tensor) shape[dimension] += 3;
      };
      expect_rejected(file, {"blk.1.ffn_up.weight.lora_", "expected shape", "found ["});
    }
  }
  TinyAdapter large;
  large.rank = 97;  // the matrix is [96, 64]
  large.weights = {"blk.1.ffn_up.weight"};
  expect_rejected(large, {"blk.1.ffn_up.weight.lora_a", "rank from 1 to 96", "97"});
}

TEST(AdapterFile, DamagedFilesAreRejectedOrRead) {
  std::mt19937 random(test::seed(3));
  const std::vector<std::byte> whole = TinyAdapter().bytes(*test::floats());
  int rejected = 0;
  const auto read = [&](const std::vector<std::byte>& bytes) {
    try {
      Adapter::from(Gguf::parse(bytes, "damaged.gguf"), test::floats());
    } catch (const Error&) {
      ++rejected;
    }
  };
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::byte> bytes = whole;
    for (uint32_t n = 1 + random() % 3; n > 0; --n) bytes[random() % 2000] = static_cast<std::byte>(random());
    read(bytes);
  }
  EXPECT_GT(rejected, 1000);
  rejected = 0;
  for (size_t size = 0; size < whole.size(); size += 997) read({whole.begin(), whole.begin() + size});
  EXPECT_EQ(rejected, (static_cast<int>(whole.size()) + 996) / 997) << "every truncated file";
}

class Projection : public testing::Test {
 protected:
  /// Fills the input with `rows` random rows.
  void fill(int64_t rows, int64_t cols, int64_t step_rows = 0) {
    std::mt19937 random(test::seed(5));
    std::normal_distribution<float> normal;
    x_.resize(rows, cols, step_rows);
    for (int64_t i = 0; i < rows * cols; ++i) x_.data()[i] = normal(random);
  }
  std::vector<float> multiply(const Matrix& w, std::vector<AdaptedRows> adapted) {
    std::vector<float> y(x_.rows() * w.rows);
    work_.adapted_rows = std::move(adapted);
    const Product products[] = {{&w, y.data()}};
    project(work_, x_, products);
    return y;
  }
  static ScaledAdapter scaled(const std::shared_ptr<const Adapter>& adapter, float scale) {
    return {{adapter, &adapter->weights()}, scale};
  }

  const Matrix& w_ = *test::floats()->network().projection("blk.1.ffn_up.weight");
  std::shared_ptr<const Adapter> one_ = TinyAdapter().open(test::floats());
  std::shared_ptr<const Adapter> two_ = TinyAdapter{.rank = 7, .seed = 2}.open(test::floats());
  ThreadPool pool_{2};
  Workspace work_{pool_, kernels()};
  ActivationBuffer x_;
};

TEST_F(Projection, IsLinearInTheScaleAndEqualsTheSumInDouble) {
  fill(50, w_.cols);
  const std::vector<float> plain = multiply(w_, {});
  const WeightUpdate& u = *one_->weights().find(w_).update;
  double largest = 0;
  for (const float scale : {0.25f, 1.0f, 1.5f, -2.0f}) {
    const ScaledAdapter adapters[] = {scaled(one_, scale)};
    const std::vector<float> adapted = multiply(w_, {{0, 50, adapters}});
    for (int64_t row = 0; row < 50; ++row) {
      for (int64_t r = 0; r < w_.rows; ++r) {
        double sum = 0;
        for (int64_t k = 0; k < u.rank; ++k) {
          double low = 0;
          for (int64_t c = 0; c < w_.cols; ++c) low += double{u.a[k * w_.cols + c]} * x_.row(row)[c];
          sum += low * u.b[k * w_.rows + r];
        }
        const int64_t at = row * w_.rows + r;
        largest = std::max(largest, std::abs(sum));
        ASSERT_NEAR(adapted[at] - plain[at], scale * u.factor * sum, 1e-5) << "scale " << scale;
      }
    }
  }
  EXPECT_GT(largest, 0.5) << "the updates are large enough to be tested";
}

TEST_F(Projection, SeveralAdaptersAddUp) {
  fill(20, w_.cols);
  const ScaledAdapter first[] = {scaled(one_, 0.5f)}, second[] = {scaled(two_, -0.75f)},
                      both[] = {first[0], second[0]};
  const std::vector<float> plain = multiply(w_, {}), a = multiply(w_, {{0, 20, first}}),
                           b = multiply(w_, {{0, 20, second}}), sum = multiply(w_, {{0, 20, both}});
  for (size_t i = 0; i < plain.size(); ++i) ASSERT_NEAR(sum[i] - plain[i], a[i] - plain[i] + b[i] - plain[i], 1e-5);
}

TEST_F(Projection, RowsDoNotDependOnOtherRowsOrTheirAdapters) {
  fill(64, w_.cols, 64);
  const ScaledAdapter first[] = {scaled(one_, 0.5f)}, both[] = {scaled(two_, 2), scaled(one_, 1)};
  const std::vector<float> plain = multiply(w_, {}), all_first = multiply(w_, {{0, 64, first}}),
                           all_both = multiply(w_, {{0, 64, both}});
  const std::vector<float> mixed = multiply(w_, {{3, 17, first}, {17, 18, both}, {40, 63, both}});
  for (int64_t row = 0; row < 64; ++row) {
    const std::vector<float>& expected = row >= 3 && row < 17                   ? all_first
                                         : row == 17 || (row >= 40 && row < 63) ? all_both
                                                                                : plain;
    for (int64_t i = row * w_.rows; i < (row + 1) * w_.rows; ++i) ASSERT_EQ(mixed[i], expected[i]) << "row " << row;
  }
}

TEST_F(Projection, ARangeOfRowsOfTheMatrixGetsItsPartOfTheUpdate) {
  fill(5, w_.cols, 5);
  const ScaledAdapter adapters[] = {scaled(one_, 1)};
  const Matrix part{w_.type, w_.row(30), 41, w_.cols};
  const std::vector<float> whole = multiply(w_, {{0, 5, adapters}}), rows = multiply(part, {{0, 5, adapters}});
  for (int64_t row = 0; row < 5; ++row)
    for (int64_t r = 0; r < 41; ++r) ASSERT_EQ(rows[row * 41 + r], whole[row * w_.rows + 30 + r]);
}

TEST_F(Projection, UpdatesWiderThanOnePieceEqualTheSum) {
  test::TinyFile wide;
  wide.ffn = 700;
  wide.layers = 1;
  const auto model = test::open_tiny(wide);
  const auto adapter = TinyAdapter{.weights = {"blk.0.ffn_up.weight"}, .rank = 33}.open(model);
  const Matrix& w = *model->network().projection("blk.0.ffn_up.weight");
  const WeightUpdate& u = *adapter->weights().find(w).update;
  fill(9, w.cols);
  const ScaledAdapter adapters[] = {scaled(adapter, 1)};
  const std::vector<float> plain = multiply(w, {}), adapted = multiply(w, {{0, 9, adapters}});
  for (int64_t i = 0; i < 9 * w.rows; ++i) {
    double sum = 0;
    for (int64_t k = 0; k < u.rank; ++k) {
      const float* a = u.a.data() + k * w.cols;
      sum += std::inner_product(a, a + w.cols, x_.row(i / w.rows), 0.0) * u.b[k * w.rows + i % w.rows];
    }
    ASSERT_NEAR(adapted[i] - plain[i], u.factor * sum, 1e-5);
  }
}

}  // namespace
}  // namespace fathom
