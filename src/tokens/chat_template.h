#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace fathom {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", …
  std::string content;
};

/// The Jinja template of a model file that turns the messages of a chat into one text (tokenizer.chat_template).
/// Thread-safe.
class ChatTemplate {
 public:
  /// Parses the template. bos, eos: the texts of those tokens, available to the template as bos_token and
  /// eos_token. Throws Error that names the line and the unsupported or invalid construct.
  ChatTemplate(std::string source, std::string bos, std::string eos);
  ~ChatTemplate();

  /// Returns the text of the messages. add_generation_prompt: also the beginning of the model's next turn.
  /// switches: further boolean variables of the template, such as enable_thinking. Throws Error if the template
  /// rejects the messages, fails, or exceeds its step limit.
  std::string render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                     const std::map<std::string, bool>& switches = {}) const;

 private:
  struct Parsed;
  std::unique_ptr<const Parsed> parsed_;
  std::string bos_, eos_;
};

}  // namespace fathom
