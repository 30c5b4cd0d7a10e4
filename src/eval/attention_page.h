#pragma once

#include <string>

#include "attend/attention_mass.h"
#include "base/json.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom::eval {

/// The sequence and the answer whose attention is shown.
struct AttentionPicture {
  std::string model, answer;
  std::vector<int32_t> tokens;  // prompt and answer
};

/// Returns the attention of an answer as JSON. "pages": the first token, the number of tokens and the beginning of
/// the text of each page (64 tokens). "lanes": for each layer and key/value head, "mass", the share of the observed
/// queries' attention that each page received (the shares sum to 1), and "seen", the number of its tokens that at
/// least one of these queries attended to.
Json attention_json(const AttentionPicture& picture, const AttentionMass& mass, const Session& session,
                    const Tokenizer& tokenizer);
/// Returns a self-contained HTML page that draws the JSON of attention_json; it loads nothing.
std::string attention_page(const Json& picture);

}  // namespace fathom::eval
