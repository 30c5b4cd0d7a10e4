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

/// The model that a Reader reads with.
struct ReaderContext {
  /// Returns an empty session that runs the first `layers` layers of the model; 0: all.
  std::function<Session(int layers)> session;
  const Tokenizer& tokenizer;
  int64_t window = 0;  // tokens read at once, at most the model's trained length
  /// Receives the number of tokens read so far. May throw to cancel; may be empty.
  std::function<void(int64_t tokens)> progress;
};

/// Reads a text that may be far longer than the model's window in parts, and selects the parts that a question
/// needs. Thread-safe.
class Reader {
 public:
  virtual ~Reader() = default;
  /// Returns the parts of `context` that the model needs to answer, in the order of the text. The caller appends
  /// `question` to them. The result and the question together have at most `model.window` tokens. Returns the whole
  /// context if it fits. Throws Error if the question leaves no room for a text.
  virtual std::string read(std::string_view context, std::string_view question,
                           const ReaderContext& model) const = 0;
};

}  // namespace fathom
