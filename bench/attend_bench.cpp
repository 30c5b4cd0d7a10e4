// Attention over pages on one thread: multiply-adds and page bytes per second, by instruction set, page format and
// shape. "deep" reads more pages than any cache holds, as decoding after a long context does.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "kernels/kernels.h"

namespace fathom {
namespace {

struct AttendShape {
  PageFormat format;
  int key_dim, value_dim, rotary_dim, group, rows;
  bool deep;
  int chunk = 0;          // a quarter of the tokens is visible, in chunks of this many; 0: all
  int value_offset = -1;  // as in AttendTask
};

constexpr int kTaskPages = 32;  // pages of a task when decoding
constexpr size_t kNearBytes = size_t{1} << 20, kDeepBytes = size_t{512} << 20;

std::string name_of(PageFormat format) {
  switch (format) {
    case PageFormat::kBF16:
      return "bf16";
    case PageFormat::kF32:
      return "f32";
    case PageFormat::kQ8:
      return "q8";
    case PageFormat::kQ4:
      return "q4";
  }
  return "";
}

/// The tasks that together read all pages once.
class AttendTasks {
 public:
  AttendTasks(const Kernels& table, const AttendShape& s)
      : queries_(s.rows * s.group * s.key_dim, 0.1f),
        out_(s.rows * s.group * s.value_dim),
        lse_(s.rows * s.group),
        rotation_(s.key_dim, 0.7f),
        scratch_(attend_scratch(s.key_dim, s.value_dim, s.rows * s.group)) {
    const bool own_values = s.value_offset < 0;
    const size_t key_bytes = page_key_bytes(s.format, s.key_dim);
    page_bytes_ = key_bytes + (own_values ? page_value_bytes(s.format, s.value_dim) : 0);
    const size_t fit = (s.deep ? kDeepBytes : kNearBytes) / page_bytes_ / kTaskPages * kTaskPages;
    const size_t pages = std::max<size_t>(fit, kTaskPages);
    bytes_ = AlignedBuffer<std::byte>(pages * page_bytes_);  // in huge pages, as in the page store
    std::byte* begin = bytes_.data();
    std::vector<float> numbers(kPageTokens * s.key_dim), rotations(kPageTokens * s.key_dim, 0.5f);
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i % 13) * 0.1f - 0.6f;
    std::mt19937 random(1);
    for (size_t p = 0; p < pages; ++p) {
      std::byte* page = begin + p * page_bytes_;
      std::byte* values = own_values ? page + key_bytes : page;
      table.write_page({s.format, s.key_dim, own_values ? s.value_dim : 0, s.rotary_dim, page, values, 0,
                        kPageTokens, numbers.data(), s.key_dim, numbers.data(), s.value_dim, rotations.data()});
      const uint64_t mask = mask_of(s.chunk, random);
      if (mask != 0) reads_.push_back({page, values, rotation_.data(), rotation_.data(), mask, nullptr});
    }
    reads_.resize(reads_.size() / kTaskPages * kTaskPages);
    task_.format = s.format;
    task_.key_dim = s.key_dim;
    task_.value_dim = s.value_dim;
    task_.rotary_dim = s.rotary_dim;
    task_.value_offset = s.value_offset;
    task_.rows = s.rows;
    task_.group = s.group;
    task_.queries = queries_.data();
    task_.page_count = kTaskPages;
    task_.out = out_.data();
    task_.lse = lse_.data();
  }

  void run(const Kernels& table) {
    for (size_t p = 0; p < reads_.size(); p += kTaskPages) {
      task_.pages = reads_.data() + p;
      table.attend(task_, scratch_.data());
      benchmark::DoNotOptimize(out_.data());
    }
  }
  double pages() const { return static_cast<double>(reads_.size()); }
  double bytes() const { return pages() * static_cast<double>(page_bytes_); }

 private:
  static uint64_t mask_of(int chunk, std::mt19937& random) {
    if (chunk == 0) return ~uint64_t{0};
    uint64_t mask = 0;
    for (int t = 0; t < kPageTokens; t += chunk)
      if (random() % 4 == 0) mask |= (~uint64_t{0} >> (kPageTokens - chunk)) << t;
    return mask;
  }

  std::vector<float> queries_, out_, lse_, rotation_;
  AlignedBuffer<float> scratch_;
  AlignedBuffer<std::byte> bytes_;
  size_t page_bytes_;
  std::vector<PageRead> reads_;
  AttendTask task_;
};

void attend(benchmark::State& state, const std::string& isa, AttendShape shape) {
  const Kernels& table = kernels(isa);
  AttendTasks tasks(table, shape);
  for (auto _ : state) tasks.run(table);
  const double rounds = static_cast<double>(state.iterations());
  const double operations =
      tasks.pages() * kPageTokens * shape.rows * shape.group * (shape.key_dim + shape.value_dim);
  state.counters["multiply-adds/s"] = benchmark::Counter(rounds * operations, benchmark::Counter::kIsRate);
  state.counters["page bytes/s"] = benchmark::Counter(rounds * tasks.bytes(), benchmark::Counter::kIsRate);
}

const int kRegistered = [] {
  for (const std::string& isa : available_isas()) {
    if (isa == "reference") continue;
    for (const PageFormat format : {PageFormat::kBF16, PageFormat::kQ8, PageFormat::kQ4}) {
      const auto add = [&](int dim, int group, int rows, bool deep, int chunk = 0) {
        const std::string name = "attend/" + isa + "/" + name_of(format) + "/dim:" + std::to_string(dim) +
                                 "/group:" + std::to_string(group) + "/rows:" + std::to_string(rows) +
                                 (deep ? "/deep" : "") + (chunk ? "/quarter by:" + std::to_string(chunk) : "");
        benchmark::RegisterBenchmark(name.c_str(), attend, isa,
                                     AttendShape{format, dim, dim, dim, group, rows, deep, chunk});
      };
      // latent attention, and the same with copies of the latents as values
      const auto add_latent = [&](int group, int rows, bool deep) {
        for (const bool in_keys : {true, false}) {
          const std::string name = "attend/" + isa + "/" + name_of(format) +
                                   (in_keys ? "/latent" : "/latent copied") + "/group:" + std::to_string(group) +
                                   "/rows:" + std::to_string(rows) + (deep ? "/deep" : "");
          benchmark::RegisterBenchmark(name.c_str(), attend, isa,
                                       AttendShape{format, 576, 512, 64, group, rows, deep, 0, in_keys ? 64 : -1});
        }
      };
      for (const int group : {1, 16}) add_latent(group, 1, true);
      add_latent(1, 256, false);
      for (const int dim : {64, 128}) {
        add(dim, 4, 1, false);
        add(dim, 4, 32, false);
      }
      add(64, 8, 1, false);
      add(64, 4, 1, true);
      for (const int chunk : {1, 8, 16, 32, 64}) add(64, 4, 1, false, chunk), add(64, 4, 1, true, chunk);
    }
  }
  return 0;
}();

}  // namespace
}  // namespace fathom
