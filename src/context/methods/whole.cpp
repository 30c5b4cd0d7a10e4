#include "context/methods.h"

namespace fathom {

ReadEntry whole_method() {
  return {{.name = "whole",
           .summary = "the text is read whole",
           .exact = true,
           .needs = "any model",
           .time = "O(n²)",
           .memory = "O(n)"},
          [](const Values&) { return nullptr; }};
}

}  // namespace fathom
