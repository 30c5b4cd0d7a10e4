#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/method_specs.h"
#include "formats/context_file.h"
#include "session/session.h"

namespace fathom::eval {

/// A text that was read before, with which the prompts of an evaluation begin.
class ReadContext {
 public:
  /// chunk: tokens per prefill chunk of the evaluation. Throws Error (usage) for a context with evicted tokens.
  ReadContext(std::shared_ptr<const ContextFile> file, int64_t chunk);

  const ContextFile& file() const { return *file_; }
  /// The least number of tokens that are taken: a page with dense attention, a prefill chunk with other methods.
  int64_t least() const;
  /// Returns how many first tokens of a prompt are taken from the file, at most `limit`: those that both have in
  /// common, in whole prefill chunks, so that the rest has the bits of a reading without the file. With dense
  /// attention bits do not depend on chunks, and less than a chunk is taken in whole pages.
  int64_t taken(std::span<const int32_t> prompt, int64_t limit) const;
  /// Throws Error (usage) unless a context that was read with this method is the one in the file.
  void check(const MethodSpecs& method) const;
  /// Opens a session of the whole context. Throws Error that says what differs for another model, other adapters,
  /// positions or pages.
  Session open(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, SessionOptions options) const;

 private:
  std::shared_ptr<const ContextFile> file_;
  int64_t chunk_;
};

}  // namespace fathom::eval
