// The generated text is a list of edits of the words of a text (edit_list.h).
#include <memory>

#include "base/error.h"
#include "base/format.h"
#include "decode/byte_constraint.h"
#include "decode/constraints/edit_grammar.h"
#include "decode/constraints/edit_list.h"

namespace fathom {
namespace {

std::shared_ptr<const Constraint> make_edits(const Values&, const ConstraintSetup& setup) {
  auto tokens = std::make_shared<const TokenBytes>(*setup.tokenizer);
  constexpr std::string_view kNeeded = "0123456789 none\n\\s-";
  if (const auto at = tokens->find_unspellable(kNeeded))
    fail("edits: the vocabulary has no token for ", quote(kNeeded.substr(*at, 1)));
  return std::make_shared<ByteConstraint<EditGrammar>>(std::move(tokens),
                                                       EditGrammar(std::ssize(words_of(setup.text))));
}

}  // namespace

ConstraintEntry edits_method() {
  return {
      {.name = "edits",
       .summary = "the text is a list of edits of the words of the files: \"START END TEXT\" lines, or \"none\"",
       .paper = "Reducing Sequence Length by Predicting Edit Spans with Large Language Models, 2023",
       .needs = "any model; a model tuned to write such lists for useful edits",
       .time = "O(v) per token",
       .memory = "O(1)"},
      make_edits};
}

}  // namespace fathom
