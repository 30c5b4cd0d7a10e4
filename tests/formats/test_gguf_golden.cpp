#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/file_map.h"
#include "formats/gguf.h"
#include "kernels/quantize.h"
#include "shared_data.h"

namespace fathom::test {
namespace {

std::vector<float> weights(const GgufTensor& tensor) {
  int64_t n = 1;
  for (int64_t dim : tensor.shape) n *= dim;
  std::vector<float> out(n);
  dequantize_row(tensor.type, tensor.data, out.data(), n);
  return out;
}

double relative_error(const std::vector<float>& reference, const std::vector<float>& other) {
  double error = 0, square = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    error += (double{reference[i]} - other[i]) * (double{reference[i]} - other[i]);
    square += double{reference[i]} * reference[i];
  }
  return std::sqrt(error / square);
}

class GoldenWeights : public testing::TestWithParam<const char*> {};

/// Compares the same weights in other formats, quantised by another engine. Each bound is the largest measured
/// error plus 2 %.
TEST_P(GoldenWeights, DequantiseCloseToTheHalfPrecisionFile) {
  const std::map<WeightType, double> kBounds = {
      {WeightType::kF32, 0},       {WeightType::kBF16, 0.00173}, {WeightType::kQ8_0, 0.0055},
      {WeightType::kQ6_K, 0.0182}, {WeightType::kQ5_K, 0.037},   {WeightType::kQ5_0, 0.0439},
      {WeightType::kQ4_K, 0.073},  {WeightType::kQ4_0, 0.0883},  {WeightType::kIQ4_XS, 0.0785},
      {WeightType::kQ3_K, 0.155},  {WeightType::kQ2_K, 0.304},
  };
  const std::string reference_path = shared_path("golden/tiny-llama-f16.gguf"), path = shared_path(GetParam());
  FATHOM_NEEDS(reference_path);
  FATHOM_NEEDS(path);
  const Gguf reference = Gguf::open(reference_path), file = Gguf::open(path);
  EXPECT_EQ(file.tensors().size(), reference.tensors().size());
  for (const GgufTensor& tensor : file.tensors()) {
    const GgufTensor& other = reference.tensor(tensor.name, tensor.shape);
    EXPECT_LE(relative_error(weights(other), weights(tensor)), kBounds.at(tensor.type))
        << tensor.name << " " << info(tensor.type).name;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, GoldenWeights,
                         testing::Values("golden/tiny-llama-bf16.gguf", "golden/tiny-llama-q8_0.gguf",
                                         "golden/tiny-llama-q6_k.gguf", "golden/tiny-llama-q5_k_m.gguf",
                                         "golden/tiny-llama-q5_0.gguf", "golden/tiny-llama-q4_k_m.gguf",
                                         "golden/tiny-llama-q4_0.gguf", "golden/tiny-llama-iq4_xs.gguf",
                                         "golden/tiny-llama-q3_k_m.gguf", "golden/tiny-llama-q2_k.gguf"));

TEST(GoldenFiles, RewrittenFilesHaveTheSameBytes) {
  FATHOM_NEEDS(shared_path("golden"));
  for (const auto& entry : std::filesystem::directory_iterator(shared_path("golden"))) {
    if (entry.path().extension() != ".gguf") continue;
    const Gguf file = Gguf::open(entry.path());
    GgufWriter writer;
    for (std::string_view key : file.keys()) writer.set_value(std::string(key), *file.find(key));
    for (const GgufTensor& t : file.tensors()) {
      writer.add_tensor(std::string(t.name), t.type, t.shape, {t.data, t.bytes});
    }
    const FileMap map(entry.path());
    EXPECT_TRUE(std::ranges::equal(writer.bytes(), map.bytes())) << entry.path();
  }
}

TEST(GoldenFiles, TruncatedFilesAreErrors) {
  const std::string path = shared_path("golden/tiny-llama-q4_0.gguf");
  FATHOM_NEEDS(path);
  const FileMap map(path);
  for (size_t size = 0; size < map.bytes().size(); size += 4096) {
    // A copy, so that the address sanitiser detects a read past the end.
    const std::vector<std::byte> start(map.bytes().begin(), map.bytes().begin() + static_cast<ptrdiff_t>(size));
    EXPECT_THROW(Gguf::parse(start, "truncated"), Error) << size;
  }
}

}  // namespace
}  // namespace fathom::test
