#pragma once

#include <string>
#include <vector>

namespace fathom::eval {

/// RULER's tasks in the order of the paper.
inline const std::vector<std::string> kRulerNames = {"niah_single_1",
                                                     "niah_single_2",
                                                     "niah_single_3",
                                                     "niah_multikey_1",
                                                     "niah_multikey_2",
                                                     "niah_multikey_3",
                                                     "niah_multivalue",
                                                     "niah_multiquery",
                                                     "vt",
                                                     "cwe",
                                                     "fwe",
                                                     "qa_1",
                                                     "qa_2"};

}  // namespace fathom::eval
