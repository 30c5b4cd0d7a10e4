#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace fathom {

/// A sentence or consecutive sentences of a text, in bytes: [begin, end).
struct SentenceSpan {
  size_t begin = 0, end = 0;
  bool operator==(const SentenceSpan&) const = default;
};

/// Returns the sentences of a text, which may be any bytes, in order, without the white space between them. A
/// sentence ends after . ! ? or … and closing quotes and brackets, if white space or the end of the text follows;
/// after the Chinese and Japanese marks 。！？ in any case; and at a blank line. Abbreviations are not recognised.
std::vector<SentenceSpan> find_sentences(std::string_view text);

/// Returns spans in ascending order; those that overlap or touch are joined.
std::vector<SentenceSpan> merge_spans(std::vector<SentenceSpan> spans);

}  // namespace fathom
