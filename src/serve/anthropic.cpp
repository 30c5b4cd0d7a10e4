// The API of Anthropic: messages.
#include "base/error.h"
#include "base/format.h"
#include "serve/answer.h"
#include "serve/api.h"
#include "serve/api_error.h"

namespace fathom::serve {
namespace {

/// A parsed request for a message.
struct AnthropicCall {
  TextRequest request;
  bool shows_reasoning = false;
};

/// Appends a message whose content is a list of blocks. Results of tools become messages of their own.
void add_blocks(const std::string& role, const Json& blocks, Messages& messages) {
  ChatMessage message{role, ""};
  for (const Json& block : blocks.items()) {
    const std::string type = required_text(block, "type");
    if (type == "tool_use") {
      const Json* input = block.find("input");
      const ChatMessage call =
          call_message(required_text(block, "id"), required_text(block, "name"), input ? input->dump() : "");
      message.fields["tool_calls"].push_back(call.fields.at("tool_calls").at(0));
    } else if (type == "tool_result") {
      const Json* content = block.find("content");
      ChatMessage& result = messages.emplace_back("tool", content ? content_text(*content, "content") : "");
      result.fields["tool_call_id"] = required_text(block, "tool_use_id");
    } else if (type == "thinking") {
      message.fields["reasoning_content"] = required_text(block, "thinking");
    } else if (type != "redacted_thinking") {
      message.content += content_text(Json::array({block}), "content");
    }
  }
  if (!message.content.empty() || !message.fields.empty()) messages.push_back(std::move(message));
}

void read_tool_use(const Json& body, ToolUse& use) {
  for (const Json& tool : objects_of(body, "tools")) {
    const Json* type = tool.find("type");
    if (type && !type->is_null() && *type != Json("custom"))
      throw ApiError(400, "tools: this server accepts tools of type custom only", "unsupported_field");
    use.tools.push_back(tool_of(required_text(tool, "name"), tool.find("description"), tool.find("input_schema")));
  }
  const Json* choice = body.find("tool_choice");
  if (!choice || choice->is_null()) return;
  const std::string kind = required_text(*choice, "type");
  if (kind == "any") {
    require_tool(use, "");
  } else if (kind == "tool") {
    require_tool(use, required_text(*choice, "name"));
  } else if (kind == "none") {
    use.choice = ToolUse::Choice::kNone;
  } else if (kind != "auto") {
    throw ApiError(400, concat("tool_choice: expected auto, any, tool or none, found ", quote(kind)),
                   "invalid_value");
  }
}

AnthropicCall read_anthropic(const Json& body, const std::string& client) {
  AnthropicCall call;
  TextRequest& request = call.request;
  request.client = client;
  read_options(body, request);
  read_tool_use(body, request.tools);
  if (const Json* thinking = body.find("thinking"); thinking && !thinking->is_null())
    call.shows_reasoning = required_text(*thinking, "type") != "disabled";
  request.reasoning = call.shows_reasoning;
  if (const Json* system = body.find("system"))
    if (std::string text = content_text(*system, "system"); !text.empty())
      request.messages.push_back({"system", std::move(text)});
  for (const Json& message : required_messages(body).items()) {
    const Json* content = message.find("content");
    const std::string role = required_text(message, "role");
    if (content && content->is_array()) {
      add_blocks(role, *content, request.messages);
    } else {
      request.messages.push_back({role, content ? content_text(*content, "content") : ""});
    }
  }
  request.stop = text_list(body, "stop_sequences");
  return call;
}

const char* stop_reason(const DividedAnswer& answer) {
  switch (answer.result->generated.stop) {
    case StopReason::kLength:
      return "max_tokens";
    case StopReason::kString:
      return "stop_sequence";
    default:
      return answer.calls.empty() ? "end_turn" : "tool_use";
  }
}

Json usage_of_message(const PromptProgress& prompt, int64_t output) {
  return {{"input_tokens", prompt.total - prompt.cached},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", prompt.cached},
          {"output_tokens", output}};
}

Json usage_of_answer(const DividedAnswer& answer) {
  return usage_of_message(answer.result->prompt, std::ssize(answer.result->generated.tokens));
}

Json message_of(const Service& service, const std::string& id) {
  return {{"id", id},
          {"type", "message"},
          {"role", "assistant"},
          {"model", service.options().name},
          {"content", Json::array()},
          {"stop_reason", nullptr},
          {"stop_sequence", nullptr}};
}

/// Sets the fields about the end of a message. The stop sequence is known if only one was given.
void set_end(Json& fields, const TextRequest& request, const DividedAnswer& answer) {
  fields["stop_reason"] = stop_reason(answer);
  fields["stop_sequence"] = answer.result->generated.stop == StopReason::kString && request.stop.size() == 1
                                ? Json(request.stop[0])
                                : Json();
}

/// Writes the events of a message: blocks of content one after the other.
class AnthropicStream {
 public:
  AnthropicStream(Service& service, const AnthropicCall& call, const Connection& client)
      : service_(service), call_(call), client_(client) {}

  void run(Job& job) {
    Json message = message_of(service_, new_id("msg_"));
    message["usage"] = usage_of_message({.total = std::ssize(job.request.prompt)}, 0);
    send("message_start", {{"message", message}});
    try {
      const DividedAnswer answer = read_answer(service_, job, call_.request, events());
      if (blocks_ == 0) open("text", {{"type", "text"}, {"text", ""}});
      close();
      Json delta = Json::object();
      set_end(delta, call_.request, answer);
      send("message_delta", {{"delta", delta}, {"usage", usage_of_answer(answer)}});
      send("message_stop", Json::object());
    } catch (...) {
      const ApiError error = public_error(std::current_exception());
      send("error", anthropic_error(error.status(), error.what()));
    }
  }

 private:
  bool send(const char* type, Json event) const {
    Json whole = {{"type", type}};
    whole.update(event);
    return client_.write(concat("event: ", type, "\ndata: ", whole.dump(), "\n\n"));
  }
  /// Begins a block unless the open one has this kind.
  void open(const std::string& kind, const Json& block) {
    if (kind == kind_) return;
    close();
    kind_ = kind;
    send("content_block_start", {{"index", blocks_++}, {"content_block", block}});
  }
  void close() {
    if (!kind_.empty()) send("content_block_stop", {{"index", blocks_ - 1}});
    kind_.clear();
  }
  bool send_delta(const Json& delta) const {
    return send("content_block_delta", {{"index", blocks_ - 1}, {"delta", delta}});
  }
  AnswerEvents events() {
    AnswerEvents events;
    events.on_progress = [this](const PromptProgress&) { return send("ping", Json::object()); };
    events.on_text = [this](std::string_view text) {
      open("text", {{"type", "text"}, {"text", ""}});
      return send_delta({{"type", "text_delta"}, {"text", text}});
    };
    if (call_.shows_reasoning)
      events.on_reasoning = [this](std::string_view text) {
        open("thinking", {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
        return send_delta({{"type", "thinking_delta"}, {"thinking", text}});
      };
    events.on_call = [this](const ToolCall& call, size_t) {
      open(call.id, {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", Json::object()}});
      return true;
    };
    events.on_arguments = [this](std::string_view part, size_t) {
      return send_delta({{"type", "input_json_delta"}, {"partial_json", part}});
    };
    events.alive = client_.alive;
    return events;
  }

  Service& service_;
  const AnthropicCall& call_;
  const Connection& client_;
  std::string kind_;  // of the open block; empty: none
  int64_t blocks_ = 0;
};

Json content_of(const DividedAnswer& answer, bool shows_reasoning) {
  Json content = Json::array();
  if (shows_reasoning && !answer.reasoning.empty())
    content.push_back({{"type", "thinking"}, {"thinking", answer.reasoning}, {"signature", ""}});
  if (!answer.text.empty() || answer.calls.empty()) content.push_back({{"type", "text"}, {"text", answer.text}});
  for (const ToolCall& call : answer.calls) {
    Json input = Json::parse_or_null(call.arguments);
    if (!input.is_object()) input = Json::object();  // of an answer that was too long
    content.push_back({{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", std::move(input)}});
  }
  return content;
}

}  // namespace

ApiResponse anthropic_message(Service& service, const Caller& caller, const Json& body) {
  AnthropicCall call = read_anthropic(body, caller.client);
  if (!body.contains("max_tokens")) throw ApiError(400, "max_tokens: this field is required", "missing_field");
  call.request.max_tokens = integer(body, "max_tokens", -1, 1, int64_t{1} << 40);
  const std::shared_ptr<Job> job = service.begin(call.request);
  if (flag(body, "stream", false))
    return {{}, [&service, call = std::move(call), job](const Connection& connection) {
              AnthropicStream(service, call, connection).run(*job);
            }};
  const DividedAnswer answer = read_answer(service, *job, call.request, {.alive = caller.alive});
  Json message = message_of(service, new_id("msg_"));
  message["content"] = content_of(answer, call.shows_reasoning);
  set_end(message, call.request, answer);
  message["usage"] = usage_of_answer(answer);
  return {std::move(message), {}};
}

ApiResponse anthropic_count(Service& service, const Caller& caller, const Json& body) {
  const AnthropicCall call = read_anthropic(body, caller.client);
  return {{{"input_tokens", service.prompt_of(call.request).size()}}, {}};
}

}  // namespace fathom::serve
