#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include "formats/gguf.h"
#include "kernels/quantize.h"
#include "sample_gguf.h"
#include "seed.h"

namespace fathom::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kHuge[] = {uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 31, uint64_t{1} << 32, 1'000'000};

/// A GGUF file assembled field by field, so that it can contain values that no writer produces.
class RawFile {
 public:
  RawFile(uint64_t tensors, uint64_t values) { text("GGUF").put<uint32_t>(3).put(tensors).put(values); }

  template <class T>
  RawFile& put(T value) {
    bytes_.resize(bytes_.size() + sizeof(T));
    std::memcpy(bytes_.data() + bytes_.size() - sizeof(T), &value, sizeof(T));
    return *this;
  }
  RawFile& text(std::string_view text) {
    for (char c : text) put(c);
    return *this;
  }
  RawFile& string(std::string_view value) { return put<uint64_t>(value.size()).text(value); }
  RawFile& key(std::string_view name, GgufType type) { return string(name).put(type); }
  RawFile& tensor(std::string_view name, const std::vector<uint64_t>& shape, uint32_t type, uint64_t offset) {
    string(name).put(static_cast<uint32_t>(shape.size()));
    for (uint64_t dim : shape) put(dim);
    return put(type).put(offset);
  }
  /// Pads to 32 bytes, then appends `count` bytes of data.
  RawFile& data(size_t count) {
    bytes_.resize((bytes_.size() + 31) / 32 * 32 + count);
    return *this;
  }
  std::string error() const { return parse_error(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

constexpr uint32_t kF32 = 0, kQ8_0 = 8;

void write_text(const std::string& path, std::string_view text) { std::ofstream(path, std::ios::binary) << text; }

TEST(NotGguf, AbsentFileAndFolderErrorsNameThePath) {
  EXPECT_THAT(error_of([] { Gguf::open("/no/such/file.gguf"); }), HasSubstr("/no/such/file.gguf"));
  EXPECT_THAT(error_of([] { Gguf::open("/"); }), HasSubstr("not a regular file"));
}

TEST(NotGguf, OtherFormatsAreRecognisedByTheirFirstBytes) {
  const std::pair<std::string_view, const char*> kFiles[] = {
      {"", "an empty file"},
      {"\xff\xd8\xff\xe0JFIF", "a JPEG picture"},
      {"PK\x03\x04..........", "a zip archive"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:12", "git lfs pull"},
      {"<!DOCTYPE html>", "HTML"},
      {"Once upon a time", "'Once upon a time'"},
      {"GGU", "'GGU'"},
      {"\x1b[2Jgone", "'\\x1b[2Jgone'"},
  };
  const std::string path = testing::TempDir() + "fathom_not.gguf";
  for (const auto& [start, kind] : kFiles) {
    write_text(path, start);
    EXPECT_THAT(error_of([&] { Gguf::open(path); }), AllOf(HasSubstr(path), HasSubstr(kind)));
  }
  std::filesystem::remove(path);
}

TEST(NotGguf, UnsupportedVersionsAndByteOrdersAreReported) {
  for (uint32_t version : {0u, 1u, 4u, 0xffffffffu}) {
    std::vector<std::byte> bytes = sample_writer().bytes();
    std::memcpy(bytes.data() + 4, &version, sizeof(version));
    EXPECT_THAT(parse_error(bytes), HasSubstr("version " + std::to_string(version)));
  }
  std::vector<std::byte> bytes = sample_writer().bytes();
  std::reverse(bytes.begin() + 4, bytes.begin() + 8);
  EXPECT_THAT(parse_error(bytes), HasSubstr("big-endian"));
}

TEST(Truncated, EveryPrefixIsAnErrorThatNamesTheFile) {
  const std::vector<std::byte> whole = sample_writer().bytes();
  const Gguf file = Gguf::parse(whole, "whole");
  const GgufTensor& last = *file.find_tensor("third");
  const size_t needed = static_cast<size_t>(last.data - whole.data()) + last.bytes;
  for (size_t size = 0; size < needed; ++size) {
    const std::vector<std::byte> start(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_THAT(parse_error(start), HasSubstr("sample.gguf: ")) << size;
  }
  EXPECT_EQ(parse_error(std::span(whole).first(needed)), "");
}

TEST(Truncated, LargeFilesCutAtAnyPageBoundaryAreErrors) {
  GgufWriter writer;
  writer.set_strings("tokens", std::vector<std::string>(5000, "a word"));
  writer.add_tensor("big", WeightType::kF32, {64, 256}, std::vector<std::byte>(64 * 256 * 4));
  const std::vector<std::byte> whole = writer.bytes();
  for (size_t size = 4096; size < whole.size(); size += 4096) {
    const std::vector<std::byte> start(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_THAT(parse_error(start), HasSubstr(std::to_string(size)));
  }
}

TEST(HostileCounts, CountsThatExceedTheFileAreErrors) {
  for (uint64_t count : kHuge) {
    const std::string number = std::to_string(count);
    EXPECT_THAT(RawFile(count, 0).data(64).error(), AllOf(HasSubstr("tensor count"), HasSubstr(number)));
    EXPECT_THAT(RawFile(0, count).data(64).error(), AllOf(HasSubstr("metadata count"), HasSubstr(number)));
    EXPECT_THAT(RawFile(0, 1).put(count).data(64).error(), AllOf(HasSubstr("key"), HasSubstr(number)));
    EXPECT_THAT(RawFile(0, 1).key("k", GgufType::kString).put(count).data(64).error(),
                AllOf(HasSubstr("'k'"), HasSubstr(number)));
    for (GgufType type : {GgufType::kU8, GgufType::kF64, GgufType::kBool, GgufType::kString}) {
      EXPECT_THAT(RawFile(0, 1).key("k", GgufType::kArray).put(type).put(count).data(64).error(),
                  AllOf(HasSubstr("'k'"), HasSubstr(number)));
    }
    RawFile strings(0, 1);
    strings.key("k", GgufType::kArray).put(GgufType::kString).put(uint64_t{2}).string("one").put(count).data(64);
    EXPECT_THAT(strings.error(), AllOf(HasSubstr("'k'"), HasSubstr(number)));
    EXPECT_THAT(RawFile(1, 0).put(count).data(64).error(), AllOf(HasSubstr("tensor name"), HasSubstr(number)));
  }
}

TEST(HostileMetadata, UnknownTypesAreErrors) {
  RawFile value(0, 1), element(0, 1);
  value.key("k", GgufType{13}).data(64);
  element.key("k", GgufType::kArray).put(uint32_t{99}).put(uint64_t{1}).data(64);
  EXPECT_THAT(value.error(), AllOf(HasSubstr("'k'"), HasSubstr("value type"), HasSubstr("found 13")));
  EXPECT_THAT(element.error(), AllOf(HasSubstr("'k'"), HasSubstr("element type"), HasSubstr("found 99")));
}

TEST(HostileMetadata, NestedArraysAreErrors) {
  RawFile file(0, 1);
  file.string("deep");
  for (int depth = 0; depth < 1000; ++depth) file.put(GgufType::kArray).put(GgufType::kArray).put(uint64_t{1});
  EXPECT_THAT(file.error(), AllOf(HasSubstr("'deep'"), HasSubstr("array of arrays")));
}

TEST(HostileMetadata, BoolsBeyondOneAreErrors) {
  RawFile scalar(0, 1), array(0, 1);
  scalar.key("k", GgufType::kBool).put(uint8_t{2});
  array.key("k", GgufType::kArray).put(GgufType::kBool).put(uint64_t{3}).put(uint8_t{1}).put(uint8_t{0});
  array.put(uint8_t{255});
  EXPECT_THAT(scalar.error(), AllOf(HasSubstr("'k'"), HasSubstr("found 2")));
  EXPECT_THAT(array.error(), AllOf(HasSubstr("'k'"), HasSubstr("found 255")));
}

TEST(HostileMetadata, DuplicateAndEmptyKeysAreErrors) {
  RawFile twice(0, 2), empty(0, 1);
  twice.key("k", GgufType::kU8).put(uint8_t{1}).key("k", GgufType::kBool).put(uint8_t{1});
  empty.key("", GgufType::kU8).put(uint8_t{1});
  EXPECT_THAT(twice.error(), HasSubstr("'k': occurs twice"));
  EXPECT_THAT(empty.error(), HasSubstr("found 0"));
}

TEST(HostileMetadata, InvalidAlignmentIsAnError) {
  for (uint32_t alignment : {0u, 1u, 4u, 33u, 48u, 1u << 21, 0x80000000u, 0xffffffffu}) {
    RawFile file(0, 1);
    file.key("general.alignment", GgufType::kU32).put(alignment);
    EXPECT_THAT(file.error(), AllOf(HasSubstr("general.alignment"), HasSubstr("power of two"))) << alignment;
  }
  RawFile text(0, 1), negative(0, 1);
  text.key("general.alignment", GgufType::kString).string("32");
  negative.key("general.alignment", GgufType::kI64).put(INT64_MIN);
  EXPECT_THAT(text.error(), HasSubstr("power of two"));
  EXPECT_THAT(negative.error(), HasSubstr("power of two"));
}

TEST(HostileTensors, UnknownWeightTypeErrorsListKnownTypes) {
  for (uint32_t type : {4u, 9u, 31u, 0xffffffffu}) {
    EXPECT_THAT(RawFile(1, 0).tensor("t", {32}, type, 0).data(128).error(),
                AllOf(HasSubstr("'t'"), HasSubstr(std::to_string(type)), HasSubstr("q4_k")));
  }
}

TEST(HostileTensors, DimensionsOutOfRangeAreErrors) {
  EXPECT_THAT(RawFile(1, 0).tensor("t", {}, kF32, 0).data(64).error(), HasSubstr("expected 1 to 4, found 0"));
  EXPECT_THAT(RawFile(1, 0).tensor("t", {1, 1, 1, 1, 1}, kF32, 0).data(64).error(), HasSubstr("found 5"));
  EXPECT_THAT(RawFile(1, 0).string("t").put(UINT32_MAX).data(64).error(), HasSubstr("found 4294967295"));
  EXPECT_THAT(RawFile(1, 0).tensor("t", {4, 0}, kF32, 0).data(64).error(), HasSubstr("dimension 1"));
  EXPECT_THAT(RawFile(1, 0).tensor("t", {uint64_t{1} << 63}, kF32, 0).data(64).error(), HasSubstr("dimension 0"));
  EXPECT_THAT(RawFile(1, 0).tensor("t", {UINT64_MAX, 2}, kF32, 0).data(64).error(), HasSubstr("dimension 0"));
}

TEST(HostileTensors, SizesThatOverflowAreErrors) {
  const std::vector<uint64_t> kShapes[] = {
      {uint64_t{1} << 62},                           // times 4 bytes is 2^64
      {uint64_t{1} << 32, uint64_t{1} << 32},        // 2^64 weights
      {uint64_t{1} << 31, uint64_t{1} << 31, 4, 1},  // wraps to a small number
      {uint64_t{1} << 62, uint64_t{1} << 62, uint64_t{1} << 62, 8},
      {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX},
  };
  for (const auto& shape : kShapes) {
    EXPECT_THAT(RawFile(1, 0).tensor("t", shape, kF32, 0).data(64).error(),
                AllOf(HasSubstr("'t'"), HasSubstr("2^63")));
  }
}

TEST(HostileTensors, RowsWithPartialBlocksAreErrors) {
  EXPECT_THAT(RawFile(1, 0).tensor("t", {33, 32}, kQ8_0, 0).data(4096).error(),
              AllOf(HasSubstr("'t'"), HasSubstr("multiple of 32"), HasSubstr("[33, 32]")));
}

TEST(HostileTensors, DataOutsideTheFileIsAnError) {
  EXPECT_EQ(RawFile(1, 0).tensor("t", {16}, kF32, 0).data(64).error(), "");
  EXPECT_THAT(RawFile(1, 0).tensor("t", {16}, kF32, 0).data(63).error(), HasSubstr("'t': its 64 bytes"));
  EXPECT_THAT(RawFile(1, 0).tensor("t", {16}, kF32, 32).data(64).error(), HasSubstr("'t': its 64 bytes"));
  EXPECT_THAT(RawFile(1, 0).tensor("t", {16}, kF32, 0).error(), HasSubstr("'t': its 64 bytes"));
  for (uint64_t offset : {uint64_t{1} << 63, UINT64_MAX - 31, UINT64_MAX - 63}) {
    EXPECT_THAT(RawFile(1, 0).tensor("t", {16}, kF32, offset).data(64).error(), HasSubstr("'t': its 64 bytes"));
  }
}

TEST(HostileTensors, MisalignedOffsetsAreErrors) {
  for (uint64_t offset : {1, 2, 16, 31, 33}) {
    EXPECT_THAT(RawFile(1, 0).tensor("t", {1}, kF32, offset).data(64).error(),
                AllOf(HasSubstr("'t'"), HasSubstr("multiple of the alignment, 32")))
        << offset;
  }
}

TEST(HostileTensors, OverlapErrorsNameBothTensors) {
  RawFile partial(3, 0), same(2, 0), inside(2, 0), separate(2, 0);
  partial.tensor("c", {8}, kF32, 128).tensor("a", {17}, kF32, 0).tensor("b", {8}, kF32, 64).data(256);
  same.tensor("a", {8}, kF32, 32).tensor("b", {8}, kF32, 32).data(256);
  inside.tensor("b", {1}, kF32, 32).tensor("a", {64}, kF32, 0).data(256);
  separate.tensor("b", {8}, kF32, 64).tensor("a", {16}, kF32, 0).data(256);
  EXPECT_THAT(partial.error(), AllOf(HasSubstr("'a'"), HasSubstr("'b'"), HasSubstr("overlap")));
  EXPECT_THAT(same.error(), AllOf(HasSubstr("'a'"), HasSubstr("'b'"), HasSubstr("overlap")));
  EXPECT_THAT(inside.error(), AllOf(HasSubstr("'a'"), HasSubstr("'b'"), HasSubstr("overlap")));
  EXPECT_EQ(separate.error(), "");
}

TEST(HostileTensors, DuplicateNamesAreErrors) {
  EXPECT_THAT(RawFile(2, 0).tensor("t", {8}, kF32, 0).tensor("t", {8}, kF32, 32).data(64).error(),
              HasSubstr("'t': occurs twice"));
}

TEST(HostileTensors, NamesInErrorsAreEscapedAndCut) {
  const std::string name = "\x1b]0;evil\a" + std::string(500, 'x');
  const std::string text = RawFile(1, 0).tensor(name, {8}, 77, 0).data(64).error();
  EXPECT_THAT(text, HasSubstr("'\\x1b]0;evil\\x07xxx"));
  EXPECT_LT(text.size(), 400);
  EXPECT_TRUE(std::none_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20; }));
}

/// Reads every value as every type, and all weights. Only Error may be thrown.
void read_everything(const Gguf& file) {
  for (std::string_view key : file.keys()) {
    const auto read = [&](auto accessor) { error_of([&] { (file.*accessor)(key); }); };
    read(&Gguf::integer);
    read(&Gguf::number);
    read(&Gguf::boolean);
    read(&Gguf::string);
    read(&Gguf::strings);
    read(&Gguf::floats);
    read(&Gguf::integers);
  }
  for (const GgufTensor& tensor : file.tensors()) {
    int64_t n = 1;
    for (int64_t dim : tensor.shape) n *= dim;
    std::vector<float> weights(n);
    dequantize_row(tensor.type, tensor.data, weights.data(), n);
  }
}

TEST(Mutated, FilesEitherParseOrThrowError) {
  constexpr uint32_t kSeed = 20;
  constexpr int kMutations = 10000;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 random(test::seed(kSeed));
  const std::vector<std::byte> whole = sample_writer().bytes();
  int parsed = 0;
  for (int i = 0; i < kMutations; ++i) {
    std::vector<std::byte> bytes = whole;
    const int changes = 1 + static_cast<int>(random() % 4);
    for (int c = 0; c < changes; ++c) {
      const size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[at] = static_cast<std::byte>(random());
          break;
        case 1:
          bytes[at] ^= static_cast<std::byte>(1 << random() % 8);
          break;
        case 2:
          std::fill_n(bytes.begin() + at, std::min<size_t>(8, bytes.size() - at), std::byte{0xff});
          break;
        default:
          bytes.resize(at + 1);
          break;
      }
    }
    bytes.shrink_to_fit();
    const std::string text = error_of([&] {
      read_everything(Gguf::parse(bytes, "sample.gguf"));
      ++parsed;
    });
    EXPECT_TRUE(text.empty() || text.starts_with("sample.gguf: ")) << text;
  }
  EXPECT_GT(parsed, kMutations / 100);       // some mutations are harmless, …
  EXPECT_LT(parsed, kMutations * 99 / 100);  // … and some are not
}

}  // namespace
}  // namespace fathom::test
