#include "serve/api.h"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <ctime>
#include <random>

#include "base/format.h"
#include "serve/api_error.h"

namespace fathom::serve {
namespace {

template <class T>
T field_value(const Json& body, std::string_view field, T fallback, const char* expected) {
  const Json* found = body.find(field);
  if (!found || found->is_null()) return fallback;
  try {
    return found->get<T>();
  } catch (const JsonError&) {
    throw ApiError(400, concat(field, ": expected ", expected, ", found ", quote(found->dump())), "invalid_value");
  }
}

uint64_t random_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

}  // namespace

Json parse_body(const std::string& body) {
  try {
    Json json = Json::parse(body);
    if (json.is_object()) return json;
  } catch (const JsonError& error) {
    throw ApiError(400, concat("the body is not JSON: ", error.what()), "invalid_json");
  }
  throw ApiError(400, "the body: expected a JSON object", "invalid_json");
}

std::string required_text(const Json& body, std::string_view field) {
  const Json* found = body.find(field);
  if (!found || !found->is_string()) throw ApiError(400, concat(field, ": expected a string"), "missing_field");
  return found->text();
}

bool flag(const Json& body, std::string_view field, bool fallback) {
  return field_value<bool>(body, field, fallback, "true or false");
}

int64_t integer(const Json& body, std::string_view field, int64_t fallback, int64_t min, int64_t max) {
  const double value =
      number(body, field, static_cast<double>(fallback), static_cast<double>(min), static_cast<double>(max));
  if (value != static_cast<double>(static_cast<int64_t>(value)))
    throw ApiError(400, concat(field, ": expected an integer, found ", value), "invalid_value");
  return static_cast<int64_t>(value);
}

double number(const Json& body, std::string_view field, double fallback, double min, double max) {
  const auto value = field_value<double>(body, field, fallback, "a number");
  if (value == fallback) return value;
  if (!(value >= min && value <= max))
    throw ApiError(400, concat(field, ": expected a number from ", min, " to ", max, ", found ", value),
                   "invalid_value");
  return value;
}

std::string content_text(const Json& content, std::string_view field) {
  if (content.is_null()) return "";
  if (content.is_string()) return content.text();
  if (!content.is_array())
    throw ApiError(400, concat(field, ": expected a string or a list of parts"), "invalid_value");
  std::string text;
  for (const Json& part : content.items()) {
    const Json* type = part.find("type");
    const Json* own = part.find("text");
    if (!type || !type->is_string() || !type->text().ends_with("text") || !own || !own->is_string())
      throw ApiError(400, concat(field, ": this server accepts parts of type text only"), "unsupported_content");
    text += own->text();
  }
  return text;
}

std::vector<Json> list_of(const Json& body, std::string_view field) {
  const Json* found = body.find(field);
  if (!found || found->is_null()) return {};
  if (!found->is_array()) throw ApiError(400, concat(field, ": expected a list"), "invalid_value");
  return found->items();
}

std::vector<Json> objects_of(const Json& body, std::string_view field) {
  std::vector<Json> items = list_of(body, field);
  if (!std::ranges::all_of(items, &Json::is_object))
    throw ApiError(400, concat(field, ": expected a list of objects"), "invalid_value");
  return items;
}

Json tool_of(const std::string& name, const Json* description, const Json* parameters) {
  const bool known = !name.empty() && name.size() <= 128 && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-' || c == '.' || c == ':';
  });
  if (!known)
    throw ApiError(400, concat("tools: expected a name of up to 128 letters, digits, _ and -, found ", quote(name)),
                   "invalid_value");
  Json function = {{"name", name}};
  if (description && description->is_string()) function["description"] = *description;
  if (parameters && !parameters->is_null() && !parameters->is_object())
    throw ApiError(400, concat("tools: ", name, ": expected a JSON schema of the arguments"), "invalid_value");
  function["parameters"] = parameters && parameters->is_object() && !parameters->empty()
                               ? *parameters
                               : Json{{"type", "object"}, {"properties", Json::object()}};
  return {{"type", "function"}, {"function", std::move(function)}};
}

ChatMessage call_message(const std::string& id, const std::string& name, const std::string& arguments) {
  Json parsed = arguments.empty() ? Json::object() : Json::parse_or_null(arguments);
  if (!parsed.is_object())
    throw ApiError(400, concat("arguments of the call of ", quote(name), ": expected the JSON of an object"),
                   "invalid_value");
  ChatMessage message{"assistant", ""};
  message.fields["tool_calls"] = Json::array(
      {{{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", std::move(parsed)}}}}});
  return message;
}

void require_tool(ToolUse& use, const std::string& name) {
  use.choice = ToolUse::Choice::kRequired;
  use.name = name;
  const bool known =
      use.tools.is_array() && (name.empty() || std::ranges::any_of(use.tools.items(), [&](const Json& tool) {
                                 return tool.at("function").at("name").text() == name;
                               }));
  if (!known)
    throw ApiError(400,
                   concat("tool_choice: ", name.empty() ? std::string("there are no tools")
                                                        : concat("there is no tool ", quote(name))),
                   "invalid_value");
}

namespace {

void read_tool_choice(const Json& body, ToolUse& use) {
  const Json* choice = body.find("tool_choice");
  if (!choice || choice->is_null()) return;
  if (choice->is_object()) {
    const Json* function = choice->find("function");
    return require_tool(use, required_text(function ? *function : *choice, "name"));
  }
  const std::string kind = required_text(body, "tool_choice");
  if (kind == "none") {
    use.choice = ToolUse::Choice::kNone;
  } else if (kind == "required") {
    require_tool(use, "");
  } else if (kind != "auto") {
    throw ApiError(400, concat("tool_choice: expected none, auto, required or a function, found ", quote(kind)),
                   "invalid_value");
  }
}

}  // namespace

void read_tools(const Json& body, ToolUse& use) {
  for (const Json& tool : objects_of(body, "tools")) {
    const Json* function = tool.find("function");
    if (tool.find("type") && required_text(tool, "type") != "function")
      throw ApiError(400, "tools: this server accepts tools of type function only", "unsupported_field");
    const Json& own = function ? *function : tool;  // in chat completions; in responses
    Json made = tool_of(required_text(own, "name"), own.find("description"), own.find("parameters"));
    if (flag(own, "strict", false)) made["function"]["strict"] = true;
    use.tools.push_back(std::move(made));
  }
  read_tool_choice(body, use);
}

void add_messages(const Json& list, Messages& messages) {
  for (const Json& message : list.items()) {
    const Json* content = message.find("content");
    ChatMessage added{required_text(message, "role"), content ? content_text(*content, "content") : ""};
    if (added.role == "developer") added.role = "system";
    for (const Json& call : objects_of(message, "tool_calls")) {
      const Json* function = call.find("function");
      if (!function) throw ApiError(400, "tool_calls: expected a function in each call", "missing_field");
      const std::string id = field_value<std::string>(call, "id", "", "a string");
      ChatMessage one = call_message(id, required_text(*function, "name"), required_text(*function, "arguments"));
      Json& calls = added.fields["tool_calls"];
      calls.push_back(one.fields.at("tool_calls").at(0));
    }
    for (const char* field : {"tool_call_id", "name", "reasoning_content"})
      if (const Json* value = message.find(field); value && value->is_string()) added.fields[field] = *value;
    messages.push_back(std::move(added));
  }
}

const Json& required_messages(const Json& body) {
  const Json* messages = body.find("messages");
  if (!messages || !messages->is_array() || messages->empty())
    throw ApiError(400, "messages: expected a list of at least one message", "missing_field");
  return *messages;
}

std::vector<std::string> text_list(const Json& body, std::string_view field) {
  const Json* found = body.find(field);
  if (!found || found->is_null()) return {};
  if (found->is_string()) return {found->text()};
  return field_value<std::vector<std::string>>(body, field, {}, "a string or a list of strings");
}

void read_options(const Json& body, TextRequest& request) {
  if (const Json* bias = body.find("logit_bias"); bias && !bias->is_null()) {
    if (!bias->is_object())
      throw ApiError(400, "logit_bias: expected an object of token ids and numbers", "invalid_value");
    std::string tokens;
    for (const auto& [token, amount] : bias->fields())
      tokens += concat(tokens.empty() ? "" : "+", token, "@", number(*bias, token, 0, -100, 100));
    if (!tokens.empty()) request.steps.push_back(concat("bias:tokens=", tokens));
  }
  const auto add = [&](std::string_view field, const char* step, double unset, double min, double max) {
    const double value = number(body, field, unset, min, max);
    if (value != unset) request.steps.push_back(concat(step, value));
  };
  add("repetition_penalty", "repetition:penalty=", 1, 0.01, 10);
  add("presence_penalty", "presence:penalty=", 0, -2, 2);
  add("frequency_penalty", "frequency:penalty=", 0, -2, 2);
  const double temperature = number(body, "temperature", 1, 0, 100);
  if (temperature > 0) {
    add("top_k", "top-k:k=", 0, 1, 1e9);
    add("top_p", "top-p:p=", 1, 1e-6, 1);
    add("min_p", "min-p:p=", 0, 0, 1);
    request.steps.push_back(concat("temperature:t=", temperature));
  } else {
    request.steps.emplace_back("greedy");
  }
  const auto seed = field_value<int64_t>(body, "seed", -1, "an integer");
  request.seed = seed >= 0 ? static_cast<uint64_t>(seed) : random_seed();
  request.ignore_eos = flag(body, "ignore_eos", false);
  request.context = field_value<std::string>(body, "context", "", "the name of a context");
  if (!request.context.empty()) ContextStore::check_name(request.context);
  if (const Json* inputs = body.find("chat_template_kwargs"); inputs && !inputs->is_null())
    request.reasoning = flag(*inputs, "enable_thinking", true);
  if (field_value<std::string>(body, "reasoning_effort", "", "a string") == "none") request.reasoning = false;
  const Json* own = body.find("fathom");
  if (!own || own->is_null()) return;
  request.attend = field_value<std::string>(*own, "attend", "", "the spec of a method");
  request.drafts = text_list(*own, "draft");
  request.priority = integer(*own, "priority", 0, -100, 100);
  request.report_progress = flag(*own, "progress", false);
  request.attention = flag(*own, "attention", false);
}

Json openai_error(int status, const std::string& message, const std::string& code) {
  const char* type = status == 401   ? "authentication_error"
                     : status == 429 ? "rate_limit_error"
                     : status >= 500 ? "server_error"
                                     : "invalid_request_error";
  return {
      {"error",
       {{"message", message}, {"type", type}, {"param", nullptr}, {"code", code.empty() ? Json() : Json(code)}}}};
}

Json anthropic_error(int status, const std::string& message) {
  const char* type = status == 401   ? "authentication_error"
                     : status == 404 ? "not_found_error"
                     : status == 413 ? "request_too_large"
                     : status == 429 ? "rate_limit_error"
                     : status == 503 ? "overloaded_error"
                     : status >= 500 ? "api_error"
                                     : "invalid_request_error";
  return {{"type", "error"}, {"error", {{"type", type}, {"message", message}}}};
}

std::string new_id(std::string_view prefix) {
  static std::atomic<uint64_t> count{random_seed()};
  return concat(prefix, format_hex(count.fetch_add(0x9e3779b97f4a7c15u)));
}

int64_t now_seconds() { return static_cast<int64_t>(std::time(nullptr)); }

}  // namespace fathom::serve
