// Matrix products on one thread, by instruction set and weight type: their rates, also as shares of the machine's
// limits, which are measured first.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <span>
#include <vector>

#include "base/aligned.h"
#include "base/stopwatch.h"
#include "kernels/matmul.h"
#include "kernels/quantize.h"

namespace fathom {
namespace {

constexpr int64_t kRows = 2048, kCols = 2048;  // a projection of a 1B model: larger than the L2 cache in any type
constexpr size_t kStreamBytes = size_t{512} << 20;  // larger than the last-level cache

/// The rates that one thread can reach with the instructions of a table.
struct PeakRates {
  double quantised = 0;  // multiply-adds per second of 8-bit numbers
  double floats = 0;     // of floats or bfloat16 numbers
};

double best_rate(int64_t (*peak)(int64_t, float*)) {
  double best = 0;
  for (int round = 0; peak && round < 5; ++round) {
    float sink = 0;
    const Stopwatch watch;
    const auto done = static_cast<double>(peak(int64_t{1} << 28, &sink));
    best = std::max(best, done / watch.seconds());
    benchmark::DoNotOptimize(sink);
  }
  return best;
}

const PeakRates& limits(const Kernels& table) {
  static std::map<std::string, PeakRates> known;
  PeakRates& limits = known[table.isa];
  if (limits.quantised == 0) {
    limits = {best_rate(table.peak), std::max(best_rate(table.peak_f32), best_rate(table.peak_bf16))};
  }
  return limits;
}

/// Returns the bytes per second that one thread can read of this memory.
double best_read_rate(const Kernels& table, std::span<const std::byte> memory) {
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    const size_t bytes = memory.size() / kReadStep * kReadStep;
    const Stopwatch watch;
    benchmark::DoNotOptimize(table.read(memory.data(), bytes));
    best = std::max(best, static_cast<double>(bytes) / watch.seconds());
  }
  return best;
}

/// Adds the rate of `amount` per iteration, and its share of `limit`.
void count(benchmark::State& state, const char* what, double amount, double limit) {
  const double total = static_cast<double>(state.iterations()) * amount;
  state.counters[what] = benchmark::Counter(total, benchmark::Counter::kIsRate);
  state.counters["share of limit"] = benchmark::Counter(total / limit, benchmark::Counter::kIsRate);
}

struct BenchWeights {
  /// Repeats a few random rows.
  BenchWeights(WeightType type, int64_t rows) : bytes(rows * row_bytes(type, kCols)) {
    constexpr int64_t kDifferent = 64;
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<float> row(kCols);
    const size_t size = row_bytes(type, kCols);
    for (int64_t r = 0; r < rows; ++r) {
      if (r >= kDifferent) {
        std::memcpy(bytes.data() + r * size, bytes.data() + (r - kDifferent) * size, size);
        continue;
      }
      for (float& v : row) v = normal(random);
      quantize_row(type, row.data(), bytes.data() + r * size, kCols);
    }
    matrix = {type, bytes.data(), rows, kCols};
  }
  AlignedBuffer<std::byte> bytes;
  Matrix matrix;
};

struct BenchActivations {
  BenchActivations(const Kernels& table, int64_t rows) {
    buffer.resize(rows, kCols);
    for (int64_t i = 0; i < rows * kCols; ++i) buffer.data()[i] = static_cast<float>(i % 17) - 8;
    ThreadPool pool(1);
    buffer.quantize(pool, table);
    const RowRange all[] = {{0, rows}};
    if (table.pack_activations) buffer.pack(pool, table, true, all);
  }
  ActivationBuffer buffer;
};

/// Decode: one row or a few, and more weights than the caches hold.
void multiply_vector(benchmark::State& state, const std::string& isa, WeightType type, int64_t rows) {
  const Kernels& table = kernels(isa);
  const BenchWeights weights(type, static_cast<int64_t>(kStreamBytes / row_bytes(type, kCols)));
  const BenchActivations x(table, rows);
  const ActivationRows view = x.buffer.view();
  std::vector<float> y(rows * weights.matrix.rows);
  for (auto _ : state) {
    table.matvec(weights.matrix, 0, weights.matrix.rows, view, y.data(), weights.matrix.rows);
    benchmark::DoNotOptimize(y.data());
  }
  count(state, "weight bytes/s", static_cast<double>(weights.matrix.bytes()),
        best_read_rate(table, weights.bytes.span()));
}

/// Prefill.
void multiply_rows(benchmark::State& state, const std::string& isa, WeightType type, int64_t rows) {
  const Kernels& table = kernels(isa);
  const BenchWeights weights(type, kRows);
  const BenchActivations x(table, rows);
  const ActivationRows view = x.buffer.view();
  std::vector<float> y(rows * kRows);
  for (auto _ : state) {
    table.matmul(weights.matrix, 0, kRows, view, y.data(), kRows);
    benchmark::DoNotOptimize(y.data());
  }
  const bool floats = type == WeightType::kF32 || type == WeightType::kF16 || type == WeightType::kBF16;
  count(state, "multiply-adds/s", static_cast<double>(rows) * kRows * kCols,
        floats ? limits(table).floats : limits(table).quantised);
}

/// A matrix product of training. The strides are those of whole rows.
struct TrainingShape {
  const char* name;
  int64_t rows, cols, depth;
  bool a_transposed, b_transposed;
};
constexpr TrainingShape kTrainingShapes[] = {{"scores", 128, 192, 64, false, true},
                                             {"weighted values", 128, 64, 192, false, false},
                                             {"gradient of values", 192, 64, 128, true, false},
                                             {"layer", 264, 512, 192, false, true},
                                             {"gradient through a layer", 264, 192, 512, false, false},
                                             {"gradient of weights", 96, 192, 4096, true, false},
                                             {"logits", 132, 4096, 192, false, true}};

/// rounded: with factors rounded to bfloat16.
void train(benchmark::State& state, const std::string& isa, bool rounded, const TrainingShape& shape) {
  const Kernels& table = kernels(isa);
  const auto& [name, rows, cols, depth, a_transposed, b_transposed] = shape;
  const std::vector<float> a(rows * depth, 0.5f), b(cols * depth, 0.25f);
  std::vector<float> y(rows * cols);
  AlignedBuffer<float> scratch(kMultiplyScratch);
  FloatProduct product{.rows = rows, .cols = cols, .depth = depth, .a = a.data(), .b = b.data(), .y = y.data()};
  product.a_transposed = a_transposed;
  product.a_stride = a_transposed ? rows : depth;
  product.b_transposed = b_transposed;
  product.b_stride = b_transposed ? depth : cols;
  product.y_stride = cols;
  for (auto _ : state) {
    (rounded ? table.multiply_bf16 : table.multiply)(product, scratch.data());
    benchmark::DoNotOptimize(y.data());
  }
  count(state, "multiply-adds/s", static_cast<double>(rows * cols * depth),
        best_rate(rounded ? table.peak_bf16 : table.peak_f32));
}

/// One head of Mamba-2 of a usual size, for each form of its recurrence.
enum class SsdForm { kScan, kChunk, kChunkOfProducts };

void ssd(benchmark::State& state, const std::string& isa, SsdForm form) {
  constexpr int64_t kWidth = 64, kState = 128, kTokens = 512;
  const Kernels& table = kernels(isa);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 1);
  const auto gaussian = [&](int64_t n) {
    std::vector<float> values(n);
    for (float& v : values) v = normal(random);
    return values;
  };
  const std::vector<float> x = gaussian(kTokens * kWidth), b = gaussian(kTokens * kState),
                           c = gaussian(kTokens * kState), dt(kTokens, 0.1f);
  std::vector<float> h(kWidth * kState), y(kTokens * kWidth), products(kTokens * kSsdBlock);
  AlignedBuffer<float> scratch(ssd_scratch(kWidth, kState));
  SsdHead head{.rows = kTokens, .width = kWidth, .state = kState, .a = -1, .d = 1};
  head.x = x.data();
  head.dt = dt.data();
  head.dt_stride = 1;
  head.b = b.data();
  head.c = c.data();
  head.x_stride = head.y_stride = kWidth;
  head.b_stride = head.c_stride = kState;
  head.h = h.data();
  head.y = y.data();
  if (form == SsdForm::kChunkOfProducts) {
    table.ssd_products({kTokens, kState, b.data(), kState, c.data(), kState, products.data()}, scratch.data());
    head.products = products.data();
  }
  for (auto _ : state) {
    form == SsdForm::kScan ? table.ssd_scan(head) : table.ssd_chunk(head, scratch.data());
    benchmark::DoNotOptimize(y.data());
  }
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * kTokens, benchmark::Counter::kIsRate);
}

/// The recurrence of a layer of Mamba-1.
void selective_scan(benchmark::State& state, const std::string& isa) {
  constexpr int64_t kChannels = 512, kState = 16, kTokens = 256;
  const Kernels& table = kernels(isa);
  const std::vector<float> x(kTokens * kChannels, 0.5f), dt(kTokens * kChannels, 0.1f),
      a(kChannels * kState, -1.0f), b(kTokens * kState, 0.25f), c(kTokens * kState, 0.5f);
  std::vector<float> h(kChannels * kState), y(kTokens * kChannels);
  SelectiveScan scan{.rows = kTokens, .end = kChannels, .state = kState};
  scan.x = x.data();
  scan.dt = dt.data();
  scan.a = a.data();
  scan.b = b.data();
  scan.c = c.data();
  scan.h = h.data();
  scan.y = y.data();
  scan.x_stride = scan.dt_stride = scan.y_stride = kChannels;
  scan.b_stride = scan.c_stride = kState;
  for (auto _ : state) {
    table.selective_scan(scan);
    benchmark::DoNotOptimize(y.data());
  }
  state.counters["state elements/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * kTokens * kChannels * kState, benchmark::Counter::kIsRate);
}

/// The limits that the kernels above are compared with.
void peak(benchmark::State& state, int64_t (*function)(int64_t, float*)) {
  float sink = 0;
  double operations = 0;
  for (auto _ : state) operations += static_cast<double>(function(1 << 22, &sink));
  benchmark::DoNotOptimize(sink);
  state.counters["multiply-adds/s"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
}

void read(benchmark::State& state, const std::string& isa) {
  const Kernels& table = kernels(isa);
  AlignedBuffer<std::byte> memory(kStreamBytes);
  std::memset(memory.data(), 1, memory.size());
  for (auto _ : state) benchmark::DoNotOptimize(table.read(memory.data(), memory.size()));
  state.counters["bytes/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * kStreamBytes, benchmark::Counter::kIsRate);
}

const int kRegistered = [] {
  for (const std::string& isa : available_isas()) {
    if (isa == "reference") continue;
    const Kernels& table = kernels(isa);
    benchmark::RegisterBenchmark(("read/" + isa).c_str(), read, isa);
    benchmark::RegisterBenchmark(("peak/" + isa + "/quantised").c_str(), peak, table.peak);
    benchmark::RegisterBenchmark(("peak/" + isa + "/f32").c_str(), peak, table.peak_f32);
    if (table.peak_bf16) benchmark::RegisterBenchmark(("peak/" + isa + "/bf16").c_str(), peak, table.peak_bf16);
    benchmark::RegisterBenchmark(("selective_scan/" + isa).c_str(), selective_scan, isa);
    benchmark::RegisterBenchmark(("ssd/" + isa + "/scan").c_str(), ssd, isa, SsdForm::kScan);
    benchmark::RegisterBenchmark(("ssd/" + isa + "/chunk").c_str(), ssd, isa, SsdForm::kChunk);
    benchmark::RegisterBenchmark(("ssd/" + isa + "/chunk, products shared").c_str(), ssd, isa,
                                 SsdForm::kChunkOfProducts);
    for (const TrainingShape& shape : kTrainingShapes) {
      const std::string name = "train/" + isa + "/" + shape.name;
      benchmark::RegisterBenchmark((name + "/f32").c_str(), train, isa, false, shape);
      if (table.multiply_bf16) benchmark::RegisterBenchmark((name + "/bf16").c_str(), train, isa, true, shape);
    }
    for (const WeightType type : {WeightType::kF32, WeightType::kF16, WeightType::kBF16, WeightType::kQ8_0,
                                  WeightType::kQ4_0, WeightType::kQ2_K, WeightType::kQ3_K, WeightType::kQ4_K,
                                  WeightType::kQ5_K, WeightType::kQ6_K, WeightType::kIQ4_XS, WeightType::kMXFP4}) {
      const std::string name = isa + "/" + info(type).name;
      for (const int64_t rows : {1, 4}) {
        const std::string many = rows > 1 ? "/rows:" + std::to_string(rows) : "";
        benchmark::RegisterBenchmark(("matvec/" + name + many).c_str(), multiply_vector, isa, type, rows);
      }
      benchmark::RegisterBenchmark(("matmul/" + name).c_str(), multiply_rows, isa, type, 256);
    }
  }
  return 0;
}();

}  // namespace
}  // namespace fathom
