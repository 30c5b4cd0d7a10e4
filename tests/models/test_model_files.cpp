// Opens model files with errors and with unusual metadata.
#include <gtest/gtest.h>

#include "base/error.h"
#include "session/session.h"
#include "tiny_model.h"

namespace fathom {
namespace {

using test::TinyFile;

/// Expects that opening the file throws an Error that contains every one of `parts`.
void expect_rejected(const TinyFile& file, const std::vector<std::string>& parts) {
  const std::vector<std::byte> bytes = file.bytes();
  try {
    Model::from(Gguf::parse(bytes, "tiny.gguf"));
    FAIL() << "opened; expected an error about " << parts.front();
  } catch (const Error& error) {
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("tiny.gguf"), std::string::npos) << error.what();
  }
}

TEST(ModelFile, UnmodifiedFileOpens) { EXPECT_EQ(test::open_tiny({})->config().layers, 3); }

TEST(ModelFile, UnknownArchitectureErrorListsKnownOnes) {
  TinyFile file;
  file.architecture = "lama";
  expect_rejected(file, {"lama", "llama", "qwen2", "gpt2"});
}

TEST(ModelFile, MissingTensorErrorNamesIt) {
  for (const char* name :
       {"token_embd.weight", "output_norm.weight", "blk.1.attn_q.weight", "blk.2.ffn_down.weight"}) {
    TinyFile file;
    file.keep = [&](const std::string& tensor) { return tensor != name; };
    expect_rejected(file, {name});
  }
}

TEST(ModelFile, WrongShapeErrorNamesTheTensor) {
  TinyFile file;
  file.reshape = [](const std::string& name, std::vector<int64_t>& shape) {
    if (name == "blk.1.attn_k.weight") shape[1] /= 2;
  };
  expect_rejected(file, {"blk.1.attn_k.weight", "32", "16"});
}

TEST(ModelFile, VocabularyShorterThanEmbeddingsIsRejected) {
  TinyFile file;
  file.extra = [](GgufWriter& w) { w.set_strings("tokenizer.ggml.tokens", {"a", "b", "c"}); };
  expect_rejected(file, {"3 tokens", "512"});
}

TEST(ModelFile, OutOfRangeMetadataIsRejected) {
  for (const char* key :
       {"llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.sliding_window"}) {
    TinyFile file;
    file.extra = [&](GgufWriter& w) { w.set(key, GgufType::kU64, uint64_t{1} << 62); };
    expect_rejected(file, {key});
  }
  TinyFile negative;
  negative.extra = [](GgufWriter& w) { w.set("llama.attention.key_length", GgufType::kI32, int64_t{-16}); };
  expect_rejected(negative, {"llama.attention.key_length", "-16"});
  TinyFile uneven;
  uneven.heads = 3;
  expect_rejected(uneven, {"3 heads", "2 key/value heads"});
  for (const std::string key : {"llama.attention.head_count", "llama.attention.head_count_kv"}) {
    TinyFile none;
    none.extra = [&](GgufWriter& w) { w.set(key, GgufType::kU32, uint64_t{0}); };
    expect_rejected(none, {key + " is 0"});
  }
  TinyFile scaling;
  scaling.extra = [](GgufWriter& w) { w.set_string("llama.rope.scaling.type", "quadratic"); };
  expect_rejected(scaling, {"quadratic", "yarn"});
}

/// Returns the logits of a model with this sliding window (0: none) after 100 tokens read at once, followed by
/// those after 20 more read one by one.
std::vector<float> read_windowed(int64_t window, const std::string& attend) {
  TinyFile file;
  file.layers = 1;  // several layers together attend over more tokens than one window
  if (window > 0)
    file.extra = [&](GgufWriter& w) { w.set("llama.attention.sliding_window", GgufType::kU32, uint64_t(window)); };
  SessionOptions options;
  options.attend = attend;
  Session session(test::open_tiny(file), std::make_shared<Runtime>(1), options);
  std::vector<int32_t> ids(120);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 5 % 512);
  session.append(std::span(ids).first(100));
  std::vector<float> logits(session.logits().begin(), session.logits().end());
  for (size_t i = 100; i < ids.size(); ++i) session.append(std::span(ids).subspan(i, 1));
  logits.insert(logits.end(), session.logits().begin(), session.logits().end());
  return logits;
}

TEST(ModelFile, SlidingWindowOfTheFileIsApplied) {
  EXPECT_EQ(read_windowed(20, "dense"), read_windowed(0, "window:sink=0,window=20"));
  EXPECT_NE(read_windowed(20, "dense"), read_windowed(0, "dense"));
}

TEST(ModelFile, SlidingWindowOfTheFileIsIntersectedWithTheAttendMethod) {
  const std::vector<float> twenty = read_windowed(0, "window:sink=0,window=20");
  EXPECT_EQ(read_windowed(20, "window:sink=4,window=70"), twenty) << "the window of the file is smaller";
  EXPECT_EQ(read_windowed(70, "window:sink=4,window=20"), twenty) << "the window of the method is smaller";
  EXPECT_NE(read_windowed(20, "tempscale:tau=0.5"), twenty) << "the temperature of the method applies";
  EXPECT_EQ(read_windowed(20, "tempscale:tau=0.5"),
            read_windowed(0, "tempscale:tau=0.5,then=(window:sink=0,window=20)"));
  for (const std::string spec : {"quest:dense_layers=0", "recycled:budget=1k", "tokenselect", "layers:full=0"})
    EXPECT_EQ(read_windowed(20, spec), read_windowed(20, "dense")) << spec << " selects all";
}

TEST(ModelShape, UnknownShapeAndTypeErrorsListKnownOnes) {
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
