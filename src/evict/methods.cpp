#include "evict/evictor.h"

namespace fathom {

const MethodTable<EvictMethod>& evict_methods() {
  static const MethodTable<EvictMethod> table("evict",
                                              {{{.name = "none",
                                                 .summary = "nothing is dropped",
                                                 .exact = true,
                                                 .needs = "any model",
                                                 .time = "none",
                                                 .memory = "O(n)"},
                                                [](const Values&) -> std::unique_ptr<Evictor> { return nullptr; }},
                                               {expected_info(), make_expected},
                                               {h2o_info(), make_h2o},
                                               {keydiff_info(), make_keydiff},
                                               {knorm_info(), make_knorm},
                                               {pyramidkv_info(), make_pyramidkv},
                                               {sirllm_info(), make_sirllm},
                                               {snapkv_info(), make_snapkv},
                                               {streaming_info(), make_streaming},
                                               {tova_info(), make_tova}});
  return table;
}

}  // namespace fathom
