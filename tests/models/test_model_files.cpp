// Model files that are not what they should be.
#include <gtest/gtest.h>

#include "base/error.h"
#include "models/session.h"
#include "tiny_model.h"

namespace fathom {
namespace {

using test::TinyFile;

/// Expects that opening fails with an Error that mentions every one of `parts`.
void expect_refused(const TinyFile& file, const std::vector<std::string>& parts) {
  const std::vector<std::byte> bytes = file.bytes();
  try {
    Model::from(Gguf::parse(bytes, "tiny.gguf"));
    FAIL() << "opened; expected a complaint of " << parts.front();
  } catch (const Error& error) {
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("tiny.gguf"), std::string::npos) << error.what();
  }
}

TEST(ModelFile, AWholeOneOpens) { EXPECT_EQ(test::open_tiny({})->config().layers, 3); }

TEST(ModelFile, UnknownArchitectureListsTheKnown) {
  TinyFile file;
  file.architecture = "lama";
  expect_refused(file, {"lama", "llama", "qwen2", "gpt2"});
}

TEST(ModelFile, MissingTensorIsNamed) {
  for (const char* name :
       {"token_embd.weight", "output_norm.weight", "blk.1.attn_q.weight", "blk.2.ffn_down.weight"}) {
    TinyFile file;
    file.keep = [&](const std::string& tensor) { return tensor != name; };
    expect_refused(file, {name});
  }
}

TEST(ModelFile, WrongShapeIsNamed) {
  TinyFile file;
  file.reshape = [](const std::string& name, std::vector<int64_t>& shape) {
    if (name == "blk.1.attn_k.weight") shape[1] /= 2;
  };
  expect_refused(file, {"blk.1.attn_k.weight", "32", "16"});
}

TEST(ModelFile, VocabularyShorterThanEmbeddingsIsRefused) {
  TinyFile file;
  file.extra = [](GgufWriter& w) { w.set_strings("tokenizer.ggml.tokens", {"a", "b", "c"}); };
  expect_refused(file, {"3 tokens", "512"});
}

TEST(ModelFile, AbsurdNumbersAreRefused) {
  for (const char* key :
       {"llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.sliding_window"}) {
    TinyFile file;
    file.extra = [&](GgufWriter& w) { w.set(key, GgufType::kU64, uint64_t{1} << 62); };
    expect_refused(file, {key});
  }
  TinyFile negative;
  negative.extra = [](GgufWriter& w) { w.set("llama.attention.key_length", GgufType::kI32, int64_t{-16}); };
  expect_refused(negative, {"llama.attention.key_length", "-16"});
  TinyFile uneven;
  uneven.heads = 3;
  expect_refused(uneven, {"3 heads", "2 key/value heads"});
  TinyFile scaling;
  scaling.extra = [](GgufWriter& w) { w.set_string("llama.rope.scaling.type", "quadratic"); };
  expect_refused(scaling, {"quadratic", "yarn"});
}

TEST(ModelFile, ASlidingWindowOfTheFileIsKept) {
  TinyFile windowed;
  windowed.layers = 1;
  windowed.extra = [](GgufWriter& w) { w.set("llama.attention.sliding_window", GgufType::kU32, uint64_t{20}); };
  TinyFile plain;
  plain.layers = 1;
  std::vector<int32_t> ids(100);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 5 % 512);
  const auto runtime = std::make_shared<Runtime>(1);
  const auto read = [&](const std::shared_ptr<const Model>& model, const std::string& attend) {
    SessionOptions options;
    options.attend = attend;
    Session session(model, runtime, options);
    session.append(ids);
    return std::vector<float>(session.logits().begin(), session.logits().end());
  };
  EXPECT_EQ(read(test::open_tiny(windowed), "dense"), read(test::open_tiny(plain), "window:sink=0,size=20"));
  EXPECT_NE(read(test::open_tiny(windowed), "dense"), read(test::open_tiny(plain), "dense"));
}

TEST(ModelShape, UnknownShapesAndTypesListTheKnown) {
  for (const auto& [shape, part] : {std::pair("llama-9b:q4_k", "llama-8b"), std::pair("llama-1b:q9", "q8_0")}) {
    try {
      Model::random(shape);
      FAIL();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace fathom
