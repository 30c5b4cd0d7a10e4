#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/registry.h"
#include "decode/candidates.h"
#include "tokens/tokenizer.h"

namespace fathom {

/// The state of a constraint after some generated tokens. A value: forks are independent.
class ConstraintState {
 public:
  virtual ~ConstraintState() = default;
  virtual std::unique_ptr<ConstraintState> fork() const = 0;
  /// Removes the candidates that may not follow. At least one remains: where the text may or must end, an
  /// end-of-generation token is allowed.
  virtual void restrict(Candidates& candidates) const = 0;
  /// Advances by a token that restrict() allowed.
  virtual void take(int32_t token) = 0;
};

/// A rule about the generated text. Immutable and thread-safe.
class Constraint {
 public:
  virtual ~Constraint() = default;
  /// Returns the state before the first generated token.
  virtual std::unique_ptr<ConstraintState> start() const = 0;
};

/// What a constraint is made for.
struct ConstraintSetup {
  const Tokenizer* tokenizer = nullptr;
  std::string text{};  // the text of the prompt's files, for constraints that refer to it
};

using ConstraintMethod = std::shared_ptr<const Constraint>(const Values&, const ConstraintSetup&);
using ConstraintEntry = MethodTable<ConstraintMethod>::Entry;

/// Returns the `--constrain` methods.
const MethodTable<ConstraintMethod>& constraint_methods();

}  // namespace fathom
