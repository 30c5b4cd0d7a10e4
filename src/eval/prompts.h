#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "eval/sample.h"
#include "tokens/chat_template.h"
#include "tokens/tokenizer.h"

namespace fathom::eval {

/// A sample as tokens of a model.
struct Prompt {
  std::vector<int32_t> tokens;
  /// Tokens at the beginning that contain only the context and the part of the chat template before it.
  int64_t context_tokens = 0;
  std::vector<int64_t> scored;   // kForced: indices of the tokens whose prediction is scored, ascending
  std::vector<int32_t> span_of;  // index in Sample::scored of each scored token
  bool cut = false;              // the middle of the text was left out
  /// Hash of the tokens: samples with equal hashes have the same prompt.
  uint64_t hash() const;
};

/// Makes prompts of one model from samples. chat: the chat template, or null for plain text.
class PromptMaker {
 public:
  PromptMaker(const Tokenizer& tokenizer, std::shared_ptr<const ChatTemplate> chat)
      : tokenizer_(tokenizer), chat_(std::move(chat)) {}

  /// Returns the number of tokens of a text, without BOS.
  int64_t count(std::string_view text) const;
  /// Returns the number of tokens of the whole prompt.
  int64_t measure(const Sample& sample) const;
  /// Makes a prompt of at most `length` tokens, the reserve for the answer included. If a sample with cut_middle is
  /// too long, the middle of its text is left out. Throws Error if the prompt does not fit, or if the sample scores
  /// spans and the tokenizer changes the text.
  Prompt make(const Sample& sample, int64_t length) const;

 private:
  bool in_chat(const Sample& sample) const;
  std::string text_of(const Sample& sample) const;
  std::string head_of(const Sample& sample) const;
  Sample cut(const Sample& sample, int64_t length) const;
  std::vector<int32_t> encode(const Sample& sample, const std::string& text) const;
  void find_scored(const Sample& sample, Prompt& prompt) const;

  const Tokenizer& tokenizer_;
  std::shared_ptr<const ChatTemplate> chat_;
};

}  // namespace fathom::eval
