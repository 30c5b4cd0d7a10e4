#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "tokens/regex.h"

namespace fathom {

/// One pass over the words cut so far: what the pattern matches, and what lies between matches, become words.
struct SplitStep {
  const char* pattern;     // PCRE2, UTF-8
  bool thousands = false;  // matches are cut further, into groups of three characters from the right
};

/// How byte-level BPE cuts text into words, by the names of tokenizer.ggml.pre that mean it.
struct PretokenizerInfo {
  std::vector<std::string_view> names;
  std::vector<SplitStep> steps;
  bool ignore_merges = false;  // a word that is a piece is taken whole
  bool add_bos = false;        // what files mean that do not say
};

/// Throws Error that lists the known names; `source` is the file it came from.
const PretokenizerInfo& find_pretokenizer(std::string_view name, std::string_view source);
std::span<const PretokenizerInfo> pretokenizers();

/// Cuts text into words, step by step. Thread-safe.
class Pretokenizer {
 public:
  explicit Pretokenizer(std::span<const SplitStep> steps);

  using OnWord = std::function<void(std::string_view word)>;
  /// Calls on_word for all words of `text`, which make up the text in order; none is empty. A run of bytes that are
  /// not UTF-8 is a word of its own.
  void split(std::string_view text, const OnWord& on_word) const;

 private:
  struct Step {
    Regex regex;
    bool thousands;
  };
  void split_from(size_t step, std::string_view text, Regex::Matcher& matcher, const OnWord& on_word) const;
  std::vector<Step> steps_;
};

}  // namespace fathom
