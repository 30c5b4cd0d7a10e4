#include "decode/constraints/sentences.h"

#include <algorithm>
#include <array>
#include <span>

namespace fathom {
namespace {

constexpr std::array<std::string_view, 4> kMarks = {".", "!", "?", "…"};
constexpr std::array<std::string_view, 3> kWideMarks = {"。", "！", "？"};
constexpr std::array<std::string_view, 12> kClosers = {"\"", "'", ")",  "]",  "}",  "”",
                                                       "’",  "»", "」", "』", "）", "】"};

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// Returns the length of the mark that `text` begins with; 0: none.
size_t mark_at(std::string_view text, std::span<const std::string_view> marks) {
  for (const std::string_view mark : marks)
    if (text.starts_with(mark)) return mark.size();
  return 0;
}

/// Returns whether a blank line begins at a position.
bool is_paragraph_end(std::string_view text, size_t at) {
  if (text[at] != '\n') return false;
  while (++at < text.size() && is_blank(text[at]))
    if (text[at] == '\n') return true;
  return false;
}

/// Returns the end of the sentence that begins at `at`.
size_t sentence_end(std::string_view text, size_t at) {
  while (at < text.size()) {
    if (is_paragraph_end(text, at)) return at;
    bool wide = false;
    size_t end = at;
    for (size_t length;; end += length) {
      const size_t wide_length = mark_at(text.substr(end), kWideMarks);
      wide |= wide_length > 0;
      length = wide_length > 0 ? wide_length : mark_at(text.substr(end), kMarks);
      if (length == 0) break;
    }
    if (end == at) {
      ++at;
      continue;
    }
    while (const size_t length = mark_at(text.substr(end), kClosers)) end += length;
    if (wide || end == text.size() || is_blank(text[end])) return end;
    at = end;
  }
  return at;
}

}  // namespace

std::vector<SentenceSpan> find_sentences(std::string_view text) {
  std::vector<SentenceSpan> sentences;
  for (size_t at = 0;;) {
    while (at < text.size() && is_blank(text[at])) ++at;
    if (at == text.size()) return sentences;
    const size_t begin = at;
    at = sentence_end(text, begin);
    size_t end = at;
    while (is_blank(text[end - 1])) --end;
    sentences.push_back({begin, end});
  }
}

std::vector<SentenceSpan> merge_spans(std::vector<SentenceSpan> spans) {
  std::ranges::sort(spans, {}, &SentenceSpan::begin);
  std::vector<SentenceSpan> merged;
  for (const SentenceSpan& span : spans) {
    if (!merged.empty() && span.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, span.end);
    } else {
      merged.push_back(span);
    }
  }
  return merged;
}

}  // namespace fathom
