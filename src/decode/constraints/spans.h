#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "decode/constraint.h"
#include "decode/constraints/sentences.h"
#include "decode/search.h"
#include "decode/string_set.h"
#include "decode/token_bytes.h"
#include "session/session.h"

namespace fathom {

// Points to evidence in a text by generating only the openings of sentences. Source: Qian et al., 2024 (CFIC).

/// The openings of the sentences of a text, in bytes; one space before a sentence is ignored. A Language of
/// ByteConstraint.
class SentenceOpenings {
 public:
  struct State {
    StringSet::Prefix prefix;
    bool begun = false;
  };
  /// full: only whole sentences; else a text ends as soon as it identifies one sentence, or has `prefix` tokens.
  /// Throws Error for a text without sentences.
  SentenceOpenings(std::string_view text, bool full, int64_t prefix);

  State start() const { return {strings_->start()}; }
  bool step(State& state, unsigned char byte) const;
  bool may_end(const State& state, int64_t tokens) const;
  bool must_end(const State& state, int64_t tokens) const;

  const StringSet& strings() const { return *strings_; }
  /// Returns where the first sentence begins of those with an opening.
  size_t first_begin(const State& state) const;

 private:
  std::shared_ptr<const StringSet> strings_;
  bool full_;
  int64_t prefix_;
};

struct SpanOptions {
  int spans = 3;                                        // most openings, and so spans
  int64_t prefix = 32;                                  // most tokens of an opening
  int64_t max = 256;                                    // most tokens of a span
  std::function<void(int64_t tokens_read)> progress{};  // called now and then; may throw to stop
};

struct SpanResult {
  std::vector<SentenceSpan> spans;   // of the text, ascending, not overlapping
  std::vector<Hypothesis> openings;  // best first
};

/// Returns the end, in bytes, of the span that begins with sentence `first`: reads the text from there in one pass,
/// up to `max` tokens, and returns the end of a sentence after which an end-of-generation token is most likely (of
/// equal ones the first). If no sentence ends within `max` tokens, returns the end of the first sentence.
/// sentences: of the text; bytes: of the tokenizer. The session holds the prompt and is unchanged.
size_t choose_span_end(const Session& session, const Tokenizer& tokenizer, const TokenBytes& bytes,
                       std::string_view text, std::span<const SentenceSpan> sentences, size_t first, int64_t max);

/// Returns the spans of a text that answer the prompt which the session has read: generates the likeliest sentence
/// openings and chooses the end of each span. The session is unchanged. Throws Error for a text without sentences.
SpanResult find_spans(const Session& session, const Tokenizer& tokenizer, std::string_view text,
                      const SpanOptions& options = {});

}  // namespace fathom
