#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"

namespace fathom {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", "tool", …
  std::string content;
  Json fields = Json::object();  // further ones that templates know, such as tool_calls and reasoning_content
};

/// What a template gets beside the messages.
struct TemplateInputs {
  std::map<std::string, bool> switches{};  // further boolean variables, such as enable_thinking
  Json tools{};  // list of {"type": "function", "function": {name, description, parameters}}; null: none
};

/// The Jinja template of a model file that turns the messages of a chat into one text (tokenizer.chat_template).
/// Thread-safe.
class ChatTemplate {
 public:
  /// Parses the template. bos, eos: the texts of those tokens, available to the template as bos_token and
  /// eos_token. Throws Error that names the line and the unsupported or invalid construct.
  ChatTemplate(std::string source, std::string bos, std::string eos);
  ~ChatTemplate();

  /// Returns the text of the messages. add_generation_prompt: also the beginning of the model's next turn. Throws
  /// Error if the template rejects the messages, fails, or exceeds its step limit.
  std::string render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                     const TemplateInputs& inputs = {}) const;
  const std::string& source() const { return source_; }

 private:
  struct Parsed;
  std::unique_ptr<const Parsed> parsed_;
  std::string source_, bos_, eos_;
};

}  // namespace fathom
