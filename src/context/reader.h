#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/registry.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom {

/// A model that reads parts of a text.
struct ReaderContext {
  std::function<Session(int layers)> session;  // a new, empty one of the model's first layers; 0: all
  const Tokenizer& tokenizer;
  int64_t window = 0;                            // tokens that the model reads at once and that it was trained on
  std::function<void(int64_t tokens)> progress;  // tokens read so far; may throw to end it; empty: none
};

/// Reads a text that may be far longer than the model's window, part by part, and keeps of it what a question
/// needs. Thread-safe.
class Reader {
 public:
  virtual ~Reader() = default;
  /// What of `context` the model is to answer from, in the order of the text; `question` comes behind it. With the
  /// question it has at most the window's tokens; a text that may all be kept is returned as it is. Throws Error if
  /// the question leaves no room for a text.
  virtual std::string read(std::string_view context, std::string_view question,
                           const ReaderContext& with) const = 0;
};

}  // namespace fathom
