#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "eval/rng.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom::train {

/// A token and its probability.
struct TokenShare {
  int32_t token = 0;
  float share = 0;
};

/// A message about a text and the model's answer.
struct Conversation {
  std::vector<int32_t> tokens;  // message, then answer
  int64_t answer = 1;           // index of the first token of the answer, ≥ 1
  /// [answer tokens]: the most probable tokens in the place of each token of the answer, with the text in view.
  std::vector<std::vector<TokenShare>> shares;
};

/// The tokens around the model's part of a message. The message is `opening` with the model's continuation, then
/// `closing`, after which the answer begins.
struct SeedPrompt {
  std::vector<int32_t> opening, closing;
};
/// Returns a prompt of each of the five kinds of self-study: structuring, summarisation, question, use case,
/// creative. They suit models that continue texts: a message is "Question: …?", whose first words are given, and
/// "Answer:".
std::vector<SeedPrompt> seed_prompts(const Tokenizer& tokenizer);

struct SelfStudyOptions {
  int64_t shortest_chunk = 512, longest_chunk = 4096;  // tokens of the text in view
  int64_t message_tokens = 24, answer_tokens = 32;     // that the model writes at most
  double temperature = 0.6;                            // of messages; answers are the most probable tokens
  int top = 20;                                        // tokens in Conversation::shares
  std::function<bool(int32_t)> ends_message{};         // the last token of a message; empty: none
  std::function<bool(int32_t)> ends_answer{};          // the last token of an answer; empty: none
};
/// Returns options that end messages at a question mark or line end, and answers at a line end or an
/// end-of-generation token. tokenizer must outlive them.
SelfStudyOptions text_study(const Tokenizer& tokenizer);

/// Lets a model write messages about parts of a text and answer them ("Cartridges: Lightweight and general-purpose
/// long context representations via self-study", 2025). Messages are drawn at a temperature, answers are greedy.
class SelfStudy {
 public:
  /// bos: tokens before every part of the text; may be empty. Throws Error (usage) for a text without tokens, no
  /// prompts, or numbers out of range.
  SelfStudy(std::shared_ptr<Engine> engine, std::vector<int32_t> bos, std::vector<int32_t> text,
            std::vector<SeedPrompt> prompts, SelfStudyOptions options);

  /// Returns `count` conversations, one of each kind of prompt for a random part of the text, then for the next
  /// part. The same seed gives the same conversations. progress: called with the number of conversations.
  std::vector<Conversation> converse(int64_t count, uint64_t seed,
                                     const std::function<void(int64_t done)>& progress = {});

 private:
  Session read_part(eval::Rng& rng);
  Conversation converse(Session session, const SeedPrompt& prompt, uint64_t seed);

  std::shared_ptr<Engine> engine_;
  std::vector<int32_t> bos_, text_;
  std::vector<SeedPrompt> prompts_;
  SelfStudyOptions options_;
};

/// Returns pieces of a text as conversations in which all tokens but the first are answers that are certain:
/// training on them is next-token training. length: tokens of a piece, at least 2; the last one may have fewer.
std::vector<Conversation> next_token_pieces(std::span<const int32_t> text, int64_t length);

/// Returns the logits before each token of the answer when the model reads the conversation after a prefix, which
/// is not changed: [answer tokens, vocabulary].
std::vector<float> answer_logits(Engine& engine, const Sequence& prefix, const Conversation& conversation);

/// Returns the mean Kullback-Leibler divergence of rows of logits, in nats: how far `found` is from `expected`.
/// Both: [rows, vocabulary].
double mean_divergence(std::span<const float> expected, std::span<const float> found, int64_t vocabulary);

}  // namespace fathom::train
