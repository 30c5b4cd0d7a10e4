#include "tokens/answer_format.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "base/format.h"

namespace fathom {
namespace {

// Names and values of the example, which occur in no template.
constexpr std::string_view kTool = "fathom_example_tool", kFirstKey = "first_example_key",
                           kFirstValue = "first example value", kSecondKey = "second_example_key",
                           kSecondValue = "second example value", kText = "An example of a text.";

using Tags = std::pair<const char*, const char*>;
constexpr std::array<Tags, 4> kReasoningTags = {Tags{"<think>", "</think>"}, Tags{"[THINK]", "[/THINK]"},
                                                Tags{"<|START_THINKING|>", "<|END_THINKING|>"},
                                                Tags{"<seed:think>", "</seed:think>"}};

Json example_tools() {
  const Json text = {{"type", "string"}, {"description", "a text"}};
  const Json parameters = {{"type", "object"},
                           {"properties", {{kFirstKey, text}, {kSecondKey, text}}},
                           {"required", Json::array({kFirstKey, kSecondKey})}};
  return Json::array(
      {{{"type", "function"},
        {"function", {{"name", kTool}, {"description", "an example"}, {"parameters", parameters}}}}});
}

Json example_calls(bool text_arguments) {
  const Json arguments = {{kFirstKey, kFirstValue}, {kSecondKey, kSecondValue}};
  return Json::array(
      {{{"id", AnswerFormat::kExampleId},  // of the length that some templates demand
        {"type", "function"},
        {"function", {{"name", kTool}, {"arguments", text_arguments ? Json(arguments.dump()) : arguments}}}}});
}

/// Returns the text of a conversation, or nothing if the template refuses it.
std::optional<std::string> try_render(const ChatTemplate& chat_template, const std::vector<ChatMessage>& messages,
                                      bool prompt, const Json& tools) {
  try {
    return chat_template.render(messages, prompt, {{}, tools});
  } catch (const Error&) {
    return std::nullopt;
  }
}

size_t common_prefix(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

size_t common_suffix(std::string_view a, std::string_view b) {
  size_t n = 0;
  while (n < std::min(a.size(), b.size()) && a[a.size() - 1 - n] == b[b.size() - 1 - n]) ++n;
  return n;
}

/// Returns whether a text ends inside of a tag.
bool ends_in_tag(std::string_view text) {
  const size_t open = text.rfind('<');
  return open != std::string_view::npos && text.find('>', open) == std::string_view::npos;
}

/// Returns the text between two parts; nothing if they do not follow one another.
std::optional<std::string> between(std::string_view text, std::string_view left, std::string_view right) {
  const size_t begin = text.find(left);
  if (begin == std::string_view::npos) return std::nullopt;
  const size_t end = text.find(right, begin + left.size());
  if (end == std::string_view::npos) return std::nullopt;
  return std::string(text.substr(begin + left.size(), end - begin - left.size()));
}

/// Returns what follows the header of the assistant's turn in a conversation that ends with `answer`.
std::optional<std::string> turn_of(const ChatTemplate& chat_template, const ChatMessage& answer,
                                   const Json& tools) {
  const std::vector<ChatMessage> before{{"user", "Hello"}};
  std::vector<ChatMessage> all = before;
  all.push_back(answer);
  const auto head = try_render(chat_template, before, true, tools),
             whole = try_render(chat_template, all, false, tools);
  if (!head || !whole) return std::nullopt;
  const std::string_view common = std::string_view(*whole).substr(0, common_prefix(*head, *whole));
  return whole->substr(ends_in_tag(common) ? common.rfind('<') : common.size());
}

/// Learns the form of calls from the turn of an answer with the example's call. Returns false for an unknown form.
bool learn_call(std::string_view turn, std::string_view turn_end, AnswerFormat& format) {
  const size_t name = turn.find(kTool), first = turn.find(kFirstKey);
  if (name == std::string_view::npos || first == std::string_view::npos || first < name) return false;
  const std::string begin(turn.substr(0, name));
  if (begin.find_first_not_of(" \n") == std::string::npos) return false;  // a call would look like text
  const size_t last = turn.rfind(kSecondValue);
  if (last == std::string_view::npos || last < first) return false;
  std::string_view rest = turn.substr(last + kSecondValue.size());
  const std::string_view call_rest = rest;
  rest.remove_suffix(common_suffix(rest, turn_end));
  if (ends_in_tag(rest))
    rest = call_rest.substr(0, std::min(call_rest.find('>', rest.size()), call_rest.size() - 1) + 1);
  const size_t after_name = name + kTool.size();
  const size_t open = turn.substr(0, first).rfind('{');
  if (open != std::string_view::npos && open >= after_name && first > 0 && turn[first - 1] == '"') {
    const size_t close = rest.find('}');
    if (close == std::string_view::npos) return false;
    format.style = AnswerFormat::Style::kJson;
    format.call_middle = turn.substr(after_name, open - after_name);
    format.call_end = rest.substr(close + 1);
  } else {
    const auto middle = between(turn, kFirstKey, kFirstValue), separator = between(turn, kFirstValue, kSecondKey);
    if (!middle || !separator || middle->empty()) return false;
    const std::string_view before_key = turn.substr(after_name, first - after_name);
    size_t shared = common_suffix(*separator, before_key);
    // What both end with may also hold the end of the tag before.
    if (const size_t tag = separator->rfind('<'); tag != std::string::npos && separator->size() - tag < shared)
      shared = separator->size() - tag;
    const std::string value_end = separator->substr(0, separator->size() - shared);
    if (shared == 0 || value_end.empty() || !rest.starts_with(value_end)) return false;
    format.style = AnswerFormat::Style::kParameters;
    format.value_begin = separator->substr(separator->size() - shared);
    format.value_middle = *middle;
    format.value_end = value_end;
    format.call_middle = before_key.substr(0, before_key.size() - shared);
    format.call_end = rest.substr(value_end.size());
  }
  format.call_begin = begin;
  return true;
}

void learn_reasoning(const ChatTemplate& chat_template, AnswerFormat& format) {
  const auto tags = std::ranges::find_if(kReasoningTags, [&](const Tags& pair) {
    return chat_template.source().find(pair.second) != std::string::npos;
  });
  if (tags == kReasoningTags.end()) return;
  format.think_begin = tags->first;
  format.think_end = tags->second;
  const auto begins = [&](const TemplateInputs& inputs) {
    try {
      const std::string prompt = chat_template.render({{"user", "Hello"}}, true, inputs);
      const size_t last = prompt.find_last_not_of(" \n");
      return last != std::string::npos &&
             std::string_view(prompt).substr(0, last + 1).ends_with(format.think_begin);
    } catch (const Error&) {
      return false;
    }
  };
  format.begins_reasoning = begins({});
  format.has_switch = format.begins_reasoning && !begins({.switches = {{"enable_thinking", false}}});
}

std::string describe_tools(const Json& tools) {
  std::string text = "You can call these tools. Each is described by a JSON schema of its arguments.\n";
  for (const Json& tool : tools.items()) text += concat(tool.at("function").dump(), "\n");
  return text +
         "To call a tool, answer with its name and arguments in this form:\n<tool_call>\n{\"name\": NAME, "
         "\"arguments\": OBJECT}\n</tool_call>\nYou get the result in <tool_response> tags.";
}

}  // namespace

AnswerFormat learn_answer_format(const ChatTemplate& chat_template) {
  AnswerFormat format;
  if (chat_template.source().find("<|channel|>") != std::string::npos) {
    format.style = AnswerFormat::Style::kHarmony;
    format.knows_tools = true;
    return format;
  }
  learn_reasoning(chat_template, format);
  const Json tools = example_tools();
  const auto head = try_render(chat_template, {{"user", "Hello"}}, true, tools);
  const auto plain = turn_of(chat_template, {"assistant", std::string(kText)}, tools);
  if (!head || !plain || head->find(kTool) == std::string::npos) return format;
  const size_t at = plain->find(kText);
  if (at == std::string::npos) return format;
  const std::string turn_begin = plain->substr(0, at), turn_end = plain->substr(at + kText.size());
  for (const bool text_arguments : {false, true}) {
    ChatMessage message{"assistant", ""};
    message.fields["tool_calls"] = example_calls(text_arguments);
    const auto turn = turn_of(chat_template, message, tools);
    const bool printed = turn && turn->find("': '") != std::string::npos;  // a dict in Python's form
    if (!turn || printed) continue;
    std::string_view calls = *turn;
    if (calls.starts_with(turn_begin)) calls.remove_prefix(turn_begin.size());
    if (!learn_call(calls, turn_end, format)) break;  // arguments in another notation than JSON
    format.knows_tools = true;
    format.text_arguments = text_arguments;
    break;
  }
  return format;
}

std::vector<ChatMessage> with_tools(const AnswerFormat& format, std::vector<ChatMessage> messages,
                                    const Json& tools) {
  for (ChatMessage& message : messages) {
    Json* calls = message.fields.find("tool_calls");
    if (!calls) continue;
    for (Json& call : calls->items()) {
      Json& function = call["function"];
      Json& arguments = function["arguments"];
      if (!format.knows_tools)
        message.content +=
            concat(message.content.empty() ? "" : "\n", write_call(format, function["name"].text(), arguments));
      if (format.text_arguments) arguments = arguments.dump();
    }
    if (!format.knows_tools) message.fields.erase("tool_calls");
  }
  if (format.knows_tools) return messages;
  for (ChatMessage& message : messages) {
    if (message.role != "tool") continue;
    message = {"user", concat("<tool_response>\n", message.content, "\n</tool_response>")};
  }
  if (tools.is_null() || tools.empty()) return messages;
  if (messages.empty() || messages[0].role != "system") messages.insert(messages.begin(), {"system", ""});
  std::string& system = messages[0].content;
  system += concat(system.empty() ? "" : "\n\n", describe_tools(tools));
  return messages;
}

std::string write_call(const AnswerFormat& format, std::string_view name, const Json& arguments) {
  std::string text = concat(format.call_begin, name, format.call_middle);
  if (format.style == AnswerFormat::Style::kParameters) {
    for (const auto& [key, value] : arguments.fields())
      text += concat(format.value_begin, key, format.value_middle, value.is_string() ? value.text() : value.dump(),
                     format.value_end);
  } else {
    text += arguments.dump();
  }
  return text + format.call_end;
}

}  // namespace fathom
