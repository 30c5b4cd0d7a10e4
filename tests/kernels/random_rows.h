#pragma once

#include <random>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"
#include "seed.h"

namespace fathom::test {

inline constexpr WeightType kAllTypes[] = {
    WeightType::kF32,  WeightType::kF16,    WeightType::kBF16,   WeightType::kQ8_0,
    WeightType::kQ4_0, WeightType::kQ4_1,   WeightType::kQ5_0,   WeightType::kQ5_1,
    WeightType::kQ2_K, WeightType::kQ3_K,   WeightType::kQ4_K,   WeightType::kQ5_K,
    WeightType::kQ6_K, WeightType::kIQ4_NL, WeightType::kIQ4_XS, WeightType::kMXFP4};

/// Returns the instruction sets whose products equal the reference except for the order of summation. Matrix tiles
/// round to bfloat16; test_amx_matmul.cpp and test_amx_attend.cpp compare them with exact results.
inline std::vector<std::string> isas_without_tiles() {
  std::vector<std::string> isas = available_isas();
  std::erase(isas, "amx");
  return isas;
}

inline std::vector<float> gaussian(size_t n, uint32_t seed, float deviation = 1.0f) {
  std::mt19937 random(test::seed(seed));
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

/// A matrix that owns its bytes: Gaussian weights rounded to `type`.
struct OwnedMatrix {
  OwnedMatrix(WeightType type, int64_t rows, int64_t cols, uint32_t seed) : bytes(rows * row_bytes(type, cols)) {
    const std::vector<float> values = gaussian(rows * cols, seed, 0.05f);
    for (int64_t r = 0; r < rows; ++r)
      quantize_row(type, values.data() + r * cols, bytes.data() + r * row_bytes(type, cols), cols);
    matrix = {type, bytes.data(), rows, cols};
  }
  AlignedBuffer<std::byte> bytes;
  Matrix matrix;
};

/// Activation rows that own their values, including the 8-bit form in the order in which a table reads it.
struct OwnedActivations {
  OwnedActivations(std::vector<float> rows_of_values, int64_t rows, int64_t cols,
                   const Kernels& reader = kernels("reference"))
      : f32(std::move(rows_of_values)),
        q(rows * padded_columns(cols)),
        scale(rows * padded_columns(cols) / 16),
        sum(scale.size()),
        pair_sum(scale.size() / 2) {
    const Kernels& plain = kernels("reference");
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = i * padded_columns(cols);
      plain.quantize_activations(f32.data() + i * cols, cols, q.data() + at, scale.data() + at / 16,
                                 sum.data() + at / 16, pair_sum.data() + at / 32);
    }
    if (reader.interleaved_activations) {
      const std::vector<int8_t> plain_order = q;
      for (size_t i = 0; i < q.size(); ++i) q[interleaved_column(static_cast<int64_t>(i))] = plain_order[i];
    }
    view = {rows, cols, f32.data(), q.data(), scale.data(), sum.data(), pair_sum.data()};
  }
  std::vector<float> f32;
  std::vector<int8_t> q;
  std::vector<float> scale, sum, pair_sum;
  ActivationRows view;
};

}  // namespace fathom::test
