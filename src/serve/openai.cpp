// The API of OpenAI: chat completions and completions.
#include "base/error.h"
#include "base/format.h"
#include "serve/api.h"
#include "serve/api_error.h"

namespace fathom::serve {
namespace {

constexpr int64_t kMostChoices = 16;

/// A parsed request for one or several texts.
struct OpenaiCall {
  TextRequest request;
  std::string id;
  bool chat = false, stream = false, usage_event = false;
  int64_t choices = 1;
  std::string echo;  // text before the completion
};

/// Throws ApiError for fields that change the result and are not supported.
void refuse_unsupported(const Json& body, std::initializer_list<std::string_view> fields) {
  for (const std::string_view field : fields) {
    const Json* found = body.find(field);
    if (!found || found->is_null() || *found == Json(false) || (found->is_array() && found->empty()) ||
        (found->is_object() && found->empty()))
      continue;
    throw ApiError(400, concat(field, ": this server does not support this field"), "unsupported_field");
  }
}

void read_response_format(const Json& body) {
  const Json* format = body.find("response_format");
  if (!format || format->is_null()) return;
  const std::string type = required_text(*format, "type");
  if (type != "text")
    throw ApiError(400, concat("response_format: expected the type text, found ", quote(type)),
                   "unsupported_field");
}

OpenaiCall read_call(const Json& body, const std::string& client, bool chat) {
  OpenaiCall call;
  call.chat = chat;
  call.id = new_id(chat ? "chatcmpl-" : "cmpl-");
  call.request.client = client;
  read_options(body, call.request);
  read_response_format(body);
  refuse_unsupported(body, {"tools", "functions", "logit_bias", "logprobs", "top_logprobs", "best_of", "suffix",
                            "modalities", "audio"});
  call.stream = flag(body, "stream", false);
  if (const Json* options = body.find("stream_options")) call.usage_event = flag(*options, "include_usage", false);
  call.choices = integer(body, "n", 1, 1, kMostChoices);
  call.request.stop = text_list(body, "stop");
  constexpr int64_t kMost = int64_t{1} << 40;
  call.request.max_tokens = integer(body, "max_tokens", chat ? -1 : 16, 0, kMost);
  call.request.max_tokens = integer(body, "max_completion_tokens", call.request.max_tokens, 0, kMost);
  return call;
}

Json usage_of(const std::vector<std::shared_ptr<const JobResult>>& results) {
  int64_t completion = 0;
  for (const auto& result : results) completion += std::ssize(result->generated.tokens);
  const PromptProgress& prompt = results[0]->prompt;
  return {{"prompt_tokens", prompt.total},
          {"completion_tokens", completion},
          {"total_tokens", prompt.total + completion},
          {"prompt_tokens_details", {{"cached_tokens", prompt.cached}}}};
}

Json timings_of(const JobResult& result) {
  const Generated& text = result.generated;
  const double seconds = text.seconds;
  return {{"prompt_n", result.prompt.processed},
          {"prompt_ms", 1000 * result.prompt.seconds},
          {"wait_ms", 1000 * result.wait_seconds},
          {"first_token_ms", 1000 * result.first_seconds},
          {"predicted_n", text.tokens.size()},
          {"predicted_ms", 1000 * seconds},
          {"predicted_per_second", seconds > 0 ? static_cast<double>(text.tokens.size()) / seconds : 0.0},
          {"draft_n", text.drafts.proposed()},
          {"draft_n_accepted", text.drafts.accepted()}};
}

const char* finish_reason(const Generated& text) { return text.stop == StopReason::kLength ? "length" : "stop"; }

Json head_of(const Service& service, const OpenaiCall& call, bool chunk) {
  return {{"id", call.id},
          {"object", !call.chat ? "text_completion"
                     : chunk    ? "chat.completion.chunk"
                                : "chat.completion"},
          {"created", now_seconds()},
          {"model", service.options().name}};
}

/// Begins the texts of a call. Each choice has its own seed.
std::vector<std::shared_ptr<Job>> begin_all(Service& service, const OpenaiCall& call) {
  std::vector<std::shared_ptr<Job>> jobs;
  try {
    for (int64_t i = 0; i < call.choices; ++i) {
      TextRequest request = call.request;
      request.seed += static_cast<uint64_t>(i);
      jobs.push_back(service.begin(request));
    }
  } catch (...) {
    for (const auto& job : jobs) service.scheduler().cancel(*job);
    throw;
  }
  return jobs;
}

Json complete(Service& service, const OpenaiCall& call, const std::vector<std::shared_ptr<Job>>& jobs) {
  std::vector<std::shared_ptr<const JobResult>> results;
  Json choices = Json::array();
  for (const auto& job : jobs) {
    results.push_back(service.scheduler().wait(*job));
    const Generated& text = results.back()->generated;
    Json choice = {{"index", static_cast<int64_t>(choices.size())}};
    if (call.chat) {
      choice["message"] = {{"role", "assistant"}, {"content", text.text}, {"refusal", nullptr}};
    } else {
      choice["text"] = call.echo + text.text;
    }
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = finish_reason(text);
    choices.push_back(std::move(choice));
  }
  Json body = head_of(service, call, false);
  body["choices"] = std::move(choices);
  body["usage"] = usage_of(results);
  body["timings"] = timings_of(*results[0]);
  return body;
}

/// Writes the events of a stream.
class OpenaiStream {
 public:
  OpenaiStream(Service& service, const OpenaiCall& call, const Connection& client)
      : service_(service), call_(call), client_(client), head_(head_of(service, call, true)) {}

  void run(const std::vector<std::shared_ptr<Job>>& jobs) {
    std::vector<std::shared_ptr<const JobResult>> results;
    try {
      for (int64_t i = 0; i < std::ssize(jobs); ++i) {
        begin(i);
        results.push_back(service_.scheduler().wait(
            *jobs[i], {[&](const PromptProgress& progress) { return send_progress(progress); },
                       [&](const std::string& text) { return send_text(i, text); }, client_.alive}));
        send_choice(i, call_.chat ? Json::object() : Json(""), finish_reason(results.back()->generated));
      }
      Json last = head_;
      last["choices"] = Json::array();
      if (!results[0]->attention.empty()) last["fathom"] = {{"attention", attention_json(*results[0])}};
      if (call_.usage_event) last["usage"] = usage_of(results);
      last["timings"] = timings_of(*results[0]);
      if (call_.usage_event || call_.request.report_progress || last.contains("fathom")) send(last);
    } catch (...) {
      const ApiError error = public_error(std::current_exception());
      send(openai_error(error.status(), error.what(), error.code()));
    }
    client_.write("data: [DONE]\n\n");
    for (const auto& job : jobs) service_.scheduler().cancel(*job);  // of choices after one that failed
  }

 private:
  bool send(const Json& event) const { return client_.write(concat("data: ", event.dump(), "\n\n")); }
  bool send_choice(int64_t index, const Json& delta, const char* reason) const {
    Json event = head_;
    event["choices"] = Json::array({Json::object()});
    Json& choice = event["choices"][0];
    choice["index"] = index;
    choice[call_.chat ? "delta" : "text"] = delta;
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = reason ? Json(reason) : Json();
    if (call_.usage_event) event["usage"] = nullptr;
    return send(event);
  }
  void begin(int64_t index) const {
    if (call_.chat) send_choice(index, {{"role", "assistant"}, {"content", ""}}, nullptr);
    if (!call_.echo.empty()) send_choice(index, call_.echo, nullptr);
  }
  bool send_text(int64_t index, const std::string& text) const {
    return send_choice(index, call_.chat ? Json{{"content", text}} : Json(text), nullptr);
  }
  Json attention_json(const JobResult& result) const {
    const AttendedText text = service_.attended_text(call_.request, result.attention);
    Json passages = Json::array();
    for (const Passage& passage : text.passages)
      passages.push_back({{"begin", passage.begin}, {"end", passage.end}, {"share", passage.share}});
    return {{"strip", text.strip}, {"passages", passages}};
  }
  bool send_progress(const PromptProgress& progress) const {
    Json event = head_;
    event["choices"] = Json::array();
    event["prompt_progress"] = {{"total", progress.total},
                                {"cached", progress.cached},
                                {"processed", progress.processed},
                                {"time_ms", 1000 * progress.seconds}};
    return send(event);
  }

  Service& service_;
  const OpenaiCall& call_;
  const Connection& client_;
  Json head_;
};

ApiResponse respond(Service& service, OpenaiCall call) {
  std::vector<std::shared_ptr<Job>> jobs = begin_all(service, call);
  if (!call.stream) return {complete(service, call, jobs), {}};
  return {{}, [&service, call = std::move(call), jobs = std::move(jobs)](const Connection& client) {
            OpenaiStream(service, call, client).run(jobs);
          }};
}

}  // namespace

ApiResponse openai_chat(Service& service, const std::string& client, const Json& body) {
  OpenaiCall call = read_call(body, client, true);
  add_messages(required_messages(body), call.request.messages);
  for (ChatMessage& message : call.request.messages)
    if (message.role == "developer") message.role = "system";
  return respond(service, std::move(call));
}

ApiResponse openai_completion(Service& service, const std::string& client, const Json& body) {
  OpenaiCall call = read_call(body, client, false);
  const Json* prompt = body.find("prompt");
  const bool tokens = prompt && prompt->is_array() && !prompt->empty() && prompt->at(0).is_number_integer();
  if (tokens) {
    try {
      call.request.prompt_tokens = prompt->get<std::vector<int32_t>>();
      service.tokenizer().decode(call.request.prompt_tokens);  // checks the ids
    } catch (const Error& error) {
      throw ApiError(400, concat("prompt: ", error.what()), "invalid_value");
    }
  } else {
    const std::vector<std::string> texts = text_list(body, "prompt");
    if (texts.size() != 1)
      throw ApiError(400, concat("prompt: expected one text or list of tokens, found ", texts.size()),
                     "invalid_value");
    call.request.prompt = texts[0];
  }
  if (flag(body, "echo", false)) call.echo = call.request.prompt;
  return respond(service, std::move(call));
}

}  // namespace fathom::serve
