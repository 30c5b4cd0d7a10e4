#pragma once

#include <string_view>
#include <vector>

#include "context/reader.h"

namespace fathom {

/// The sentences of a text with the marks and the blank space that end them: together they are the text. Ended by
/// : . ? ! a line's end and the full-width forms; a fragment of fewer than 9 characters belongs to what comes
/// before.
std::vector<std::string_view> sentences_of(std::string_view text);

/// A sentence, or a part of a very long one, and how many tokens it has when it stands alone.
struct Unit {
  std::string_view text;
  std::vector<int32_t> tokens;
};
/// The sentences of a text; those of more than `most` tokens are cut between words, or where they must.
std::vector<Unit> units_of(std::string_view text, const Tokenizer& tokenizer, int64_t most);
/// The texts of the chosen units, in order. chosen: indices, ascending.
std::string joined_units(const std::vector<Unit>& units, const std::vector<size_t>& chosen);

/// The question's tokens, how many the window leaves for a text before them, and the counting of tokens read.
class ReadRun {
 public:
  /// reserve: tokens of the window kept for the answer. Throws Error if no room is left for a text.
  ReadRun(std::string_view question, const ReaderContext& with, int64_t window);

  const std::vector<int32_t>& question() const { return question_; }
  int64_t room() const { return room_; }
  /// Tokens that stand before every text.
  int64_t first_text_token() const { return std::ssize(beginning_); }
  /// Whether the text and the question fit into the window.
  bool fits(std::string_view text) const;
  /// Reads `text` and the question in a session of their own; `before` may prepare it, `options` as in append(),
  /// `layers` as in ReaderContext::session.
  Session read(std::span<const int32_t> text, const std::function<void(Session&)>& before = nullptr,
               const AppendOptions& options = {}, int layers = 0);

 private:
  const ReaderContext& with_;
  std::vector<int32_t> beginning_, question_;
  int64_t room_;
  int64_t done_ = 0;
};

}  // namespace fathom
