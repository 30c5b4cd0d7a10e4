#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokens/tokenizer.h"

namespace fathom {

/// The BOS token if the vocabulary asks for one before a text, else nothing.
std::vector<int32_t> bos_tokens(const Tokenizer& tokenizer);

/// The text's tokens behind bos_tokens(); a BOS that the text itself begins with (special) is not doubled. Throws
/// Error for a text without tokens.
std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view text, bool special);

}  // namespace fathom
