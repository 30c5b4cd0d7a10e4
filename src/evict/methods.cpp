#include "evict/methods.h"

namespace fathom {

// Each `--evict` method has one line here and one function, `EvictEntry NAME_method()`, in methods/.
// clang-format off
#define FATHOM_METHODS(X) \
  X(none) \
  X(expected) \
  X(h2o) \
  X(keydiff) \
  X(knorm) \
  X(pyramidkv) \
  X(sirllm) \
  X(snapkv) \
  X(streaming) \
  X(tova)
// clang-format on

#define FATHOM_DECLARE(name) EvictEntry name##_method();
FATHOM_METHODS(FATHOM_DECLARE)

const MethodTable<EvictMethod>& evict_methods() {
#define FATHOM_LIST(name) name##_method(),
  static const MethodTable<EvictMethod> table("evict", {FATHOM_METHODS(FATHOM_LIST)});
  return table;
}

}  // namespace fathom
