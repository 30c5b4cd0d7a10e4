#include "context/methods.h"

namespace fathom {

// Each `--read` method has one line here and one function, `ReadEntry NAME_method()`, in methods/.
// clang-format off
#define FATHOM_METHODS(X) \
  X(gemfilter) \
  X(infiniretri) \
  X(whole) \
  X(xl3m)
// clang-format on

#define FATHOM_DECLARE(name) ReadEntry name##_method();
FATHOM_METHODS(FATHOM_DECLARE)

const MethodTable<ReadMethod>& read_methods() {
#define FATHOM_LIST(name) name##_method(),
  static const MethodTable<ReadMethod> table("read", {FATHOM_METHODS(FATHOM_LIST)});
  return table;
}

}  // namespace fathom
