#include "models/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "kernels/blocks.h"
#include "kernels/quantize.h"

namespace fathom {

Matrix GgufWeights::matrix(const std::string& name, int64_t rows, int64_t cols) {
  const int64_t shape[] = {cols, rows};
  const GgufTensor& tensor = file_.tensor(name, shape);
  return {tensor.type, tensor.data, rows, cols};
}

std::vector<float> WeightSource::matrix_floats(const std::string& name, int64_t rows, int64_t cols) {
  const Matrix from = matrix(name, rows, cols);
  std::vector<float> values(rows * cols);
  for (int64_t r = 0; r < rows; ++r) dequantize_row(from.type, from.row(r), values.data() + r * cols, cols);
  return values;
}

Matrix GgufWeights::stack(const std::string& name, int64_t count, int64_t rows, int64_t cols) {
  const int64_t shape[] = {cols, rows, count};
  const GgufTensor& tensor = file_.tensor(name, shape);
  return {tensor.type, tensor.data, count * rows, cols};
}

std::vector<float> GgufWeights::vector(const std::string& name, int64_t n) {
  const int64_t shape[] = {n};
  const GgufTensor& tensor = file_.tensor(name, shape);
  std::vector<float> values(n);
  dequantize_row(tensor.type, tensor.data, values.data(), n);
  return values;
}

bool RandomWeights::has(const std::string& name) const { return name == "output.weight" && !tied_output_; }

std::vector<float> RandomWeights::vector(const std::string&, int64_t n) { return std::vector<float>(n, 1.0f); }

Matrix RandomWeights::matrix(const std::string&, int64_t rows, int64_t cols) {
  const WeightTypeInfo& type = info(type_);
  if (cols % type.block != 0)
    fail("shape: expected rows of a multiple of ", type.block, " weights (a block of ", type.name, "), found ",
         cols);
  // A few blocks of scaled, approximately normal weights are copied in random order: realistic values at the cost
  // of a copy.
  constexpr int64_t kPatterns = 64;
  const int64_t blocks = cols / type.block;
  std::vector<float> values(type.block);
  std::vector<std::byte> patterns(kPatterns * type.bytes);
  const auto next = [&] {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  };
  const float deviation = 1.0f / std::sqrt(static_cast<float>(cols));
  for (int64_t p = 0; p < kPatterns; ++p) {
    for (float& v : values) {
      float sum = 0;  // the sum of four uniform numbers is approximately normal
      for (int i = 0; i < 4; ++i) sum += static_cast<float>(next() >> 40) / static_cast<float>(1 << 24) - 0.5f;
      v = sum * std::sqrt(3.0f) * deviation;
    }
    quantize_row(type_, values.data(), patterns.data() + p * type.bytes, type.block);
  }
  owned_.emplace_back(rows * blocks * type.bytes);
  std::byte* out = owned_.back().data();
  for (int64_t b = 0; b < rows * blocks; ++b)
    std::memcpy(out + b * type.bytes, patterns.data() + (next() >> 32) % kPatterns * type.bytes, type.bytes);
  return {type_, owned_.back().data(), rows, cols};
}

}  // namespace fathom
