#include "decode/constraint.h"

namespace fathom {

// The `--constrain` methods. Each has one line here and one function in this folder.
// clang-format off
#define FATHOM_METHODS(X) \
  X(strings) \
  X(corpus) \
  X(spans) \
  X(edits) \
  X(grammar) \
  X(json) \
  X(schema)
// clang-format on

#define FATHOM_DECLARE(name) ConstraintEntry name##_method();
FATHOM_METHODS(FATHOM_DECLARE)

const MethodTable<ConstraintMethod>& constraint_methods() {
#define FATHOM_LIST(name) name##_method(),
  static const MethodTable<ConstraintMethod> table("constrain", {FATHOM_METHODS(FATHOM_LIST)});
  return table;
}

}  // namespace fathom
