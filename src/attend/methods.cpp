#include "attend/selector.h"

namespace fathom {

const MethodTable<SelectorMethod>& attend_methods() {
  static const MethodTable<SelectorMethod> table(
      "attend", {{dense_info(), make_dense}, {window_info(), [](const Values& v) { return make_window(v); }}});
  return table;
}

}  // namespace fathom
