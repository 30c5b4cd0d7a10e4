#include "models/architectures.h"

#include "base/error.h"
#include "base/spec.h"

namespace fathom {
namespace {

constexpr Architecture kArchitectures[] = {
    {"llama", read_llama_config, build_llama},
    {"qwen2", read_qwen2_config, build_qwen2},
    {"qwen3", read_qwen3_config, build_qwen3},
    {"gpt2", read_gpt2_config, build_gpt2},
};

}  // namespace

const Architecture& find_architecture(std::string_view name) {
  std::string known;
  for (const Architecture& a : kArchitectures) {
    if (a.name == name) return a;
    known += (known.empty() ? "" : ", ") + std::string(a.name);
  }
  fail("architecture '", name, "' is not known; known: ", known);
}

}  // namespace fathom
