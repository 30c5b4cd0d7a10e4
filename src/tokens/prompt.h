#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokens/tokenizer.h"

namespace fathom {

/// Returns the BOS token if the vocabulary requires one before a text, else nothing.
std::vector<int32_t> bos_tokens(const Tokenizer& tokenizer);

/// Returns bos_tokens() and the tokens of the text. special: control tokens are recognised in the text; a BOS at
/// its start is not doubled. Throws Error for a text without tokens.
std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view text, bool special);

}  // namespace fathom
