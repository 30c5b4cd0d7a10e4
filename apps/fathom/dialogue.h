#pragma once

#include <memory>
#include <string>
#include <vector>

#include "decode/generate.h"
#include "loaded_model.h"
#include "tokens/chat_template.h"

namespace fathom {

/// The template in `file`, or the model's own if that is empty. Throws Error saying what to do if there is none.
std::unique_ptr<const ChatTemplate> open_chat_template(const LoadedModel& loaded, const std::string& file);

/// A chat with a model: the session keeps what was read, and only what is new is read with each turn.
class Dialogue {
 public:
  Dialogue(const LoadedModel& loaded, const CommonOptions& options,
           std::unique_ptr<const ChatTemplate> chat_template, const std::string& system);

  /// Answers `text`, which then belongs to the chat with its answer; if the answer was interrupted, with what there
  /// is of it. On an error, interrupts of the reading included, the chat is as it was.
  Generated answer(const std::string& text, Sampler& sampler, const GenerateOptions& options,
                   const std::function<void(std::string_view)>& on_text);
  /// Back to the system prompt.
  void reset();

 private:
  void read(const std::vector<int32_t>& tokens);

  const LoadedModel& loaded_;
  std::unique_ptr<const ChatTemplate> template_;
  std::vector<ChatMessage> start_, messages_;
  Session session_;
  std::vector<int32_t> held_;  // the session's tokens
};

}  // namespace fathom
