#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "eval/rng.h"

namespace fathom::eval {

/// A source of running text in which tasks hide facts.
class Haystack {
 public:
  virtual ~Haystack() = default;
  /// "prose" for generated text, or the path of the file or folder that the text is from.
  virtual const std::string& name() const = 0;
  /// Returns `words` words of running text from a random start (HaystackOptions), or fewer if the text is too
  /// short. The text does not end with white space.
  virtual std::string text(Rng& rng, int64_t words) const = 0;
};

/// Returns a generator of sentences from a grammar, of any length. They contain no digits, no quotation marks and
/// none of the statements that tasks hide.
std::unique_ptr<Haystack> prose_haystack();
/// How a text of given length is used as a haystack.
struct HaystackOptions {
  bool repeat = false;      // the text starts again at its end
  bool from_start = false;  // running text starts at the first word instead of at a random paragraph
};
/// Opens the text of a file, or of all .txt and .md files below a folder in the order of their paths. Throws Error
/// if a file cannot be read or is not UTF-8, or if there are no words.
std::unique_ptr<Haystack> file_haystack(const std::string& path, HaystackOptions options = {});
/// Returns a haystack of this text. name: as Haystack::name. Throws Error if it is not UTF-8 or has no words.
std::unique_ptr<Haystack> text_haystack(const std::string& name, std::string_view text,
                                        HaystackOptions options = {});

/// Returns the end of each word of `text` as a byte offset: text.substr(0, ends[n - 1]) contains the first n words.
std::vector<size_t> word_ends(std::string_view text);
/// Splits `text` after sentences and lines. Each part includes the white space after it; the parts joined are
/// `text`.
std::vector<std::string_view> split_sentences(std::string_view text);

}  // namespace fathom::eval
