#pragma once

#include <string_view>
#include <vector>

#include "context/reader.h"

namespace fathom {

/// Splits a text into sentences, each including the punctuation and white space that end it. Their concatenation is
/// the text.
/// Sentences end at : . ? ! and their full-width forms and at line ends. A fragment of fewer than 9 bytes is part
/// of the sentence before it, unless that sentence ends with a line end.
std::vector<std::string_view> sentences_of(std::string_view text);

/// A sentence, or a part of a very long one, and its tokens when encoded alone.
struct TextUnit {
  std::string_view text;
  std::vector<int32_t> tokens;
};
/// Splits a text into sentences. Longer sentences are cut at spaces, or between characters if they have none, into
/// parts of at most `max_tokens` tokens.
std::vector<TextUnit> text_units(std::string_view text, const Tokenizer& tokenizer, int64_t max_tokens);
/// Joins the texts of the chosen units. chosen: indices, ascending.
std::string join_units(const std::vector<TextUnit>& units, const std::vector<size_t>& chosen);

/// Reads parts of a text, each in a new session and followed by the question, and reports the progress.
class WindowReader {
 public:
  /// window: tokens of BOS, text, question and answer together; 64 of them are reserved for the answer. Throws
  /// Error if fewer than 16 tokens are left for a text.
  WindowReader(std::string_view question, const ReaderContext& model, int64_t window);

  const std::vector<int32_t>& question() const { return question_; }
  /// Number of tokens of the window that are available for a text.
  int64_t room() const { return room_; }
  /// Index of the first token of a text: 1 if the vocabulary puts a BOS token before it, else 0.
  int64_t first_text_token() const { return std::ssize(bos_); }
  /// Whether the text and the question fit into the window.
  bool fits(std::string_view text) const;
  /// Reads `text` and the question in a new session and returns it. before: called with the empty session; options:
  /// as in Session::append(); layers: as in ReaderContext::session.
  Session read(std::span<const int32_t> text, const std::function<void(Session&)>& before = nullptr,
               const AppendOptions& options = {}, int layers = 0);

 private:
  const ReaderContext& model_;
  std::vector<int32_t> bos_, question_;
  int64_t room_;
  int64_t done_ = 0;  // tokens read in earlier calls of read()
};

}  // namespace fathom
