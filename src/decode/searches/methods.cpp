#include "decode/search.h"

namespace fathom {

// The `--search` methods. Each has one line here and one function in this folder.
// clang-format off
#define FATHOM_METHODS(X) \
  X(beam_search) \
  X(diverse_beam_search) \
  X(conditional_beam_search) \
  X(exact_search) \
  X(tree_search) \
  X(superposed_search) \
  X(icn_search)
// clang-format on

#define FATHOM_DECLARE(name) SearchEntry name##_method();
FATHOM_METHODS(FATHOM_DECLARE)

const MethodTable<SearchMethod>& search_methods() {
#define FATHOM_LIST(name) name##_method(),
  static const MethodTable<SearchMethod> table("search", {FATHOM_METHODS(FATHOM_LIST)});
  return table;
}

}  // namespace fathom
