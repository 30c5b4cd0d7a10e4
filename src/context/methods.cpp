#include "context/reader.h"

namespace fathom {

const MethodTable<ReadMethod>& read_methods() {
  static const MethodTable<ReadMethod> table("read",
                                             {{gemfilter_info(), make_gemfilter},
                                              {infiniretri_info(), make_infiniretri},
                                              {{.name = "whole",
                                                .summary = "the text is read whole",
                                                .exact = true,
                                                .needs = "any model",
                                                .time = "O(n²)",
                                                .memory = "O(n)"},
                                               [](const Values&) -> std::unique_ptr<Reader> { return nullptr; }},
                                              {xl3m_info(), make_xl3m}});
  return table;
}

}  // namespace fathom
