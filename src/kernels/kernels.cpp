#include "kernels/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>

#include "base/error.h"
#include "hwy/targets.h"
#include "kernels/amx.h"
#include "kernels/reference.h"
#include "kernels/vector.h"

namespace fathom {
namespace {

struct Isa {
  const char* name;
  int64_t targets;     // Highway targets; the best one that the machine has is used
  bool tiles = false;  // also uses AMX
};
constexpr Isa kIsas[] = {
#if HWY_ARCH_X86
    {"avx2", HWY_AVX2},
    {"avx512f", HWY_AVX3},
    {"avx512", HWY_AVX3 | HWY_AVX3_DL},
    {"amx", HWY_AVX3_DL, true},
#elif HWY_ARCH_ARM_A64
    {"neon", HWY_NEON},
#endif
};

const Isa& find_isa(const std::string& name) {
  return *std::find_if(std::begin(kIsas), std::end(kIsas), [&](const Isa& i) { return name == i.name; });
}

/// Restricts Highway to the targets of a set and fills a table, which keeps the kernels that Highway chooses.
Kernels vector_kernels(const Isa& isa) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const int64_t static_target = HWY_STATIC_TARGET;
  hwy::SetSupportedTargetsForTest((isa.targets & hwy::SupportedTargets()) | static_target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  Kernels table{};
  table.isa = isa.name;
  fill_vector_matmul(table);
  fill_vector_multiply(table);
  fill_bf16_multiply(table);
  fill_vector_attend(table);
  fill_vector_weights(table);
  fill_vector_scores(table);
  fill_vector_pages(table);
  fill_vector_elementwise(table);
  fill_vector_gradients(table);
  fill_vector_scan(table);
  fill_vector_ssd(table);
  fill_vector_peak(table);
  if (isa.tiles) {
    fill_amx_matmul(table);
    fill_amx_attend(table);
    table.peak = table.peak_bf16 = amx_peak_bf16;
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return table;
}

}  // namespace

// Intel's hardware prefetcher follows a stream only to the end of a 4 KiB page. On Intel, far and near prefetches
// together reach 90 % of the rate of plain reading, near prefetches alone 75 %. Zen 5 follows a stream further, and
// near prefetches interfere with it: the rate is 25 % lower. Tuned by trying 256 bytes to 24 KiB.
StreamPrefetch stream_prefetch() {
#if HWY_ARCH_X86
  static const bool amd = __builtin_cpu_is("amd");
  if (amd) return {8192, 8192};
#endif
  return {12288, 512};
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names{"reference"};
  for (const Isa& isa : kIsas) {
    if (isa.targets & HWY_TARGETS & hwy::SupportedTargets() && (!isa.tiles || amx_usable()))
      names.push_back(isa.name);
  }
  return names;
}

const Kernels& kernels(const std::string& isa) {
  static std::mutex mutex;
  static std::map<std::string, Kernels> tables;
  const std::vector<std::string> available = available_isas();
  if (std::find(available.begin(), available.end(), isa) == available.end()) {
    std::string list;
    for (const std::string& name : available) list += (list.empty() ? "" : ", ") + name;
    fail("instruction set '", isa, "' is not known or not available on this machine; available: ", list);
  }
  const std::lock_guard lock(mutex);
  const auto found = tables.find(isa);
  if (found != tables.end()) return found->second;
  if (isa == "reference") return tables.emplace(isa, reference_kernels()).first->second;
  return tables.emplace(isa, vector_kernels(find_isa(isa))).first->second;
}

std::optional<Kernels> amx_kernels() {
#if HWY_ARCH_X86
  if (HWY_AVX3_DL & hwy::SupportedTargets() && __builtin_cpu_supports("avx512bf16"))
    return vector_kernels(find_isa("amx"));
#endif
  return std::nullopt;
}

const Kernels& kernels() {
  static const Kernels& chosen = [&]() -> const Kernels& {
    const char* forced = std::getenv("FATHOM_ISA");
    return kernels(forced && *forced ? std::string(forced) : available_isas().back());
  }();
  return chosen;
}

void merge_attention(float* out_a, float& lse_a, const float* out_b, float lse_b, int dim) {
  if (lse_b == -std::numeric_limits<float>::infinity()) return;
  if (lse_a == -std::numeric_limits<float>::infinity()) {
    std::copy_n(out_b, dim, out_a);
    lse_a = lse_b;
    return;
  }
  const float largest = std::max(lse_a, lse_b);
  const float a = std::exp(lse_a - largest), b = std::exp(lse_b - largest);
  const float share_a = a / (a + b), share_b = b / (a + b);
  for (int d = 0; d < dim; ++d) out_a[d] = share_a * out_a[d] + share_b * out_b[d];
  lse_a = largest + std::log(a + b);
}

}  // namespace fathom
