#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// Edits of a text as a short list, which a model generates instead of the whole edited text. Source: Kaneko and
// Okazaki, 2023 (edit spans). A word is a run of white space and the run of other bytes after it; white space at
// the end of the text is its last word. The words are numbered from 0. Joined they are the text, which may be any
// bytes.
//
// A list is "none", or edits separated by line feeds, each "START END" (words [START, END) are removed) or
// "START END TEXT" (they are replaced; START = END inserts). Ranges ascend and do not overlap. TEXT begins after
// one space and is not empty. A space is put before it, unless START is 0 or it begins with a backslash. In it, \n
// is a line feed, \s a space, \\ a backslash, and \- at its beginning nothing.

/// Replaces the words [start, end) of a text by another text.
struct WordEdit {
  int64_t start = 0, end = 0;
  std::string text{};
  bool operator==(const WordEdit&) const = default;
};

/// Returns the words of a text.
std::vector<std::string_view> words_of(std::string_view text);

/// Returns edits that turn `source` into `target`. They remove and insert the fewest words if these are at most
/// 512, else nearly the fewest. Time O(words · min(differences, 512)), memory O(words). Source of the algorithm:
/// Myers, 1986.
std::vector<WordEdit> extract_edits(std::string_view source, std::string_view target);

/// Returns `source` with the edits applied. Texts inserted at the same position keep their order. Throws Error for
/// an edit outside the text, and for one that begins before the end of the one before it.
std::string apply_edits(std::string_view source, std::span<const WordEdit> edits);

/// Returns the list of edits as text, without edits that have no effect (start = end and no text).
std::string format_edits(std::span<const WordEdit> edits);

/// Parses a list for a text of this many words. Throws Error that names the byte, what was expected and found.
std::vector<WordEdit> parse_edits(std::string_view list, int64_t words);

}  // namespace fathom
