#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/registry.h"
#include "decode/constraint.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom {

/// A continuation found by a search.
struct Hypothesis {
  std::vector<int32_t> tokens;  // without the end-of-generation token
  double log_probability = 0;   // Σ ln p(token) under the model (softmax of the plain logits, without penalties),
                                // including the end-of-generation token if it ended with one
  double score = 0;             // what the search ranked it by
  bool ended = false;           // with an end-of-generation token
};

/// The task of a search. Hypotheses share pages with the session and with each other.
struct SearchTask {
  const Session* session = nullptr;  // holds the prompt and the logits after it; unchanged by the search
  const Tokenizer* tokenizer = nullptr;
  std::span<const int32_t> prompt{};
  int64_t max_tokens = 256;                // per hypothesis
  const Constraint* constraint = nullptr;  // null: none
  /// Called now and then with the number of tokens that the model has read; may throw to stop. May be empty.
  std::function<void(int64_t tokens_read)> progress{};
};

struct SearchResult {
  std::vector<Hypothesis> hypotheses;  // best first; at least one
  int64_t tokens_read = 0;             // by the model
  int64_t forwards = 0;                // forward passes
};

/// Looks for continuations instead of sampling one. Thread-safe.
class Search {
 public:
  virtual ~Search() = default;
  /// Throws Error (out of memory, interrupted).
  virtual SearchResult run(const SearchTask& task) const = 0;
};

using SearchMethod = std::unique_ptr<Search>(const Values&);
using SearchEntry = MethodTable<SearchMethod>::Entry;

/// Returns the `--search` methods.
const MethodTable<SearchMethod>& search_methods();

}  // namespace fathom
