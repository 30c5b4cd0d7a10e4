#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "tokens/regex.h"

namespace fathom {

/// One pass over the words of the previous pass. Matches of the pattern, and the text between matches, become
/// words.
struct SplitStep {
  const char* pattern;     // PCRE2, UTF-8
  bool thousands = false;  // matches are split further into groups of three characters, counted from the right
};

/// How byte-level BPE splits text into words, and the values of tokenizer.ggml.pre that select it.
struct PretokenizerInfo {
  std::vector<std::string_view> names;
  std::vector<SplitStep> steps;
  bool ignore_merges = false;  // a word that is a piece becomes one token, whatever the merges
  bool add_bos = false;        // the default where the file has no add_bos_token
};

/// Returns the pre-tokenizer with this name. Throws Error that lists the known names. source: the file, for
/// messages.
const PretokenizerInfo& find_pretokenizer(std::string_view name, std::string_view source);
/// Returns all pre-tokenizers.
std::span<const PretokenizerInfo> pretokenizers();

/// Splits text into words by a sequence of steps. Thread-safe.
class Pretokenizer {
 public:
  explicit Pretokenizer(std::span<const SplitStep> steps);

  using OnWord = std::function<void(std::string_view word)>;
  /// Calls on_word for the words of `text` in order. No word is empty, and joined they are the text. Consecutive
  /// bytes that are not UTF-8 form one word.
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
