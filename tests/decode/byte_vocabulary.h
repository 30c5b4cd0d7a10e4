#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/format.h"
#include "decode/constraint.h"
#include "tokens/tokenizer.h"

namespace fathom::test {

/// Returns a tokenizer with a token for each byte, tokens for `pieces`, an unknown token (0), a control token (1)
/// and two end-of-generation tokens (2 and the last one).
inline std::unique_ptr<const Tokenizer> byte_tokenizer(const std::vector<std::string>& pieces) {
  Vocabulary vocabulary;
  const auto add = [&](std::string piece, TokenType type) {
    vocabulary.pieces.push_back(std::move(piece));
    vocabulary.types.push_back(type);
  };
  add("<unk>", TokenType::kUnknown);
  add("<s>", TokenType::kControl);
  add("</s>", TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    add(name, TokenType::kByte);
  }
  for (const std::string& piece : pieces) add(piece, TokenType::kNormal);
  add("a", TokenType::kUnused);
  add("<|end|>", TokenType::kUserDefined);
  vocabulary.unknown = 0;
  vocabulary.bos = 1;
  vocabulary.eos = 2;
  vocabulary.end_of_generation = {2, vocabulary.size() - 1};
  return std::make_unique<const Tokenizer>(std::move(vocabulary));
}

/// Returns all tokens that a constraint allows after some state, ascending.
inline std::vector<int32_t> allowed_tokens(const Tokenizer& tokenizer, const ConstraintState& state) {
  Candidates candidates;
  candidates.assign(std::vector<float>(static_cast<size_t>(tokenizer.size()), 0.0f));
  state.restrict(candidates);
  std::vector<int32_t> tokens;
  for (const Candidate& candidate : candidates.all()) tokens.push_back(candidate.id);
  return tokens;
}

/// Returns the text of random allowed tokens up to an end-of-generation token. end: probability to end where it is
/// allowed. After `most` tokens it ends as soon as possible. favoured: if allowed, this byte often comes next, so
/// that rare alternatives are tried; 0: none.
inline std::string random_walk(const Tokenizer& tokenizer, const Constraint& constraint, std::mt19937& random,
                               int most, double end, char favoured = 0) {
  std::string text;
  const auto state = constraint.start();
  for (int count = 0;; ++count) {
    const std::vector<int32_t> tokens = allowed_tokens(tokenizer, *state);
    std::vector<int32_t> ends, others;
    for (const int32_t token : tokens) (tokenizer.ends_generation(token) ? ends : others).push_back(token);
    const bool stop = others.empty() || count >= most || std::bernoulli_distribution(end)(random);
    if (!ends.empty() && stop) return text;
    int32_t token = others[random() % others.size()];
    for (const int32_t other : others)
      if (favoured != 0 && tokenizer.piece(other) == std::string(1, favoured) && random() % 8 == 0) token = other;
    state->take(token);
    text += tokenizer.piece(token);
  }
}

}  // namespace fathom::test
