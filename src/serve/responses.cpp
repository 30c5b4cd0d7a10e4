// The API of OpenAI: responses.
#include <optional>

#include "base/error.h"
#include "base/format.h"
#include "serve/answer.h"
#include "serve/api.h"
#include "serve/api_error.h"
#include "serve/conversations.h"

namespace fathom::serve {
namespace {

/// A parsed request for a response.
struct ResponseCall {
  TextRequest request;
  Messages conversation;  // without the instructions
  std::string id;
  bool stream = false, store = true;
  Json echo = Json::object();  // fields of the request that the response repeats
};

/// Appends an item of the input: a message, a call of a tool, its result, or reasoning, which is left out.
void add_item(const Json& item, Messages& messages) {
  const Json* given = item.find("type");
  const std::string type = given && given->is_string() ? given->text() : "message";
  if (type == "message") {
    add_messages(Json::array({item}), messages);
  } else if (type == "function_call") {
    ChatMessage call =
        call_message(required_text(item, "call_id"), required_text(item, "name"), required_text(item, "arguments"));
    const bool joins = !messages.empty() && messages.back().role == "assistant";
    if (joins) {
      messages.back().fields["tool_calls"].push_back(call.fields.at("tool_calls").at(0));
    } else {
      messages.push_back(std::move(call));
    }
  } else if (type == "function_call_output") {
    const Json* output = item.find("output");
    ChatMessage& result = messages.emplace_back("tool", output ? content_text(*output, "output") : "");
    result.fields["tool_call_id"] = required_text(item, "call_id");
  } else if (type != "reasoning") {
    throw ApiError(400, concat("input: this server does not accept items of type ", quote(type)),
                   "unsupported_content");
  }
}

void read_text_format(const Json& body, JsonForm& form) {
  const Json* text = body.find("text");
  const Json* format = text ? text->find("format") : nullptr;
  if (!format || format->is_null()) return;
  const std::string type = required_text(*format, "type");
  if (type == "json_object") {
    form.kind = JsonForm::Kind::kAny;
  } else if (type == "json_schema") {
    const Json* schema = format->find("schema");
    if (!schema || !schema->is_object()) throw ApiError(400, "text.format: expected a schema", "missing_field");
    form = {JsonForm::Kind::kSchema, *schema};
  } else if (type != "text") {
    throw ApiError(400, concat("text.format: expected text, json_object or json_schema, found ", quote(type)),
                   "invalid_value");
  }
}

ResponseCall read_call(Service& service, const Json& body, const std::string& client) {
  ResponseCall call;
  TextRequest& request = call.request;
  call.id = new_id("resp_");
  request.client = client;
  read_options(body, request);
  read_tools(body, request.tools);
  read_text_format(body, request.form);
  if (const Json* reasoning = body.find("reasoning"))
    if (const Json* effort = reasoning->find("effort")) request.reasoning = *effort != Json("none");
  if (flag(body, "background", false))
    throw ApiError(400, "background: this server does not support this field", "unsupported_field");
  if (const Json* previous = body.find("previous_response_id"); previous && !previous->is_null()) {
    const std::string id = required_text(body, "previous_response_id");
    auto stored = service.conversations().find(client, id);
    if (!stored) throw ApiError(404, concat("there is no response ", quote(id)), "response_not_found");
    call.conversation = std::move(stored->messages);
  }
  const Json* input = body.find("input");
  if (!input) throw ApiError(400, "input: expected a text or a list of items", "missing_field");
  if (input->is_string()) {
    call.conversation.push_back({"user", input->text()});
  } else {
    for (const Json& item : objects_of(body, "input")) add_item(item, call.conversation);
  }
  if (call.conversation.empty()) throw ApiError(400, "input: expected at least one item", "missing_field");
  if (const Json* instructions = body.find("instructions"); instructions && !instructions->is_null())
    request.messages.push_back({"system", required_text(body, "instructions")});
  request.messages.insert(request.messages.end(), call.conversation.begin(), call.conversation.end());
  request.max_tokens = integer(body, "max_output_tokens", -1, 1, int64_t{1} << 40);
  call.stream = flag(body, "stream", false);
  call.store = flag(body, "store", true);
  for (const char* field : {"instructions", "max_output_tokens", "previous_response_id", "temperature", "top_p",
                            "tool_choice", "tools", "text", "metadata", "reasoning"})
    if (const Json* value = body.find(field)) call.echo[field] = *value;
  return call;
}

Json part_of(std::string_view text) {
  return {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}, {"logprobs", Json::array()}};
}

Json message_item(const std::string& id, const char* status, const Json& content) {
  return {{"id", id}, {"type", "message"}, {"status", status}, {"role", "assistant"}, {"content", content}};
}

Json reasoning_item(const std::string& id, const std::string& text) {
  Json content = Json::array();
  if (!text.empty()) content.push_back({{"type", "reasoning_text"}, {"text", text}});
  return {{"id", id}, {"type", "reasoning"}, {"summary", Json::array()}, {"content", content}};
}

Json call_item(const std::string& id, const ToolCall& call, const char* status) {
  return {{"id", id},           {"type", "function_call"}, {"status", status},
          {"call_id", call.id}, {"name", call.name},       {"arguments", call.arguments}};
}

/// Returns the body of a response. status: "in_progress", "completed", "incomplete" or "failed".
Json response_body(const Service& service, const ResponseCall& call, const char* status, const Json& output) {
  Json body = {{"id", call.id},
               {"object", "response"},
               {"created_at", now_seconds()},
               {"status", status},
               {"error", nullptr},
               {"incomplete_details", nullptr},
               {"instructions", nullptr},
               {"max_output_tokens", nullptr},
               {"model", service.options().name},
               {"output", output},
               {"parallel_tool_calls", true},
               {"previous_response_id", nullptr},
               {"store", call.store},
               {"temperature", 1.0},
               {"text", {{"format", {{"type", "text"}}}}},
               {"tool_choice", "auto"},
               {"tools", Json::array()},
               {"top_p", 1.0},
               {"truncation", "disabled"},
               {"usage", nullptr},
               {"metadata", Json::object()}};
  body.update(call.echo);
  return body;
}

/// Returns the complete body, and keeps the conversation if the request says so.
Json finish_response(Service& service, const ResponseCall& call, const DividedAnswer& answer, const Json& output) {
  const bool length = answer.result->generated.stop == StopReason::kLength;
  Json body = response_body(service, call, length ? "incomplete" : "completed", output);
  if (length) body["incomplete_details"] = {{"reason", "max_output_tokens"}};
  const PromptProgress& prompt = answer.result->prompt;
  const auto generated = std::ssize(answer.result->generated.tokens);
  body["usage"] = {{"input_tokens", prompt.total},
                   {"input_tokens_details", {{"cached_tokens", prompt.cached}}},
                   {"output_tokens", generated},
                   {"output_tokens_details", {{"reasoning_tokens", 0}}},
                   {"total_tokens", prompt.total + generated}};
  if (!call.store) return body;
  StoredResponse stored{call.conversation, body};
  ChatMessage message{"assistant", answer.text};
  for (const ToolCall& made : answer.calls) {
    Json arguments = Json::parse_or_null(made.arguments);
    if (!arguments.is_object()) arguments = Json::object();  // of an answer that was too long
    message.fields["tool_calls"].push_back(
        {{"id", made.id}, {"type", "function"}, {"function", {{"name", made.name}, {"arguments", arguments}}}});
  }
  stored.messages.push_back(std::move(message));
  service.conversations().put(call.request.client, call.id, std::move(stored));
  return body;
}

/// Collects the items of a response, and writes its events if there is a connection.
class ResponseWriter {
 public:
  ResponseWriter(Service& service, const ResponseCall& call, const Connection* client)
      : service_(service), call_(call), client_(client) {}

  /// Waits for the end of the answer and returns the body. Throws ApiError.
  Json run(Job& job, const std::function<bool()>& alive) {
    const Json begun = response_body(service_, call_, "in_progress", Json::array());
    send("response.created", {{"response", begun}});
    send("response.in_progress", {{"response", begun}});
    const DividedAnswer answer = read_answer(service_, job, call_.request, events(alive));
    if (output_.empty() && kind_.empty()) open_message();
    close();
    const Json body = finish_response(service_, call_, answer, output_);
    send(body.at("status") == Json("completed") ? "response.completed" : "response.incomplete",
         {{"response", body}});
    return body;
  }
  void fail(const ApiError& error) {
    Json body = response_body(service_, call_, "failed", output_);
    body["error"] = {{"code", "server_error"}, {"message", error.what()}};
    send("response.failed", {{"response", body}});
  }

 private:
  bool send(const char* type, const Json& fields) {
    if (!client_) return true;
    Json event = {{"type", type}, {"sequence_number", sequence_++}};
    event.update(fields);
    return client_->write(concat("event: ", type, "\ndata: ", event.dump(), "\n\n"));
  }
  int64_t index() const { return std::ssize(output_); }
  /// Adds the fields of an event about the open item.
  bool send_item(const char* type, Json fields) {
    Json event = {{"item_id", id_}, {"output_index", index()}};
    event.update(fields);
    return send(type, event);
  }
  void open(const std::string& kind, const char* prefix, const std::function<Json()>& item) {
    if (kind == kind_) return;
    close();
    kind_ = kind;
    id_ = new_id(prefix);
    text_.clear();
    send("response.output_item.added", {{"output_index", index()}, {"item", item()}});
  }
  void open_message() {
    if (kind_ == "message") return;
    open("message", "msg_", [&] { return message_item(id_, "in_progress", Json::array()); });
    send_item("response.content_part.added", {{"content_index", 0}, {"part", part_of("")}});
  }
  void close() {
    if (kind_.empty()) return;
    Json item;
    if (kind_ == "message") {
      send_item("response.output_text.done", {{"content_index", 0}, {"text", text_}, {"logprobs", Json::array()}});
      send_item("response.content_part.done", {{"content_index", 0}, {"part", part_of(text_)}});
      item = message_item(id_, "completed", Json::array({part_of(text_)}));
    } else if (kind_ == "reasoning") {
      send_item("response.reasoning_text.done", {{"content_index", 0}, {"text", text_}});
      item = reasoning_item(id_, text_);
    } else {
      tool_.arguments = text_;
      send_item("response.function_call_arguments.done", {{"name", tool_.name}, {"arguments", text_}});
      item = call_item(id_, tool_, "completed");
    }
    send("response.output_item.done", {{"output_index", index()}, {"item", item}});
    output_.push_back(std::move(item));
    kind_.clear();
  }
  AnswerEvents events(const std::function<bool()>& alive) {
    AnswerEvents events;
    events.on_text = [this](std::string_view text) {
      open_message();
      text_ += text;
      return send_item("response.output_text.delta",
                       {{"content_index", 0}, {"delta", text}, {"logprobs", Json::array()}});
    };
    events.on_reasoning = [this](std::string_view text) {
      open("reasoning", "rs_", [&] { return reasoning_item(id_, ""); });
      text_ += text;
      return send_item("response.reasoning_text.delta", {{"content_index", 0}, {"delta", text}});
    };
    events.on_call = [this](const ToolCall& call, size_t) {
      tool_ = call;
      open(call.id, "fc_", [&] { return call_item(id_, call, "in_progress"); });
      return true;
    };
    events.on_arguments = [this](std::string_view part, size_t) {
      text_ += part;
      return send_item("response.function_call_arguments.delta", {{"delta", part}});
    };
    events.alive = alive;
    return events;
  }

  Service& service_;
  const ResponseCall& call_;
  const Connection* client_;
  Json output_ = Json::array();
  std::string kind_;  // of the open item; empty: none
  std::string id_, text_;
  ToolCall tool_;
  int64_t sequence_ = 0;
};

}  // namespace

ApiResponse openai_response(Service& service, const Caller& caller, const Json& body) {
  ResponseCall call = read_call(service, body, caller.client);
  const std::shared_ptr<Job> job = service.begin(call.request);
  if (!call.stream) return {ResponseWriter(service, call, nullptr).run(*job, caller.alive), {}};
  return {{}, [&service, call = std::move(call), job](const Connection& client) {
            ResponseWriter writer(service, call, &client);
            try {
              writer.run(*job, client.alive);
            } catch (...) {
              writer.fail(public_error(std::current_exception()));
            }
          }};
}

}  // namespace fathom::serve
