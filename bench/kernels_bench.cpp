// Kernels on one thread: weights or queries per second, by instruction set and weight type.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "base/aligned.h"
#include "kernels/matmul.h"
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
  Rows(const Kernels& table, int64_t rows) {
    buffer.resize(rows, kCols);
    for (int64_t i = 0; i < rows * kCols; ++i) buffer.data()[i] = static_cast<float>(i % 17) - 8;
    ThreadPool pool(1);
    buffer.quantize(pool, table);
    if (table.pack_activations) buffer.pack(pool, table, true);
  }
  ActivationBuffer buffer;
};

void multiply(benchmark::State& state, const std::string& isa, WeightType type, int64_t rows) {
  const Kernels& table = kernels(isa);
  const Weights weights(type);
  const Rows rows_of_x(table, rows);
  const ActivationRows x = rows_of_x.buffer.view();
  std::vector<float> y(rows * kRows);
  for (auto _ : state) {
    (rows == 1 ? table.matvec : table.matmul)(weights.matrix, 0, kRows, x, y.data(), kRows);
    benchmark::DoNotOptimize(y.data());
  }
  const double operations = static_cast<double>(state.iterations()) * rows * kRows * kCols;
  state.counters["multiply-adds/s"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
  if (rows == 1)
    state.counters["weight bytes/s"] = benchmark::Counter(
        static_cast<double>(state.iterations()) * weights.matrix.bytes(), benchmark::Counter::kIsRate);
}

void attend(benchmark::State& state, const std::string& isa, int rows) {
  constexpr int kDim = 64, kGroup = 4, kPages = 64;
  const Kernels& table = kernels(isa);
  AlignedBuffer<uint16_t> pages(kPages * 2 * kDim * kPageTokens);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = f32_to_bf16(static_cast<float>(i % 13) * 0.1f - 0.6f);
  std::vector<float> queries(rows * kGroup * kDim, 0.1f), out(queries.size()), lse(rows * kGroup), turn(kDim, 0.7f);
  std::vector<PageRead> reads(kPages);
  for (int p = 0; p < kPages; ++p) {
    const uint16_t* keys = pages.data() + p * 2 * kDim * kPageTokens;
    reads[p] = {reinterpret_cast<const std::byte*>(keys),
                reinterpret_cast<const std::byte*>(keys + kDim * kPageTokens),
                turn.data(),
                turn.data(),
                ~uint64_t{0},
                nullptr};
  }
  AlignedBuffer<float> scratch(attend_scratch(kDim, kDim, rows * kGroup));
  const AttendTask task{PageFormat::kBF16, kDim,         kDim,   kDim,       rows,       kGroup,
                        queries.data(),    reads.data(), kPages, out.data(), lse.data(), nullptr};
  for (auto _ : state) {
    table.attend(task, scratch.data());
    benchmark::DoNotOptimize(out.data());
  }
  const double pairs = static_cast<double>(state.iterations()) * rows * kGroup * kPages * kPageTokens;
  state.counters["multiply-adds/s"] = benchmark::Counter(pairs * 2 * kDim, benchmark::Counter::kIsRate);
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
    for (const int rows : {1, 32})
      benchmark::RegisterBenchmark(("attend/" + isa + "/rows:" + std::to_string(rows)).c_str(), attend, isa, rows);
  }
  return 0;
}();

}  // namespace
}  // namespace fathom
