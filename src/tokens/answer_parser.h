#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "tokens/answer_format.h"

namespace fathom {

/// Receives the parts of an answer. Each function may be empty.
struct AnswerHandler {
  std::function<void(std::string_view)> on_reasoning{};
  std::function<void(std::string_view)> on_text{};
  std::function<void(std::string_view name)> on_call{};       // a call begins
  std::function<void(std::string_view json)> on_arguments{};  // the next part of its arguments
};

/// Divides the text of an answer, as it arrives, into reasoning, text and calls of tools. What looks like a call
/// but is none stays text. Whitespace before and after reasoning and calls is left out.
class AnswerParser {
 public:
  /// tools: as TemplateInputs::tools, whose schemas tell strings from other values; null: calls are text.
  /// forced: what the answer begins with before the first add(), because the prompt ended with it.
  AnswerParser(const AnswerFormat& format, const Json& tools, AnswerHandler handler, std::string_view forced = "");

  void add(std::string_view text);
  /// The answer has ended: what was held back is a part of it.
  void finish();
  int calls() const { return calls_; }

 private:
  enum class State { kStart, kReasoning, kText, kName, kArguments, kAfterArguments, kParameters, kHeader };
  bool step();
  bool start();
  bool reasoning();
  bool text();
  bool name();
  bool wrapped_name();
  bool scan_value(size_t& at);
  bool arguments();
  bool after_arguments();
  bool parameters();
  bool header();
  void begin_call(std::string_view name);
  void emit_text(std::string_view text);
  void emit_reasoning(std::string_view text);
  bool knows_tool(std::string_view name) const;
  Json parameter_value(std::string_view key, std::string_view text) const;
  size_t safe_length(std::string_view marker) const;
  size_t safe_length() const;
  void not_a_call();

  AnswerFormat format_;
  Json tools_;
  AnswerHandler handler_;
  std::string marker_;      // what a call begins with, without spaces around it
  std::string end_marker_;  // what it ends with
  bool wrapped_ = false;    // whether name and arguments are fields of one JSON object
  std::string name_key_ = "name", arguments_key_ = "arguments";  // of these fields
  State state_ = State::kStart;
  State body_ = State::kText;  // of a harmony message
  std::string buffer_;         // not yet divided
  std::string name_;           // of the call
  std::string spaces_;         // whitespace that belongs to the text only if text follows
  bool any_text_ = false, any_reasoning_ = false, ended_ = false, after_call_ = false;
  int calls_ = 0;
  int depth_ = 0;  // of open brackets of scan_value()
  bool in_string_ = false, escaped_ = false;
};

}  // namespace fathom
