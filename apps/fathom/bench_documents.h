#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokens/tokenizer.h"

namespace fathom {

/// Reads texts to measure with: files, and below folders all files named .txt, .md, .cpp, .h or .py. Those that are
/// not UTF-8 are left out. The order depends only on the contents. Throws Error if one of the paths cannot be read.
std::vector<std::string> read_documents(const std::vector<std::string>& paths);

/// Returns the first lines of a text, each with its line end, up to the first with which they have at least
/// `tokens` tokens, counted line by line; no lines if the text has fewer tokens.
std::vector<std::string> first_lines(const Tokenizer& tokenizer, std::string_view text, int64_t tokens);

}  // namespace fathom
