// Matrix products on one thread: weights per second, by instruction set and weight type.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "base/aligned.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"

namespace fathom {
namespace {

constexpr int64_t kRows = 2048, kCols = 2048;  // a projection of a 1B model: beyond the L2 cache in any type

struct Weights {
  explicit Weights(WeightType type) : bytes(kRows * row_bytes(type, kCols)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<float> row(kCols);
    for (float& v : row) v = normal(random);
    for (int64_t r = 0; r < kRows; ++r)
      quantize_row(type, row.data(), bytes.data() + r * row_bytes(type, kCols), kCols);
    matrix = {type, bytes.data(), kRows, kCols};
  }
  AlignedBuffer<std::byte> bytes;
  Matrix matrix;
};

struct Rows {
  Rows(const Kernels& table, int64_t rows)
      : f32(rows * kCols), q(rows * kCols), scale(rows * kCols / 16), sum(rows * kCols / 16) {
    for (size_t i = 0; i < f32.size(); ++i) f32[i] = static_cast<float>(i % 17) - 8;
    for (int64_t i = 0; i < rows; ++i) {
      table.quantize_activations(f32.data() + i * kCols, kCols, q.data() + i * kCols, scale.data() + i * kCols / 16,
                                 sum.data() + i * kCols / 16);
    }
    view = {rows, kCols, f32.data(), q.data(), scale.data(), sum.data()};
  }
  AlignedBuffer<float> f32;
  AlignedBuffer<int8_t> q;
  AlignedBuffer<float> scale, sum;
  ActivationRows view;
};

void multiply(benchmark::State& state, const std::string& isa, WeightType type, int64_t rows) {
  const Kernels& table = kernels(isa);
  const Weights weights(type);
  const Rows x(table, rows);
  std::vector<float> y(rows * kRows);
  for (auto _ : state) {
    (rows == 1 ? table.matvec : table.matmul)(weights.matrix, 0, kRows, x.view, y.data(), kRows);
    benchmark::DoNotOptimize(y.data());
  }
  const double operations = static_cast<double>(state.iterations()) * rows * kRows * kCols;
  state.counters["multiply-adds/s"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
  if (rows == 1)
    state.counters["weight bytes/s"] = benchmark::Counter(
        static_cast<double>(state.iterations()) * weights.matrix.bytes(), benchmark::Counter::kIsRate);
}

/// What the matmuls can reach at most.
void peak(benchmark::State& state, const std::string& isa) {
  float sink = 0;
  double operations = 0;
  for (auto _ : state) operations += static_cast<double>(kernels(isa).peak(1 << 22, &sink));
  benchmark::DoNotOptimize(sink);
  state.counters["multiply-adds/s"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
}

const int kRegistered = [] {
  for (const std::string& isa : available_isas()) {
    if (isa == "reference") continue;
    benchmark::RegisterBenchmark(("peak/" + isa).c_str(), peak, isa);
    for (const WeightType type : {WeightType::kF32, WeightType::kF16, WeightType::kBF16, WeightType::kQ8_0,
                                  WeightType::kQ4_0, WeightType::kQ2_K, WeightType::kQ3_K, WeightType::kQ4_K,
                                  WeightType::kQ5_K, WeightType::kQ6_K, WeightType::kIQ4_XS}) {
      for (const int64_t rows : {1, 256}) {
        const std::string name = std::string(rows == 1 ? "matvec/" : "matmul/") + isa + "/" + info(type).name;
        benchmark::RegisterBenchmark(name.c_str(), multiply, isa, type, rows);
      }
    }
  }
  return 0;
}();

}  // namespace
}  // namespace fathom
