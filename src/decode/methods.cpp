#include "decode/methods.h"

namespace fathom {

// The table of `--sample` methods. Each has one line here and one function, `SampleEntry NAME_method()`, in
// methods/.
// clang-format off
#define FATHOM_METHODS(X) \
  X(greedy) \
  X(temperature) \
  X(top_k) \
  X(top_p) \
  X(min_p) \
  X(typical) \
  X(momentum) \
  X(repetition) \
  X(presence) \
  X(frequency) \
  X(bias)
// clang-format on

#define FATHOM_DECLARE(name) SampleEntry name##_method();
FATHOM_METHODS(FATHOM_DECLARE)

const MethodTable<SampleMethod>& sample_methods() {
#define FATHOM_LIST(name) name##_method(),
  static const MethodTable<SampleMethod> table("sample", {FATHOM_METHODS(FATHOM_LIST)});
  return table;
}

}  // namespace fathom
