#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "tokens/chat_template.h"

namespace fathom {

/// How a model writes the parts of an answer that are not its text: reasoning, and calls of tools. A call is
///   kJson: call_begin NAME call_middle ARGUMENTS call_end, with a JSON object as ARGUMENTS;
///   kParameters: call_begin NAME call_middle, for each argument value_begin KEY value_middle VALUE value_end, then
///     call_end, with strings as they are and other values as JSON;
///   kHarmony: messages with channels and recipients, as of gpt-oss.
struct AnswerFormat {
  /// The identifier of the call in the examples, which the strings below may hold; other calls have others.
  static constexpr std::string_view kExampleId = "call00001";
  enum class Style { kJson, kParameters, kHarmony };
  Style style = Style::kJson;
  std::string think_begin{}, think_end{};  // tags around reasoning; empty: the model writes none
  std::string call_begin = "<tool_call>\n{\"name\": \"",
              call_middle = "\", \"arguments\": ", call_end = "}\n</tool_call>";
  std::string value_begin{}, value_middle{}, value_end{};
  bool knows_tools = false;       // whether the template shows tools, calls and results to the model
  bool text_arguments = false;    // whether the template expects the arguments of earlier calls as text
  bool begins_reasoning = false;  // whether an answer begins inside of reasoning, as the prompt ends with its tag
  bool has_switch = false;        // whether enable_thinking = false makes it begin outside
};

/// Finds out by rendering example messages how the model of a template writes calls and reasoning. The template is
/// not expected to have any of them: calls then have the form of the members' defaults.
AnswerFormat learn_answer_format(const ChatTemplate& chat_template);

/// Returns the messages in a form that the template of a format can render: it gets the arguments of calls as it
/// expects them, and, if it does not know tools, a description of them in the system message, with earlier calls
/// and results as text. tools: as TemplateInputs::tools; null: none.
std::vector<ChatMessage> with_tools(const AnswerFormat& format, std::vector<ChatMessage> messages,
                                    const Json& tools);

/// Returns a call in the form in which the model writes it. arguments: an object.
std::string write_call(const AnswerFormat& format, std::string_view name, const Json& arguments);

}  // namespace fathom
