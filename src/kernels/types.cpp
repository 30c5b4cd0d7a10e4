#include "kernels/types.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace fathom {
namespace {

constexpr std::array kTypes{
    WeightTypeInfo{WeightType::kF32, "f32", 1, 4},           WeightTypeInfo{WeightType::kF16, "f16", 1, 2},
    WeightTypeInfo{WeightType::kBF16, "bf16", 1, 2},         WeightTypeInfo{WeightType::kQ8_0, "q8_0", 32, 34},
    WeightTypeInfo{WeightType::kQ4_0, "q4_0", 32, 18},       WeightTypeInfo{WeightType::kQ4_1, "q4_1", 32, 20},
    WeightTypeInfo{WeightType::kQ5_0, "q5_0", 32, 22},       WeightTypeInfo{WeightType::kQ5_1, "q5_1", 32, 24},
    WeightTypeInfo{WeightType::kQ2_K, "q2_k", 256, 84},      WeightTypeInfo{WeightType::kQ3_K, "q3_k", 256, 110},
    WeightTypeInfo{WeightType::kQ4_K, "q4_k", 256, 144},     WeightTypeInfo{WeightType::kQ5_K, "q5_k", 256, 176},
    WeightTypeInfo{WeightType::kQ6_K, "q6_k", 256, 210},     WeightTypeInfo{WeightType::kIQ4_NL, "iq4_nl", 32, 18},
    WeightTypeInfo{WeightType::kIQ4_XS, "iq4_xs", 256, 136}, WeightTypeInfo{WeightType::kMXFP4, "mxfp4", 32, 17},
};

}  // namespace

const WeightTypeInfo* find_weight_type(uint32_t type) {
  for (const WeightTypeInfo& t : kTypes) {
    if (static_cast<uint32_t>(t.type) == type) return &t;
  }
  return nullptr;
}

const WeightTypeInfo* find_weight_type(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const WeightTypeInfo& t : kTypes) {
    if (lower == t.name) return &t;
  }
  return nullptr;
}

std::string_view weight_type_names() {
  static const std::string names = [] {
    std::string text;
    for (const WeightTypeInfo& t : kTypes) text += (text.empty() ? "" : ", ") + std::string(t.name);
    return text;
  }();
  return names;
}

const WeightTypeInfo& info(WeightType type) { return *find_weight_type(static_cast<uint32_t>(type)); }

}  // namespace fathom
