#pragma once

#include <string>

#include "attend/attention_mass.h"
#include "base/json.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom::eval {

/// What an answer looked at.
struct AttentionPicture {
  std::string model, answer;
  std::vector<int32_t> tokens;  // of the sequence, the prompt and the answer
};

/// Pages of 64 tokens with their texts, and for each layer and key/value head the share of the watched queries'
/// attention that went to each page (their sum is 1) and the tokens of it that any of them saw.
Json attention_json(const AttentionPicture& picture, const AttentionMass& mass, const Session& session,
                    const Tokenizer& tokenizer);
/// The same as a page for a browser that loads nothing.
std::string attention_page(const Json& picture);

}  // namespace fathom::eval
