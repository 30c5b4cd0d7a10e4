// The API of Anthropic: messages.
#include "base/error.h"
#include "base/format.h"
#include "serve/api.h"
#include "serve/api_error.h"

namespace fathom::serve {
namespace {

TextRequest read_request(const Json& body, const std::string& client) {
  TextRequest request;
  request.client = client;
  read_options(body, request);
  if (const Json* tools = body.find("tools"); tools && !tools->is_null() && !tools->empty())
    throw ApiError(400, "tools: this server does not support this field", "unsupported_field");
  if (const Json* system = body.find("system"))
    if (std::string text = content_text(*system, "system"); !text.empty())
      request.messages.push_back({"system", std::move(text)});
  add_messages(required_messages(body), request.messages);
  request.stop = text_list(body, "stop_sequences");
  return request;
}

const char* stop_reason(const Generated& text) {
  switch (text.stop) {
    case StopReason::kLength:
      return "max_tokens";
    case StopReason::kString:
      return "stop_sequence";
    default:
      return "end_turn";
  }
}

Json usage_of_message(const PromptProgress& prompt, int64_t output) {
  return {{"input_tokens", prompt.total - prompt.cached},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", prompt.cached},
          {"output_tokens", output}};
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
void set_end(Json& fields, const TextRequest& request, const Generated& text) {
  fields["stop_reason"] = stop_reason(text);
  fields["stop_sequence"] =
      text.stop == StopReason::kString && request.stop.size() == 1 ? Json(request.stop[0]) : Json();
}

void stream_message(Service& service, const TextRequest& request, Job& job, const Connection& client) {
  const auto send = [&](const char* type, Json event) {
    event["type"] = type;
    return client.write(concat("event: ", type, "\ndata: ", event.dump(), "\n\n"));
  };
  Json message = message_of(service, new_id("msg_"));
  message["usage"] = usage_of_message({.total = std::ssize(job.request.prompt)}, 0);
  send("message_start", {{"message", message}});
  send("content_block_start", {{"index", 0}, {"content_block", {{"type", "text"}, {"text", ""}}}});
  try {
    const auto result = service.scheduler().wait(
        job,
        {[&](const PromptProgress&) { return send("ping", Json::object()); },
         [&](const std::string& text) {
           return send("content_block_delta", {{"index", 0}, {"delta", {{"type", "text_delta"}, {"text", text}}}});
         },
         client.alive});
    send("content_block_stop", {{"index", 0}});
    Json delta = Json::object();
    set_end(delta, request, result->generated);
    send("message_delta",
         {{"delta", delta}, {"usage", usage_of_message(result->prompt, std::ssize(result->generated.tokens))}});
    send("message_stop", Json::object());
  } catch (...) {
    const ApiError error = public_error(std::current_exception());
    send("error", anthropic_error(error.status(), error.what()));
  }
}

}  // namespace

ApiResponse anthropic_message(Service& service, const std::string& client, const Json& body) {
  TextRequest request = read_request(body, client);
  if (!body.contains("max_tokens")) throw ApiError(400, "max_tokens: this field is required", "missing_field");
  request.max_tokens = integer(body, "max_tokens", -1, 1, int64_t{1} << 40);
  const std::shared_ptr<Job> job = service.begin(request);
  if (flag(body, "stream", false))
    return {{}, [&service, request = std::move(request), job](const Connection& connection) {
              stream_message(service, request, *job, connection);
            }};
  const auto result = service.scheduler().wait(*job);
  Json message = message_of(service, new_id("msg_"));
  message["content"].push_back({{"type", "text"}, {"text", result->generated.text}});
  set_end(message, request, result->generated);
  message["usage"] = usage_of_message(result->prompt, std::ssize(result->generated.tokens));
  return {std::move(message), {}};
}

ApiResponse anthropic_count(Service& service, const std::string& client, const Json& body) {
  const TextRequest request = read_request(body, client);
  return {{{"input_tokens", service.prompt_of(request).size()}}, {}};
}

}  // namespace fathom::serve
