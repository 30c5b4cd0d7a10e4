#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/context_file.h"
#include "session/session.h"
#include "tokens/chat_template.h"
#include "tokens/tokenizer.h"

namespace fathom {

/// A text and what stands around it in the prompt: with a chat template, the beginning of the user's message before
/// it, and what ends the message after the question.
struct FramedText {
  std::string before, text, after;
  bool chat = false;
  bool cartridge = false;  // trained slots instead of a text

  /// Frames a text as a user message of a chat template, with a system prompt if it is not empty. Throws Error if
  /// the template changes the text of messages.
  static FramedText of_chat(const ChatTemplate& chat_template, const std::string& system, std::string text);
  /// Returns the frame and text of a context file. Throws Error if it was not written by `fathom read`.
  static FramedText of(const ContextFile& file);

  /// Returns the tokens of the text, or of the text and a question, which follows it directly, as the prompt of
  /// `fathom run` follows its files.
  std::vector<int32_t> tokens(const Tokenizer& tokenizer) const;
  std::vector<int32_t> tokens(const Tokenizer& tokenizer, const std::string& question) const;
  /// Returns the byte offset in `text` of each token; empty if the tokens do not spell the text exactly.
  std::vector<int64_t> offsets(const Tokenizer& tokenizer, std::span<const int32_t> tokens) const;
  Json to_json() const;
  /// Writes a session that has read the text to a context file. saved: its notes are added to those of the frame;
  /// its text and offsets are ignored. Throws what Session::save throws.
  void save(const Session& session, const Tokenizer& tokenizer, const std::string& path,
            SavedText saved = {}) const;
};

}  // namespace fathom
