#include "base/method_specs.h"

#include "base/error.h"

namespace fathom {

std::string MethodSpecs::label() const {
  const MethodSpecs plain;
  std::string label = "attend=" + attend;
  for (const MethodOption& option : kMethodOptions) {
    if (option.kind != "attend" && this->*option.spec != plain.*option.spec)
      label += concat(" ", option.kind, "=", this->*option.spec);
  }
  return label;
}

}  // namespace fathom
