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

/// The Jinja template by which a model file writes a chat as one text (tokenizer.chat_template). Thread-safe.
class ChatTemplate {
 public:
  /// bos, eos: the texts of those tokens, which templates put in. Throws Error that names the line and what is not
  /// understood.
  ChatTemplate(std::string source, std::string bos, std::string eos);
  ~ChatTemplate();

  /// The text before the model's next turn. add_generation_prompt: with the beginning of that turn. switches:
  /// further names the template asks for, such as enable_thinking. Throws Error if the template refuses the
  /// messages, fails, or does not end.
  std::string render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                     const std::map<std::string, bool>& switches = {}) const;

 private:
  struct Parsed;
  std::unique_ptr<const Parsed> parsed_;
  std::string bos_, eos_;
};

}  // namespace fathom
