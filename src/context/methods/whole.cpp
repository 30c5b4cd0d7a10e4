#include "context/methods.h"

namespace fathom {

ReadEntry whole_method() {
  return {{.name = "whole",
           .summary = "the model reads the whole text",
           .exact = true,
           .needs = "any model",
           .time = "O(n²)",
           .memory = "O(n)",
           .capabilities = {.works_with_landmarks = true, .works_on_recurrent = true}},
          [](const Values&) { return nullptr; }};
}

}  // namespace fathom
