#include "session/segment_compressor.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "attend/methods.h"
#include "train/compress_kinds.h"
#include "train/context_net.h"
#include "train/draft_training.h"
#include "train/error_text.h"
#include "train/export_gguf.h"

namespace fathom::train {
namespace {

/// A trained file with the model and the net that it belongs to.
class SegmentCompressorTest : public testing::Test {
 protected:
  SegmentCompressorTest() {
    const auto base = test::random_base(21);
    model_bytes_ = to_gguf(*base, WeightType::kF32, nullptr).bytes();
    net_ = make_compression({.kind = "compllm", .segment = 6, .factor = 3, .rank = 4},
                            {.net = test::copy_of(*base), .end = 2, .seed = test::seed(22)});
    test::disturb(*net_, 23);
    engine_ =
        std::make_shared<Engine>(Model::from(Gguf::parse(model_bytes_, "tiny.gguf")), std::make_shared<Runtime>(1));
  }
  ContextNet& net() { return dynamic_cast<ContextNet&>(*net_); }
  SegmentCompressor compressor(GgufWriter file) {
    const std::vector<std::byte> bytes = file.bytes();
    return {Gguf::parse(bytes, "segments.gguf"), engine_->shared_model()};
  }
  GgufWriter file() const { return to_gguf(*net_, WeightType::kF32, nullptr); }

  std::vector<std::byte> model_bytes_;
  std::unique_ptr<Trainable> net_;
  std::shared_ptr<Engine> engine_;
};

std::vector<float> floats_of(const at::Tensor& x) {
  const at::Tensor flat = x.detach().contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

std::vector<int32_t> ids_of(const at::Tensor& tokens) {
  const at::Tensor flat = tokens.to(at::kInt).contiguous();
  return {flat.data_ptr<int32_t>(), flat.data_ptr<int32_t>() + flat.numel()};
}

TEST_F(SegmentCompressorTest, EmbeddingsAndTheTextAfterThemEqualThoseOfTheTrainer) {
  const SegmentCompressor compressor = this->compressor(file());
  const at::Tensor tokens = test::random_ids(1, 27, 24);
  const NetWeights weights = net().base().frozen_weights(at::kFloat);
  const at::NoGradGuard no_gradients;
  const at::Tensor prefix = net().compressed(weights, tokens.narrow(1, 0, 18));
  const std::vector<float> embeddings = compressor.compress(*engine_, ids_of(tokens.narrow(1, 0, 18)));
  EXPECT_EQ(compressor.embeddings_of(18), 6);
  EXPECT_EQ(embeddings.size(), 6u * 32);
  EXPECT_LT(test::largest_difference(embeddings, floats_of(prefix)), 1e-4);

  const std::unique_ptr<Selector> dense = attend_methods().make("dense");
  Sequence sequence = engine_->new_sequence({.cache = "f32"});
  const std::vector<int32_t> rest = ids_of(tokens.narrow(1, 18, 9));
  std::vector<float> logits;
  for (const bool of_text : {false, true}) {
    const int64_t last = 8;
    Rows rows;
    rows.sequence = &sequence;
    rows.policy.selector = dense.get();
    if (of_text) {
      rows.tokens = rest;
      rows.output_rows = {&last, 1};
    } else {
      rows.embeddings = embeddings;
    }
    engine_->forward({&rows, 1});
    rows.result.throw_if_failed();
    logits = rows.result.logits;
  }
  const at::Tensor x = net().following(weights, prefix, Net::embeddings(weights, tokens.narrow(1, 18, 9)));
  const at::Tensor expected = net().ops().linear(net().base().normed_output(weights, x), weights.output);
  EXPECT_LT(test::largest_difference(logits, floats_of(expected[0][8])), 1e-3);
}

TEST_F(SegmentCompressorTest, ASegmentHasTheSameBitsAloneAndEditsChangeOneSegment) {
  const SegmentCompressor compressor = this->compressor(file());
  std::vector<int32_t> text = ids_of(test::random_ids(1, 16, 25));
  const std::vector<float> all = compressor.compress(*engine_, text);
  ASSERT_EQ(all.size(), 6u * 32);  // 2 + 2 + 2: the last segment has 4 tokens
  for (const auto& [begin, count] : {std::pair{0, 6}, {6, 6}, {12, 4}}) {
    const auto alone = compressor.compress_segment(*engine_, std::span(text).subspan(begin, count));
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + begin / 3 * 32));
  }
  text[7] = (text[7] + 1) % 39;
  const std::vector<float> edited = compressor.compress(*engine_, text);
  for (size_t i = 0; i < 6; ++i) {
    const bool same = std::equal(all.begin() + i * 32, all.begin() + (i + 1) * 32, edited.begin() + i * 32);
    EXPECT_EQ(same, i != 2 && i != 3) << i;
  }
}

TEST_F(SegmentCompressorTest, FilesOfOtherModelsAndDamagedFilesAreRejected) {
  const auto error = [&](const std::function<void(GgufWriter&)>& change) {
    GgufWriter changed = file();
    change(changed);
    return test::error_of([&] { compressor(changed); });
  };
  const auto set = [](const char* key, int64_t value) {
    return [key, value](GgufWriter& writer) { writer.set(key, GgufType::kU32, value); };
  };
  EXPECT_EQ(error([](GgufWriter&) {}), "");
  EXPECT_NE(error([](GgufWriter& w) { w.set_string("compression.kind", "lococo"); }).find("expected 'compllm'"),
            std::string::npos);
  EXPECT_NE(error(set("compression.width", 64)).find("expected 32 as in the model, found 64"), std::string::npos);
  EXPECT_NE(error(set("compression.layers", 3)).find("expected 2 as in the model"), std::string::npos);
  EXPECT_NE(error(set("compression.segment", 0)).find("from 1 to"), std::string::npos);
  EXPECT_NE(error(set("compression.factor", 7)).find("from 1 to 6, found 7"), std::string::npos);
  EXPECT_NE(error(set("compression.end_token", 40)).find("from 0 to 39"), std::string::npos);
  const auto extra = [](GgufWriter& w) {
    const std::vector<float> values(32);
    w.add_tensor("other.weight", WeightType::kF32, {32}, std::as_bytes(std::span(values)));
  };
  EXPECT_NE(error(extra).find("other.weight"), std::string::npos);
  const SegmentCompressor compressor = this->compressor(file());
  EXPECT_NE(test::error_of([&] { compressor.compress_segment(*engine_, {}); }).find("0 tokens: expected 1 to 6"),
            std::string::npos);
  EXPECT_NE(
      test::error_of([&] { compressor.compress_segment(*engine_, std::vector<int32_t>(7)); }).find("7 tokens"),
      std::string::npos);
}

}  // namespace
}  // namespace fathom::train
