#pragma once

#include <cstddef>
#include <memory>

#include "decode/constraint.h"
#include "decode/grammar/grammar.h"
#include "decode/token_bytes.h"

namespace fathom {

/// Returns the constraint to texts of a grammar, in any tokenization. tokens: of the model; many constraints share
/// them. What one text of the constraint computes speeds up the others. memory: bytes of what is
/// kept for that.
std::shared_ptr<const Constraint> make_grammar_constraint(std::shared_ptr<const TokenBytes> tokens, Grammar grammar,
                                                          size_t memory = size_t{128} << 20);

}  // namespace fathom
