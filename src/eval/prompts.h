#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "eval/sample.h"
#include "tokens/chat_template.h"
#include "tokens/tokenizer.h"

namespace fathom::eval {

/// A sample in the tokens of a model.
struct Prompt {
  std::vector<int32_t> tokens;
  int64_t context_tokens =
      0;  // at the beginning: those that hold nothing but the context (and what a chat has before)
  std::vector<int64_t> asked;    // kForced: indices of the tokens whose prediction counts, ascending
  std::vector<int32_t> span_of;  // of each asked token: its index in Sample::asked
  bool cut = false;              // the middle was left out
  /// Of the tokens: two samples with the same number are the same to the model.
  uint64_t hash() const;
};

/// How samples become prompts of one model. chat: null, or the form of a chat.
class PromptMaker {
 public:
  PromptMaker(const Tokenizer& tokenizer, std::shared_ptr<const ChatTemplate> chat)
      : tokenizer_(tokenizer), chat_(std::move(chat)) {}

  /// Tokens of a text alone.
  int64_t count(std::string_view text) const;
  /// Tokens of the whole prompt.
  int64_t measure(const Sample& sample) const;
  /// length: the most tokens, reserve included; a sample with cut_middle loses its middle to fit. Throws Error if
  /// the prompt does not fit, or asks for spans in a text that this tokenizer changes.
  Prompt make(const Sample& sample, int64_t length) const;

 private:
  bool in_chat(const Sample& sample) const;
  std::string text_of(const Sample& sample) const;
  std::string head_of(const Sample& sample) const;
  Sample cut(const Sample& sample, int64_t length) const;
  std::vector<int32_t> encode(const Sample& sample, const std::string& text) const;
  void find_asked(const Sample& sample, Prompt& prompt) const;

  const Tokenizer& tokenizer_;
  std::shared_ptr<const ChatTemplate> chat_;
};

}  // namespace fathom::eval
