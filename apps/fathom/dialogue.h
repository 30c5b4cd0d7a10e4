#pragma once

#include <memory>
#include <string>
#include <vector>

#include "decode/generate.h"
#include "loaded_model.h"
#include "saved_context.h"
#include "tokens/chat_template.h"

namespace fathom {

/// Returns the chat template in `file`, or the model's own if `file` is empty. Throws Error if there is none.
std::unique_ptr<const ChatTemplate> open_chat_template(const LoadedModel& loaded, const std::string& file);

/// A chat with a model. Its session keeps the tokens already read, so each turn reads only the new tokens.
class Dialogue {
 public:
  Dialogue(const LoadedModel& loaded, const CommonOptions& options,
           std::unique_ptr<const ChatTemplate> chat_template, const std::string& system,
           const DecodeOptions& decode = {});

  /// Generates an answer to `text` and adds both to the chat. If generation is interrupted, the part generated so
  /// far is added. On an error, or if reading is interrupted, the chat is unchanged.
  Generated answer(const std::string& text, Sampler& sampler, const GenerateOptions& options,
                   const std::function<void(std::string_view)>& on_text);
  /// Puts a text that was read before the first message of the conversation, and of each one after reset(). Throws
  /// Error if it was not read with --chat and the same system prompt.
  void begin_with(Session session, const FramedText& text);
  /// Removes all messages but the system prompt.
  void reset();

 private:
  Drafter drafter();

  const LoadedModel& loaded_;
  std::unique_ptr<const ChatTemplate> template_;
  std::vector<ChatMessage> start_, messages_;
  std::string first_text_;  // precedes the first message
  Session session_;
  DecodeOptions decode_;
  DraftMemory draft_memory_;
};

}  // namespace fathom
