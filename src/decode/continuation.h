#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "decode/generate.h"
#include "decode/stop_matcher.h"

namespace fathom {

/// The text generated after a prompt. Decodes sampled tokens one by one and detects the end of the generation.
class Continuation {
 public:
  /// The tokenizer and the options must outlive this.
  Continuation(const Tokenizer& tokenizer, const GenerateOptions& options,
               std::function<void(std::string_view)> on_text = nullptr);

  /// Adds the next sampled token. Returns whether generation continues. Must not be called after the end.
  bool take(int32_t token);
  bool ended() const { return ended_; }
  /// Returns whether a token ends the generation instead of being a part of the text.
  bool is_end(int32_t token) const { return !options_.ignore_eos && tokenizer_.ends_generation(token); }
  /// Ends the generation for another reason than a token, such as an interruption.
  void end(StopReason reason);
  /// Emits the text that was held back and returns the result, without steps and seconds. Call it once, at the end.
  Generated finish();

 private:
  void emit(const std::string& text);

  const Tokenizer& tokenizer_;
  const GenerateOptions& options_;
  std::function<void(std::string_view)> on_text_;
  StreamDecoder decoder_;
  StopMatcher matcher_;
  Generated result_;
  bool ended_ = false;
};

}  // namespace fathom
