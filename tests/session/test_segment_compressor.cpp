#include "session/segment_compressor.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "models/tiny_model.h"
#include "session/session.h"

namespace fathom {
namespace {

constexpr int64_t kWidth = 64;  // of test::floats()

/// Returns a file whose adapter changes nothing and whose matrix is the identity times a factor.
GgufWriter plain_compressor(float factor) {
  GgufWriter writer;
  const auto integer = [&](const char* key, int64_t value) { writer.set(key, GgufType::kU32, value); };
  writer.set_string("general.type", "compression");
  writer.set_string("compression.kind", "compllm");
  integer("compression.width", kWidth);
  integer("compression.vocabulary", 512);
  integer("compression.layers", 3);
  integer("compression.segment", 5);
  integer("compression.factor", 2);
  integer("compression.end_token", 7);
  const auto add = [&](const char* name, int64_t cols, int64_t rows, const std::vector<float>& values) {
    writer.add_tensor(name, WeightType::kF32, {cols, rows}, std::as_bytes(std::span(values)));
  };
  add("blk.0.attn_q.weight.lora_a", kWidth, 2, std::vector<float>(2 * kWidth, 1));
  add("blk.0.attn_q.weight.lora_b", 2, kWidth, std::vector<float>(2 * kWidth, 0));
  std::vector<float> identity(kWidth * kWidth);
  for (int64_t i = 0; i < kWidth; ++i) identity[i * (kWidth + 1)] = factor;
  add("concept.weight", kWidth, kWidth, identity);
  return writer;
}

TEST(SegmentCompressor, EmbeddingsAreTheOutputNormsOfTheEndTokensTimesTheMatrix) {
  const auto engine = std::make_shared<Engine>(test::floats(), std::make_shared<Runtime>(1));
  const std::vector<std::byte> bytes = plain_compressor(2).bytes();
  const SegmentCompressor compressor(Gguf::parse(bytes, "plain.gguf"), engine->shared_model());
  EXPECT_EQ(compressor.embeddings_of(0), 0);
  EXPECT_EQ(compressor.embeddings_of(5), 3);
  EXPECT_EQ(compressor.embeddings_of(11), 7);
  const std::vector<int32_t> text{3, 1, 4, 1, 5, 9, 2};
  const std::vector<float> embeddings = compressor.compress(*engine, text);
  ASSERT_EQ(embeddings.size(), 4u * kWidth);
  Session session(engine, {.cache = "f32"});
  session.keep_hidden({3});
  for (const auto& [tokens, first] : {std::pair{std::vector<int32_t>{3, 1, 4, 1, 5, 7}, 0}, {{9, 2, 7}, 3}}) {
    session.rewind(session.length());
    session.append(tokens);
    for (int64_t i = 0; i < kWidth; ++i)
      EXPECT_NEAR(embeddings[first * kWidth + i], 2 * session.hidden()[i], 1e-4) << first;
  }
}

}  // namespace
}  // namespace fathom
