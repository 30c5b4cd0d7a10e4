#include "decode/sample_step.h"

namespace fathom {

const MethodTable<SampleMethod>& sample_methods() {
  static const MethodTable<SampleMethod> table("sample", {{greedy_info(), make_greedy},
                                                          {temperature_info(), make_temperature},
                                                          {top_k_info(), make_top_k},
                                                          {top_p_info(), make_top_p},
                                                          {min_p_info(), make_min_p},
                                                          {typical_info(), make_typical},
                                                          {repetition_info(), make_repetition},
                                                          {presence_info(), make_presence},
                                                          {frequency_info(), make_frequency}});
  return table;
}

}  // namespace fathom
