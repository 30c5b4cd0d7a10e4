#include "decode/continuation.h"

#include <cassert>

namespace fathom {

Continuation::Continuation(const Tokenizer& tokenizer, const GenerateOptions& options,
                           std::function<void(std::string_view)> on_text)
    : tokenizer_(tokenizer),
      options_(options),
      on_text_(std::move(on_text)),
      decoder_(tokenizer, options.show_special, options.continues),
      matcher_(options.stop),
      ended_(options.max_tokens <= 0) {}

bool Continuation::take(int32_t token) {
  assert(!ended_);
  if (is_end(token)) {
    end(StopReason::kEos);
    return false;
  }
  result_.tokens.push_back(token);
  emit(matcher_.add(decoder_.add(token)));
  if (matcher_.stopped()) {
    end(StopReason::kString);
  } else if (static_cast<int64_t>(result_.tokens.size()) >= options_.max_tokens) {
    end(StopReason::kLength);
  }
  return !ended_;
}

void Continuation::end(StopReason reason) {
  ended_ = true;
  result_.stop = reason;
}

Generated Continuation::finish() {
  emit(matcher_.add(decoder_.flush()));
  emit(matcher_.flush());
  if (matcher_.stopped()) result_.stop = StopReason::kString;
  return std::move(result_);
}

void Continuation::emit(const std::string& text) {
  if (text.empty()) return;
  result_.text += text;
  if (on_text_) on_text_(text);
}

}  // namespace fathom
