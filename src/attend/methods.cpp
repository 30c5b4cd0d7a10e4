#include "attend/selector.h"

namespace fathom {

const MethodTable<SelectorMethod>& attend_methods() {
  static const MethodTable<SelectorMethod> table("attend",
                                                 {{actqkv_info(), make_actqkv},
                                                  {dense_info(), make_dense},
                                                  {em_llm_info(), make_em_llm},
                                                  {hip_info(), make_hip},
                                                  {infllm_info(), make_infllm},
                                                  {layers_info(), make_layers},
                                                  {lm_infinite_info(), make_lm_infinite},
                                                  {quest_info(), make_quest},
                                                  {window_info(), [](const Values& v) { return make_window(v); }}});
  return table;
}

}  // namespace fathom
