#include "formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "sample_gguf.h"

namespace fathom::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SampleGguf : public testing::Test {
 protected:
  const std::vector<std::byte> bytes_ = sample_writer().bytes();
  const Gguf file_ = Gguf::parse(bytes_, "sample.gguf");
};

TEST_F(SampleGguf, ScalarsAreReadAndWidened) {
  EXPECT_EQ(file_.version(), 3);
  EXPECT_EQ(file_.file_bytes(), bytes_.size());
  EXPECT_EQ(file_.integer("u8"), 200);
  EXPECT_EQ(file_.integer("i8"), -100);
  EXPECT_EQ(file_.integer("u16"), 60000);
  EXPECT_EQ(file_.integer("i16"), -30000);
  EXPECT_EQ(file_.integer("u32"), 4000000000);
  EXPECT_EQ(file_.integer("i32"), -2000000000);
  EXPECT_EQ(file_.integer("i64"), INT64_MIN);
  EXPECT_EQ(std::get<uint64_t>(file_.find("u64")->scalar), uint64_t{1} << 63);
  EXPECT_EQ(file_.number("f32"), 0.25);
  EXPECT_EQ(file_.number("f64"), 1e300);
  EXPECT_EQ(file_.number("i16"), -30000);
  EXPECT_EQ(file_.number("u64"), 0x1p63);
  EXPECT_EQ(file_.boolean("bool"), true);
  EXPECT_EQ(file_.string("string"), "a line\nand \xc3\xa9");
}

TEST_F(SampleGguf, ArraysAreReadInOrder) {
  EXPECT_THAT(*file_.strings("strings"), ElementsAre("", "one", "two"));
  EXPECT_THAT(*file_.floats("floats"), ElementsAre(1.5f, -2.5f));
  EXPECT_THAT(*file_.integers("integers"), ElementsAre(7, -8, 9));
  EXPECT_THAT(*file_.floats("integers"), ElementsAre(7.0f, -8.0f, 9.0f));
}

TEST_F(SampleGguf, KeysAndTensorsKeepTheirOrder) {
  EXPECT_THAT(file_.keys(), ElementsAre("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool",
                                        "string", "strings", "floats", "integers"));
  ASSERT_EQ(file_.tensors().size(), 3);
  EXPECT_EQ(file_.tensors()[0].name, "first");
  EXPECT_EQ(file_.tensors()[2].name, "third");
}

TEST_F(SampleGguf, TensorsAreAlignedAndKeepTheirBytes) {
  const GgufTensor& second = file_.tensor("second", std::vector<int64_t>{32, 2});
  EXPECT_EQ(second.type, WeightType::kQ8_0);
  EXPECT_EQ(second.bytes, 68);
  EXPECT_EQ((second.data - bytes_.data()) % 32, 0);
  EXPECT_EQ(second.data[67], std::byte{3});
  EXPECT_EQ(second.dim(1), 2);
  EXPECT_EQ(second.dim(3), 1);
  float last;
  std::memcpy(&last, file_.find_tensor("first")->data + 44, sizeof(last));
  EXPECT_EQ(last, 12);
}

TEST_F(SampleGguf, AbsentKeysAreEmpty) {
  EXPECT_FALSE(file_.has("nothing"));
  EXPECT_EQ(file_.find("nothing"), nullptr);
  EXPECT_EQ(file_.integer("nothing"), std::nullopt);
  EXPECT_EQ(file_.number("nothing"), std::nullopt);
  EXPECT_EQ(file_.boolean("nothing"), std::nullopt);
  EXPECT_EQ(file_.string("nothing"), std::nullopt);
  EXPECT_EQ(file_.strings("nothing"), nullptr);
  EXPECT_EQ(file_.floats("nothing"), std::nullopt);
  EXPECT_EQ(file_.integers("nothing"), std::nullopt);
  EXPECT_EQ(file_.find_tensor("nothing"), nullptr);
}

TEST_F(SampleGguf, WrongTypeErrorsNameTheKeyAndBothTypes) {
  const auto expect = [](const std::string& text, const char* key, const char* expected, const char* found) {
    for (const char* part : {"sample.gguf", key, expected, found}) EXPECT_THAT(text, HasSubstr(part));
  };
  expect(error_of([&] { file_.integer("string"); }), "'string'", "an integer", "found string");
  expect(error_of([&] { file_.integer("f32"); }), "'f32'", "an integer", "found float32");
  expect(error_of([&] { file_.integer("bool"); }), "'bool'", "an integer", "found bool");
  expect(error_of([&] { file_.integer("integers"); }), "'integers'", "an integer", "an array of 3 × int32");
  expect(error_of([&] { file_.number("bool"); }), "'bool'", "a number", "found bool");
  expect(error_of([&] { file_.boolean("u8"); }), "'u8'", "a bool", "found uint8");
  expect(error_of([&] { file_.string("strings"); }), "'strings'", "a string", "an array of 3 × string");
  expect(error_of([&] { file_.strings("floats"); }), "'floats'", "an array of strings", "an array of 2 × float32");
  expect(error_of([&] { file_.floats("strings"); }), "'strings'", "an array of numbers", "an array of 3 × string");
  expect(error_of([&] { file_.integers("floats"); }), "'floats'", "an array of integers", "float32");
  expect(error_of([&] { file_.integers("u8"); }), "'u8'", "an array of integers", "found uint8");
}

TEST_F(SampleGguf, IntegersBeyondInt64AreErrors) {
  EXPECT_THAT(error_of([&] { file_.integer("u64"); }), HasSubstr("9223372036854775808"));
}

TEST_F(SampleGguf, MissingRequiredKeyErrorNamesIt) {
  EXPECT_EQ(file_.required_integer("u8"), 200);
  EXPECT_THAT(error_of([&] { file_.required_integer("llama.block_count"); }), HasSubstr("'llama.block_count'"));
}

TEST_F(SampleGguf, MissingTensorErrorNamesItAndTheExpectedShape) {
  const std::string text = error_of([&] { file_.tensor("blk.7.attn_q.weight", std::vector<int64_t>{64, 32}); });
  EXPECT_THAT(text, HasSubstr("'blk.7.attn_q.weight' is missing"));
  EXPECT_THAT(text, HasSubstr("[64, 32]"));
}

TEST_F(SampleGguf, WrongShapeErrorsShowBothShapes) {
  const std::vector<int64_t> wrong[] = {{3, 4}, {4}, {4, 3, 2}, {4, 4}, {}};
  for (const auto& shape : wrong) {
    EXPECT_THAT(error_of([&] { file_.tensor("first", shape); }), HasSubstr("found [4, 3]"));
  }
  EXPECT_EQ(&file_.tensor("first", std::vector<int64_t>{4, 3, 1}), &file_.tensors()[0]);
  EXPECT_EQ(&file_.tensor("third", std::vector<int64_t>{5, 1}), &file_.tensors()[2]);
}

TEST(Gguf, VersionTwoReadsLikeVersionThree) {
  std::vector<std::byte> bytes = sample_writer().bytes();
  bytes[4] = std::byte{2};
  const Gguf file = Gguf::parse(bytes, "sample.gguf");
  EXPECT_EQ(file.version(), 2);
  EXPECT_EQ(file.tensors().size(), 3);
}

TEST(Gguf, MovedFileStaysMapped) {
  const std::string path = testing::TempDir() + "fathom_move.gguf";
  sample_writer().write(path);
  Gguf first = Gguf::open(path);
  const Gguf second = std::move(first);
  EXPECT_EQ(second.name(), path);
  EXPECT_EQ(second.string("string"), "a line\nand \xc3\xa9");
  EXPECT_EQ(second.find_tensor("third")->data[9], std::byte{4});
  std::filesystem::remove(path);
}

TEST(GgufWriter, CopyHasTheSameBytes) {
  const std::vector<std::byte> bytes = sample_writer().bytes();
  const Gguf file = Gguf::parse(bytes, "sample.gguf");
  GgufWriter copy;
  for (std::string_view key : file.keys()) copy.set_value(std::string(key), *file.find(key));
  for (const GgufTensor& t : file.tensors())
    copy.add_tensor(std::string(t.name), t.type, t.shape, {t.data, t.bytes});
  EXPECT_EQ(copy.bytes(), bytes);
}

TEST(GgufWriter, EmptyFileIsValid) {
  const std::vector<std::byte> bytes = GgufWriter().bytes();
  const Gguf file = Gguf::parse(bytes, "empty.gguf");
  EXPECT_TRUE(file.keys().empty());
  EXPECT_TRUE(file.tensors().empty());
}

TEST(GgufWriter, AlignmentKeyAlignsTheTensors) {
  for (uint64_t alignment : {8, 64, 4096}) {
    GgufWriter writer = sample_writer();
    writer.set("general.alignment", GgufType::kU32, alignment);
    const std::vector<std::byte> bytes = writer.bytes();
    const Gguf file = Gguf::parse(bytes, "sample.gguf");
    for (const GgufTensor& tensor : file.tensors()) EXPECT_EQ((tensor.data - bytes.data()) % alignment, 0);
    EXPECT_EQ(file.find_tensor("third")->data[0], std::byte{4});
  }
  for (uint64_t alignment : {0, 4, 24, 1 << 21}) {
    EXPECT_THROW(GgufWriter().set("general.alignment", GgufType::kU32, alignment), Error) << alignment;
  }
}

TEST(GgufWriter, SettingAKeyAgainReplacesItsValue) {
  GgufWriter writer;
  writer.set_string("a", "old");
  writer.set_string("b", "other");
  writer.set_floats("a", {1});
  const std::vector<std::byte> bytes = writer.bytes();
  const Gguf file = Gguf::parse(bytes, "sample.gguf");
  EXPECT_THAT(file.keys(), ElementsAre("a", "b"));
  EXPECT_THAT(*file.floats("a"), ElementsAre(1));
}

TEST(GgufWriter, ValuesThatDoNotFitTheirTypeAreErrors) {
  GgufWriter writer;
  EXPECT_THROW(writer.set("a", GgufType::kU8, uint64_t{256}), Error);
  EXPECT_THROW(writer.set("a", GgufType::kU8, int64_t{-1}), Error);
  EXPECT_THROW(writer.set("a", GgufType::kI64, uint64_t{1} << 63), Error);
  EXPECT_THROW(writer.set("a", GgufType::kF32, 1e39), Error);
  EXPECT_THROW(writer.set("a", GgufType::kF32, uint64_t{1}), Error);
  EXPECT_THROW(writer.set("a", GgufType::kU8, 1.0), Error);
  EXPECT_THROW(writer.set("a", GgufType::kBool, uint64_t{1}), Error);
  EXPECT_THROW(writer.set("a", GgufType::kString, true), Error);
  EXPECT_THROW(writer.set("a", GgufType::kArray, uint64_t{1}), Error);
  EXPECT_THROW(writer.set("", GgufType::kU8, uint64_t{1}), Error);
  EXPECT_TRUE(Gguf::parse(writer.bytes(), "empty").keys().empty());
}

TEST(GgufWriter, InconsistentTensorsAreErrors) {
  GgufWriter writer;
  const std::vector<std::byte> data(68);
  writer.add_tensor("a", WeightType::kQ8_0, {32, 2}, data);
  const auto error = [&](const char* name, WeightType type, std::vector<int64_t> shape) {
    return error_of([&] { writer.add_tensor(name, type, std::move(shape), data); });
  };
  EXPECT_THAT(error("a", WeightType::kQ8_0, {32, 2}), HasSubstr("twice"));
  EXPECT_THAT(error("b", WeightType::kQ8_0, {32, 3}), HasSubstr("expected 102 bytes"));
  EXPECT_THAT(error("b", WeightType::kQ8_0, {33}), HasSubstr("multiple of 32"));
  EXPECT_THAT(error("b", WeightType::kF32, {0}), HasSubstr("[0]"));
  EXPECT_THAT(error("b", WeightType::kF32, {}), HasSubstr("1 to 4 dimensions"));
  EXPECT_THAT(error("b", WeightType::kF32, {1, 1, 1, 1, 1}), HasSubstr("1 to 4 dimensions"));
  EXPECT_THAT(error("b", WeightType::kF32, {INT64_MAX, INT64_MAX}), HasSubstr("2^63"));
}

TEST(GgufWriter, FailedWriteErrorNamesTheFile) {
  EXPECT_THAT(error_of([] { sample_writer().write("/dev/full"); }), HasSubstr("/dev/full"));
  EXPECT_THAT(error_of([] { sample_writer().write("/nowhere/at/all.gguf"); }), HasSubstr("/nowhere/at/all.gguf"));
}

}  // namespace
}  // namespace fathom::test
