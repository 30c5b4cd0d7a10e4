#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "decode/generate.h"
#include "decode/stop_matcher.h"

namespace fathom {

/// What has been generated behind a prompt: takes tokens as they are chosen, makes them text, and says when it
/// ends.
class Continuation {
 public:
  /// The tokenizer and the options must outlive this.
  Continuation(const Tokenizer& tokenizer, const GenerateOptions& options,
               std::function<void(std::string_view)> on_text = nullptr);

  /// Takes the token chosen next; nothing may be taken after the end. Returns whether there is more to come.
  bool take(int32_t token);
  bool ended() const { return ended_; }
  /// Ends it from outside.
  void end(StopReason reason);
  /// Gives out what the text held back; call once, at the end. steps and seconds are the caller's.
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
