#include "attend/methods.h"

namespace fathom {

// The table of the `--attend` methods. Each method is one line here and a function `SelectorEntry NAME_method()` in
// methods/.
// clang-format off
#define FATHOM_METHODS(X) \
  X(actqkv) \
  X(dense) \
  X(em_llm) \
  X(hip) \
  X(infllm) \
  X(landmark) \
  X(layers) \
  X(lm_infinite) \
  X(quest) \
  X(recycled) \
  X(shadowkv) \
  X(softplus) \
  X(squeezed) \
  X(tempscale) \
  X(tokenselect) \
  X(window)
// clang-format on

#define FATHOM_DECLARE(name) SelectorEntry name##_method();
FATHOM_METHODS(FATHOM_DECLARE)

const MethodTable<SelectorMethod>& attend_methods() {
#define FATHOM_LIST(name) name##_method(),
  static const MethodTable<SelectorMethod> table("attend", {FATHOM_METHODS(FATHOM_LIST)});
  return table;
}

}  // namespace fathom
