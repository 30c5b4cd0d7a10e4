#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "eval/rng.h"

namespace fathom::eval {

/// Prose to hide things in.
class Haystack {
 public:
  virtual ~Haystack() = default;
  /// "prose", or the path.
  virtual const std::string& name() const = 0;
  /// Up to `words` words of running text, beginning where the rng say; fewer only if there are no more. Ends with
  /// no blank.
  virtual std::string text(Rng& rng, int64_t words) const = 0;
};

/// Sentences made up by a grammar, as many as wanted: no digits, no quotation marks, nothing a task hides.
std::unique_ptr<Haystack> prose_haystack();
/// The text of a file, or of all .txt and .md files below a folder, in order of their names. repeat: begins again
/// when it ends. Throws Error if it cannot be read, is empty or is no UTF-8 text.
std::unique_ptr<Haystack> file_haystack(const std::string& path, bool repeat);

/// The end of each word of `text`, a byte offset: text.substr(0, ends[n - 1]) is its first n words.
std::vector<size_t> word_ends(std::string_view text);
/// The sentences of `text`, with the blank space after them: together they are `text`.
std::vector<std::string_view> split_sentences(std::string_view text);

}  // namespace fathom::eval
