#pragma once

#include "base/error.h"
#include "memory/sequence_state.h"

namespace fathom {

/// Casts a state to the type that its method created. Throws Error if the state has another type.
template <class State, class Base>
State& state_as(Base& state) {
  auto* typed = dynamic_cast<State*>(&state);
  if (!typed) fail("the state of a sequence belongs to another method than the one that reads it");
  return *typed;
}
template <class State, class Base>
const State& state_as(const Base& state) {
  const auto* typed = dynamic_cast<const State*>(&state);
  if (!typed) fail("the state of a sequence belongs to another method than the one that reads it");
  return *typed;
}

}  // namespace fathom
