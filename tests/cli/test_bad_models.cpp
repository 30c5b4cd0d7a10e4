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

/// The default model's bytes, to be spoilt.
const std::string& good() {
  static const std::string bytes = read_file(default_model());
  return bytes;
}

/// Where the numbers behind a string of the header begin. Strings are written as a 64-bit length and the bytes.
size_t behind(const std::string& bytes, const std::string& name) {
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
  return behind(good(), tensor) + 4 + 8 * dimensions + 4;
}

size_t header_bytes() {
  const Gguf file = Gguf::open(default_model());
  const std::byte* first = file.tensors()[0].data;
  for (const GgufTensor& tensor : file.tensors()) first = std::min(first, tensor.data);
  return file.file_bytes() - (file.tensors().back().data + file.tensors().back().bytes - first);
}

class CliBadModel : public testing::Test {
 protected:
  /// Every command that opens a model refuses the file with one line that names it and the cause.
  void expect_refused(const std::string& bytes, const std::vector<std::string>& parts) {
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

TEST_F(CliBadModel, EmptyFile) { expect_refused("", {}); }

TEST_F(CliBadModel, Jpeg) {
  expect_refused(std::string("\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", 13).append(5000, 'B'), {"GGUF"});
}

TEST_F(CliBadModel, HeaderCutAtEveryFourKilobytes) {
  const size_t header = header_bytes();
  ASSERT_GT(header, 40000);
  for (size_t bytes = 4096; bytes <= header; bytes += 4096) {
    SCOPED_TRACE(bytes);
    expect_refused(good().substr(0, bytes), {});
  }
}

TEST_F(CliBadModel, HeaderCutAtRandomPlaces) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(test::seed(seed));
  for (int i = 0; i < 20; ++i) {
    const size_t bytes = random() % header_bytes();
    SCOPED_TRACE(bytes);
    expect_refused(good().substr(0, bytes), {});
  }
}

TEST_F(CliBadModel, DataCut) {
  const size_t header = header_bytes();
  for (const size_t bytes : {header + 1, (header + good().size()) / 2, good().size() - 1}) {
    SCOPED_TRACE(bytes);
    expect_refused(good().substr(0, bytes), {"tensor"});
  }
}

TEST_F(CliBadModel, CountsAndLengthsOfTwoToThe63) {
  constexpr uint64_t kHuge = uint64_t{1} << 63;
  expect_refused(with(good(), 8, kHuge), {});                                             // tensors
  expect_refused(with(good(), 16, kHuge), {});                                            // metadata
  expect_refused(with(good(), 24, kHuge), {});                                            // length of the first key
  expect_refused(with(good(), behind(good(), "tokenizer.ggml.tokens") + 8, kHuge), {});   // array
  expect_refused(with(good(), behind(good(), "tokenizer.ggml.tokens") + 16, kHuge), {});  // its first string
  expect_refused(with(good(), behind(good(), "blk.0.attn_q.weight") + 4, kHuge),
                 {"blk.0.attn_q.weight"});  // a shape
}

TEST_F(CliBadModel, TensorOutsideTheFile) {
  const size_t at = offset_of("blk.0.attn_q.weight", 2);
  expect_refused(with(good(), at, uint64_t{1} << 40), {"blk.0.attn_q.weight"});
  expect_refused(with(good(), at, ~uint64_t{0} - 31), {"blk.0.attn_q.weight"});
}

TEST_F(CliBadModel, OverlappingTensors) {
  uint64_t other = 0;
  std::memcpy(&other, good().data() + offset_of("blk.0.attn_k.weight", 2), sizeof other);
  expect_refused(with(good(), offset_of("blk.0.attn_q.weight", 2), other), {"blk.0.attn_", "overlap"});
}

TEST_F(CliBadModel, UnknownWeightType) {
  expect_refused(with(good(), behind(good(), "blk.0.attn_q.weight") + 4 + 16, uint32_t{99}),
                 {"blk.0.attn_q.weight", "99"});
}

/// The default model written anew with changes.
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
  expect_refused(rewritten([](GgufWriter& w) { w.set_string("general.architecture", "zebra"); }),
                 {"zebra", "llama", "qwen2", "qwen3", "gpt2"});
}

TEST_F(CliBadModel, MissingTensorIsNamed) {
  expect_refused(rewritten([](GgufWriter&) {}, [](const GgufTensor& t) { return t.name != "blk.2.ffn_up.weight"; }),
                 {"blk.2.ffn_up.weight"});
}

TEST_F(CliBadModel, WrongShapesAreNamed) {
  expect_refused(
      rewritten([](GgufWriter& w) { w.set("llama.feed_forward_length", GgufType::kU32, uint64_t{641}); }),
      {"blk.0.ffn_", "641", "640"});
  expect_refused(rewritten([](GgufWriter& w) { w.set("llama.attention.head_count", GgufType::kU32, uint64_t{0}); }),
                 {"head_count is 0"});
}

TEST_F(CliBadModel, VocabularyShorterThanItsEmbeddings) {
  expect_refused(rewritten([](GgufWriter& w) {
                   w.set_strings("tokenizer.ggml.tokens", std::vector<std::string>(100, "piece"));
                 }),
                 {"100", "4096"});
}

TEST_F(CliBadModel, InspectTellsWhatItCanAndThenTheCause) {
  const std::string file =
      folder_.write("bad.gguf", rewritten([](GgufWriter& w) { w.set_string("general.architecture", "zebra"); }));
  const Result result = run({"inspect", file});
  expect_error(result, 1, {"zebra"});
  EXPECT_NE(result.out.find("38 tensors"), std::string::npos) << result.out;
}

}  // namespace
}  // namespace fathom::test
