#include "tokens/prompt.h"

#include "base/error.h"

namespace fathom {

std::vector<int32_t> bos_tokens(const Tokenizer& tokenizer) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (vocabulary.add_bos && vocabulary.bos != kNoToken) return {vocabulary.bos};
  return {};
}

std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view text, bool special) {
  EncodeOptions options;
  options.add_bos_eos = false;
  options.parse_special = special;
  const std::vector<int32_t> ids = tokenizer.encode(text, options);
  if (ids.empty()) fail("the prompt has no tokens");
  std::vector<int32_t> tokens = bos_tokens(tokenizer);
  if (!tokens.empty() && ids.front() == tokens.front()) tokens.clear();
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  return tokens;
}

}  // namespace fathom
