#include "attend/selector.h"

namespace fathom {

const MethodTable<SelectorMethod>& attend_methods() {
  static const MethodTable<SelectorMethod> table("attend",
                                                 {{actqkv_info(), make_actqkv},
                                                  {dense_info(), make_dense},
                                                  {em_llm_info(), make_em_llm},
                                                  {hip_info(), make_hip},
                                                  {infllm_info(), make_infllm},
                                                  {landmark_info(), make_landmark},
                                                  {layers_info(), make_layers},
                                                  {lm_infinite_info(), make_lm_infinite},
                                                  {quest_info(), make_quest},
                                                  {recycled_info(), make_recycled},
                                                  {shadowkv_info(), make_shadowkv},
                                                  {softplus_info(), make_softplus},
                                                  {squeezed_info(), make_squeezed},
                                                  {tempscale_info(), make_tempscale},
                                                  {tokenselect_info(), make_tokenselect},
                                                  {window_info(), [](const Values& v) { return make_window(v); }}});
  return table;
}

}  // namespace fathom
