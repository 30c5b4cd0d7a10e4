#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>

#include "formats/gguf.h"
#include "program.h"
#include "seed.h"

namespace fathom::test {
namespace {

/// Returns the bytes of the default model, for tests that damage them.
const std::string& model_bytes() {
  static const std::string bytes = read_file(default_model());
  return bytes;
}

/// Returns the offset after a string of the header. A string is a 64-bit length and its bytes.
size_t offset_after(const std::string& bytes, const std::string& name) {
  const uint64_t length = name.size();
  const std::string entry = std::string(reinterpret_cast<const char*>(&length), 8) + name;
  const size_t at = bytes.find(entry);
  if (at == std::string::npos) throw std::runtime_error("no " + name);
  return at + entry.size();
}

template <class T>
std::string with(std::string bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
  return bytes;
}

// A tensor's entry: dimensions (32 bits), their sizes (64 bits each), type (32 bits), offset (64 bits).
size_t offset_of(const std::string& tensor, uint32_t dimensions) {
  return offset_after(model_bytes(), tensor) + 4 + 8 * dimensions + 4;
}

size_t header_bytes() {
  const Gguf file = Gguf::open(default_model());
  const std::byte* first = file.tensors()[0].data;
  for (const GgufTensor& tensor : file.tensors()) first = std::min(first, tensor.data);
  return file.file_bytes() - (file.tensors().back().data + file.tensors().back().bytes - first);
}

class CliBadModel : public testing::Test {
 protected:
  /// Expects that every command that opens a model rejects the file with one line that names the file and the
  /// cause.
  void expect_rejected(const std::string& bytes, const std::vector<std::string>& parts) {
    const std::string file = folder_.write("bad.gguf", bytes);
    std::vector<std::string> all = parts;
    all.push_back("bad.gguf");
    expect_error(run({"run", "-m", file, "-p", "word", "-n", "1"}), 1, all);
  }
  const Folder folder_;
};

TEST_F(CliBadModel, NoSuchFile) {
  expect_error(run({"run", "-m", folder_.path("none.gguf"), "-p", "a"}), 1, {"none.gguf", "No such file"});
}

TEST_F(CliBadModel, Folder) { expect_error(run({"run", "-m", "/", "-p", "a"}), 1, {"/: "}); }

TEST_F(CliBadModel, EmptyFile) { expect_rejected("", {}); }

TEST_F(CliBadModel, Jpeg) {
  expect_rejected(std::string("\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", 13).append(5000, 'B'), {"GGUF"});
}

TEST_F(CliBadModel, HeaderTruncatedAtEveryFourKilobytes) {
  const size_t header = header_bytes();
  ASSERT_GT(header, 40000);
  for (size_t bytes = 4096; bytes <= header; bytes += 4096) {
    SCOPED_TRACE(bytes);
    expect_rejected(model_bytes().substr(0, bytes), {});
  }
}

TEST_F(CliBadModel, HeaderTruncatedAtRandomPositions) {
  std::mt19937 random(test::seed(1));
  for (int i = 0; i < 20; ++i) {
    const size_t bytes = random() % header_bytes();
    SCOPED_TRACE(bytes);
    expect_rejected(model_bytes().substr(0, bytes), {});
  }
}

TEST_F(CliBadModel, TruncatedData) {
  const size_t header = header_bytes();
  for (const size_t bytes : {header + 1, (header + model_bytes().size()) / 2, model_bytes().size() - 1}) {
    SCOPED_TRACE(bytes);
    expect_rejected(model_bytes().substr(0, bytes), {"tensor"});
  }
}

TEST_F(CliBadModel, CountsAndLengthsOfTwoToThe63) {
  constexpr uint64_t kHuge = uint64_t{1} << 63;
  expect_rejected(with(model_bytes(), 8, kHuge), {});   // tensors
  expect_rejected(with(model_bytes(), 16, kHuge), {});  // metadata
  expect_rejected(with(model_bytes(), 24, kHuge), {});  // length of the first key
  expect_rejected(with(model_bytes(), offset_after(model_bytes(), "tokenizer.ggml.tokens") + 8, kHuge),
                  {});  // array
  expect_rejected(with(model_bytes(), offset_after(model_bytes(), "tokenizer.ggml.tokens") + 16, kHuge),
                  {});  // its first string
  expect_rejected(with(model_bytes(), offset_after(model_bytes(), "blk.0.attn_q.weight") + 4, kHuge),
                  {"blk.0.attn_q.weight"});  // a shape
}

TEST_F(CliBadModel, TensorOutsideTheFile) {
  const size_t at = offset_of("blk.0.attn_q.weight", 2);
  expect_rejected(with(model_bytes(), at, uint64_t{1} << 40), {"blk.0.attn_q.weight"});
  expect_rejected(with(model_bytes(), at, ~uint64_t{0} - 31), {"blk.0.attn_q.weight"});
}

TEST_F(CliBadModel, OverlappingTensors) {
  uint64_t other = 0;
  std::memcpy(&other, model_bytes().data() + offset_of("blk.0.attn_k.weight", 2), sizeof other);
  expect_rejected(with(model_bytes(), offset_of("blk.0.attn_q.weight", 2), other), {"blk.0.attn_", "overlap"});
}

TEST_F(CliBadModel, UnknownWeightType) {
  expect_rejected(with(model_bytes(), offset_after(model_bytes(), "blk.0.attn_q.weight") + 4 + 16, uint32_t{99}),
                  {"blk.0.attn_q.weight", "99"});
}

/// Returns the default model rewritten with changes.
std::string rewritten(const std::function<void(GgufWriter&)>& change,
                      const std::function<bool(const GgufTensor&)>& keep = nullptr) {
  const Gguf file = Gguf::open(default_model());
  GgufWriter writer;
  for (const std::string_view key : file.keys()) writer.set_value(std::string(key), *file.find(key));
  change(writer);
  for (const GgufTensor& tensor : file.tensors()) {
    if (keep && !keep(tensor)) continue;
    writer.add_tensor(std::string(tensor.name), tensor.type, tensor.shape, {tensor.data, tensor.bytes});
  }
  const std::vector<std::byte> bytes = writer.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_F(CliBadModel, RewrittenModelItselfRuns) {
  const std::string file = folder_.write("same.gguf", rewritten([](GgufWriter&) {}));
  EXPECT_EQ(output({"run", "-m", file, "-p", "word", "-n", "5"}), output({"run", "-p", "word", "-n", "5"}));
}

TEST_F(CliBadModel, UnknownArchitectureListsTheKnownOnes) {
  expect_rejected(rewritten([](GgufWriter& w) { w.set_string("general.architecture", "zebra"); }),
                  {"zebra", "llama", "qwen2", "qwen3", "gpt2"});
}

TEST_F(CliBadModel, MissingTensorIsNamed) {
  expect_rejected(
      rewritten([](GgufWriter&) {}, [](const GgufTensor& t) { return t.name != "blk.2.ffn_up.weight"; }),
      {"blk.2.ffn_up.weight"});
}

TEST_F(CliBadModel, WrongShapesAreNamed) {
  expect_rejected(
      rewritten([](GgufWriter& w) { w.set("llama.feed_forward_length", GgufType::kU32, uint64_t{641}); }),
      {"blk.0.ffn_", "641", "640"});
  expect_rejected(
      rewritten([](GgufWriter& w) { w.set("llama.attention.head_count", GgufType::kU32, uint64_t{0}); }),
      {"head_count is 0"});
}

TEST_F(CliBadModel, VocabularyShorterThanItsEmbeddings) {
  expect_rejected(rewritten([](GgufWriter& w) {
                    w.set_strings("tokenizer.ggml.tokens", std::vector<std::string>(100, "piece"));
                  }),
                  {"100", "4096"});
}

TEST_F(CliBadModel, InspectDescribesTheFileAndThenTheError) {
  const std::string file =
      folder_.write("bad.gguf", rewritten([](GgufWriter& w) { w.set_string("general.architecture", "zebra"); }));
  const Result result = run({"inspect", file});
  expect_error(result, 1, {"zebra"});
  EXPECT_NE(result.out.find("38 tensors"), std::string::npos) << result.out;
}

}  // namespace
}  // namespace fathom::test
