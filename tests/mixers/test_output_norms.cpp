#include "mixers/output_norms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/quantize.h"
#include "seed.h"

namespace fathom {
namespace {

std::vector<float> noise(int64_t n, uint32_t seed) {
  std::mt19937 random(test::seed(seed));
  std::vector<float> numbers(n);
  for (float& x : numbers) x = std::normal_distribution<float>()(random);
  return numbers;
}

// The reference follows the definition in double. Heads share values, and the width is not a multiple of block
// sizes.
TEST(OutputNorms, EqualTheReference) {
  for (const WeightType type : {WeightType::kF32, WeightType::kQ8_0, WeightType::kQ4_0}) {
    const int heads = 6, kv_heads = 2, dim = 32;
    const int64_t width = 131, rows = 37, cols = heads * dim;
    const std::vector<float> weights = noise(width * cols, 1), values = noise(kv_heads * rows * dim, 2);
    std::vector<std::byte> bytes(width * row_bytes(type, cols));
    std::vector<float> plain(width * cols);
    for (int64_t r = 0; r < width; ++r) {
      std::byte* row = bytes.data() + r * row_bytes(type, cols);
      quantize_row(type, weights.data() + r * cols, row, cols);
      dequantize_row(type, row, plain.data() + r * cols, cols);
    }
    const Matrix projection{type, bytes.data(), width, cols};
    std::vector<float> found(kv_heads * rows, NAN), alone(kv_heads * rows);
    ThreadPool two(2), one(1);
    output_norms({heads, kv_heads, dim, &projection}, rows, values.data(), found.data(), two, kernels());
    output_norms({heads, kv_heads, dim, &projection}, rows, values.data(), alone.data(), one, kernels());
    EXPECT_EQ(found, alone) << "threads do not change results";
    for (int64_t i = 0; i < kv_heads * rows; ++i) {
      double expected = 0;
      for (int64_t head = i / rows * 3; head < (i / rows + 1) * 3; ++head) {
        for (int64_t r = 0; r < width; ++r) {
          double sum = 0;
          for (int d = 0; d < dim; ++d)
            sum += static_cast<double>(plain[r * cols + head * dim + d]) * values[i * dim + d];
          expected += std::fabs(sum) / 3;
        }
      }
      EXPECT_NEAR(found[i], expected, 1e-4 * expected);
    }
  }
}

}  // namespace
}  // namespace fathom
