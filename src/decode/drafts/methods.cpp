#include "decode/draft.h"

namespace fathom {

// The `--draft` methods. Each has one line here and one function in this folder.
// clang-format off
#define FATHOM_METHODS(X) \
  X(automatic_drafts) \
  X(no_drafts) \
  X(recycle) \
  X(suffix) \
  X(copy) \
  X(ngram) \
  X(trigram) \
  X(model) \
  X(self) \
  X(rapid) \
  X(pearl) \
  X(superposed_draft) \
  X(heads) \
  X(lexical_unit) \
  X(hidden_transfer) \
  X(longspec)
// clang-format on

#define FATHOM_DECLARE(name) DraftEntry name##_method();
FATHOM_METHODS(FATHOM_DECLARE)

const MethodTable<DraftMethod>& draft_methods() {
#define FATHOM_LIST(name) name##_method(),
  static const MethodTable<DraftMethod> table("draft", {FATHOM_METHODS(FATHOM_LIST)});
  return table;
}

}  // namespace fathom
