#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "models/network.h"

namespace fathom {

// All architectures. Each has one line here and one function, `Architecture NAME_architecture()`, in
// architectures/.
// clang-format off
#define FATHOM_ARCHITECTURES(X) \
  X(falcon_h1) \
  X(gemma3) \
  X(gpt2) \
  X(gpt_oss) \
  X(llama) \
  X(mamba) \
  X(mamba2) \
  X(qwen2) \
  X(qwen3) \
  X(qwen3moe)
// clang-format on

#define FATHOM_DECLARE(name) Architecture name##_architecture();
FATHOM_ARCHITECTURES(FATHOM_DECLARE)

namespace {

const std::vector<Architecture>& architectures() {
#define FATHOM_LIST(name) name##_architecture(),
  static const std::vector<Architecture> all{FATHOM_ARCHITECTURES(FATHOM_LIST)};
  return all;
}

}  // namespace

std::vector<std::string> architecture_names() {
  std::vector<std::string> names;
  for (const Architecture& architecture : architectures()) names.emplace_back(architecture.name);
  std::ranges::sort(names);
  return names;
}

const Architecture& find_architecture(std::string_view name) {
  for (const Architecture& architecture : architectures())
    if (architecture.name == name) return architecture;
  fail("architecture '", name, "' is not known; known: ", comma_list(architecture_names()));
}

}  // namespace fathom
