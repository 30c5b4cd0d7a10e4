#include "context/text_edits.h"

#include "decode/constraints/word_diff.h"

namespace fathom {

std::vector<TokenEdit> edits_between(std::span<const int32_t> old_tokens, std::span<const int32_t> tokens) {
  std::vector<TokenEdit> edits;
  for (const DiffBox& box : diff_words(old_tokens, tokens))
    edits.push_back({box.a, box.a_end, {tokens.begin() + box.b, tokens.begin() + box.b_end}});
  return edits;
}

}  // namespace fathom
