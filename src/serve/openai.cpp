// The API of OpenAI: chat completions and completions.
#include "base/error.h"
#include "base/format.h"
#include "serve/answer.h"
#include "serve/api.h"
#include "serve/api_error.h"

namespace fathom::serve {
namespace {

constexpr int64_t kMostChoices = 16;

/// A parsed request for one or several texts.
struct OpenaiCall {
  TextRequest request;
  std::string id;
  bool chat = false, stream = false, usage_event = false, echo = false;
  int64_t choices = 1;                // of each prompt
  std::vector<TextRequest> requests;  // of all choices
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

void read_response_format(const Json& body, JsonForm& form) {
  const Json* format = body.find("response_format");
  if (!format || format->is_null()) return;
  const std::string type = required_text(*format, "type");
  if (type == "text") return;
  if (type == "json_object") {
    form.kind = JsonForm::Kind::kAny;
    return;
  }
  const Json* own = format->find("json_schema");
  const Json* schema = own ? own->find("schema") : format->find("schema");
  if (type != "json_schema" || !schema || !schema->is_object())
    throw ApiError(400,
                   "response_format: expected the type text, json_object, or json_schema with json_schema.schema",
                   "invalid_value");
  form = {JsonForm::Kind::kSchema, *schema};
}

/// Reads logprobs: a flag with top_logprobs in chats, a number in completions.
int64_t read_logprobs(const Json& body, bool chat) {
  constexpr int64_t kMostLogprobs = 20;
  const Json* asked = body.find("logprobs");
  if (!chat) return !asked || *asked == Json(false) ? -1 : integer(body, "logprobs", -1, 0, kMostLogprobs);
  return flag(body, "logprobs", false) ? integer(body, "top_logprobs", 0, 0, kMostLogprobs) : -1;
}

OpenaiCall read_call(const Json& body, const std::string& client, bool chat) {
  OpenaiCall call;
  call.chat = chat;
  call.id = new_id(chat ? "chatcmpl-" : "cmpl-");
  call.request.client = client;
  read_options(body, call.request);
  read_response_format(body, call.request.form);
  if (chat) read_tools(body, call.request.tools);
  call.request.logprobs = read_logprobs(body, chat);
  refuse_unsupported(body, {"functions", "best_of", "suffix", "modalities", "audio", "web_search_options"});
  if (!chat) refuse_unsupported(body, {"tools"});
  call.stream = flag(body, "stream", false);
  if (const Json* options = body.find("stream_options")) call.usage_event = flag(*options, "include_usage", false);
  call.choices = integer(body, "n", 1, 1, kMostChoices);
  call.request.stop = text_list(body, "stop");
  constexpr int64_t kMost = int64_t{1} << 40;
  call.request.max_tokens = integer(body, "max_tokens", chat ? -1 : 16, 0, kMost);
  call.request.max_tokens = integer(body, "max_completion_tokens", call.request.max_tokens, 0, kMost);
  return call;
}

/// Returns the usage of all choices. A prompt is counted once, with its first choice.
Json usage_of(const OpenaiCall& call, const std::vector<DividedAnswer>& answers) {
  int64_t completion = 0, prompt = 0, cached = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    completion += std::ssize(answers[i].result->generated.tokens);
    if (static_cast<int64_t>(i) % call.choices != 0) continue;
    prompt += answers[i].result->prompt.total;
    cached += answers[i].result->prompt.cached;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", completion},
          {"total_tokens", prompt + completion},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
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

const char* finish_reason(const DividedAnswer& answer) {
  if (answer.result->generated.stop == StopReason::kLength) return "length";
  return answer.calls.empty() ? "stop" : "tool_calls";
}

Json bytes_of(const std::string& text) {
  Json bytes = Json::array();
  for (const unsigned char byte : text) bytes.push_back(static_cast<int64_t>(byte));
  return bytes;
}

Json scored(const Service& service, const ScoredToken& token) {
  const std::string& piece = service.tokenizer().piece(token.token);
  return {{"token", piece}, {"logprob", token.logprob}, {"bytes", bytes_of(piece)}};
}

/// Returns the field `logprobs` of tokens. offset: bytes of the text before them.
Json logprobs_of(const Service& service, const OpenaiCall& call, std::span<const TokenLogprobs> tokens,
                 int64_t offset) {
  if (call.request.logprobs < 0) return {};
  Json content = Json::array(), pieces = Json::array(), values = Json::array(), tops = Json::array(),
       offsets = Json::array();
  for (const TokenLogprobs& token : tokens) {
    Json entry = scored(service, token.token);
    Json top = Json::array(), by_piece = Json::object();
    for (const ScoredToken& other : token.top) {
      top.push_back(scored(service, other));
      by_piece[service.tokenizer().piece(other.token)] = other.logprob;
    }
    pieces.push_back(entry["token"]);
    values.push_back(entry["logprob"]);
    tops.push_back(std::move(by_piece));
    offsets.push_back(offset);
    offset += std::ssize(service.tokenizer().piece(token.token.token));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  if (call.chat) return {{"content", std::move(content)}, {"refusal", nullptr}};
  return {{"tokens", std::move(pieces)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

Json call_json(const ToolCall& call) {
  return {
      {"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

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
    for (const TextRequest& request : call.requests) jobs.push_back(service.begin(request));
  } catch (...) {
    for (const auto& job : jobs) service.scheduler().cancel(*job);
    throw;
  }
  return jobs;
}

Json complete(Service& service, const Caller& caller, const OpenaiCall& call,
              const std::vector<std::shared_ptr<Job>>& jobs) {
  std::vector<DividedAnswer> answers;
  Json choices = Json::array();
  for (size_t i = 0; i < jobs.size(); ++i) {
    try {
      answers.push_back(read_answer(service, *jobs[i], call.requests[i], {.alive = caller.alive}));
    } catch (...) {
      for (const auto& job : jobs) service.scheduler().cancel(*job);
      throw;
    }
    const DividedAnswer& answer = answers.back();
    Json choice = {{"index", i}};
    const std::string before = call.echo ? call.requests[i].prompt : "";
    if (call.chat) {
      Json& message = choice["message"];
      message = {{"role", "assistant"}, {"content", answer.text}, {"refusal", nullptr}};
      if (!answer.reasoning.empty()) message["reasoning_content"] = answer.reasoning;
      if (!answer.calls.empty()) {
        if (answer.text.empty()) message["content"] = nullptr;
        for (const ToolCall& made : answer.calls) message["tool_calls"].push_back(call_json(made));
      }
    } else {
      choice["text"] = before + answer.text;
    }
    choice["logprobs"] = logprobs_of(service, call, answer.logprobs, std::ssize(before));
    choice["finish_reason"] = finish_reason(answer);
    choices.push_back(std::move(choice));
  }
  Json body = head_of(service, call, false);
  body["choices"] = std::move(choices);
  body["usage"] = usage_of(call, answers);
  body["timings"] = timings_of(*answers[0].result);
  return body;
}

/// Writes the events of a stream.
class OpenaiStream {
 public:
  OpenaiStream(Service& service, const OpenaiCall& call, const Connection& client)
      : service_(service), call_(call), client_(client), head_(head_of(service, call, true)) {}

  void run(const std::vector<std::shared_ptr<Job>>& jobs) {
    std::vector<DividedAnswer> answers;
    try {
      for (size_t i = 0; i < jobs.size(); ++i) {
        index_ = i;
        begin();
        answers.push_back(read_answer(service_, *jobs[i], call_.requests[i], events()));
        if (!pending_.empty()) send_piece(Json());
        send_choice(call_.chat ? Json::object() : Json(""), finish_reason(answers.back()), Json());
      }
      Json last = head_;
      last["choices"] = Json::array();
      const JobResult& result = *answers[0].result;
      if (!result.attention.empty()) last["fathom"] = {{"attention", attention_json(result)}};
      if (call_.usage_event) last["usage"] = usage_of(call_, answers);
      last["timings"] = timings_of(result);
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
  bool send_choice(const Json& delta, const char* reason, const Json& logprobs) const {
    Json event = head_;
    event["choices"] = Json::array({Json::object()});
    Json& choice = event["choices"][0];
    choice["index"] = index_;
    choice[call_.chat ? "delta" : "text"] = delta;
    choice["logprobs"] = logprobs;
    choice["finish_reason"] = reason ? Json(reason) : Json();
    if (call_.usage_event) event["usage"] = nullptr;
    return send(event);
  }
  bool send_delta(Json delta) const { return send_choice(delta, nullptr, Json()); }
  /// Sends the text that waits for the probabilities of its tokens.
  bool send_piece(const Json& logprobs) {
    const std::string text = std::exchange(pending_, "");
    offset_ += std::ssize(text);
    return send_choice(call_.chat ? Json{{"content", text}} : Json(text), nullptr, logprobs);
  }
  void begin() {
    offset_ = 0;
    if (call_.chat) send_delta({{"role", "assistant"}, {"content", ""}});
    if (call_.echo) send_choice(call_.requests[index_].prompt, nullptr, Json());
  }
  AnswerEvents events() {
    AnswerEvents events;
    events.on_progress = [this](const PromptProgress& progress) { return send_progress(progress); };
    events.on_text = [this](std::string_view text) {
      pending_ += text;
      return call_.request.logprobs >= 0 || send_piece(Json());
    };
    events.on_logprobs = [this](const TokenLogprobs& token) {
      return send_piece(logprobs_of(service_, call_, std::span(&token, 1), offset_));
    };
    events.on_reasoning = [this](std::string_view text) { return send_delta({{"reasoning_content", text}}); };
    events.on_call = [this](const ToolCall& call, size_t index) {
      Json made = {{"index", index}};
      made.update(call_json(call));
      return send_delta({{"tool_calls", Json::array({made})}});
    };
    events.on_arguments = [this](std::string_view part, size_t index) {
      return send_delta({{"tool_calls", Json::array({{{"index", index}, {"function", {{"arguments", part}}}}})}});
    };
    events.alive = client_.alive;
    return events;
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
  size_t index_ = 0;     // of the choice
  std::string pending_;  // text that was not sent
  int64_t offset_ = 0;   // bytes of the choice's text that were sent
};

ApiResponse respond(Service& service, const Caller& caller, OpenaiCall call,
                    const std::vector<TextRequest>& prompts) {
  for (const TextRequest& prompt : prompts) {
    for (int64_t i = 0; i < call.choices; ++i) {
      call.requests.push_back(prompt);
      call.requests.back().seed += static_cast<uint64_t>(i);
    }
  }
  std::vector<std::shared_ptr<Job>> jobs = begin_all(service, call);
  if (!call.stream) return {complete(service, caller, call, jobs), {}};
  return {{}, [&service, call = std::move(call), jobs = std::move(jobs)](const Connection& client) {
            OpenaiStream(service, call, client).run(jobs);
          }};
}

/// Returns the requests of the prompts of a completion: a text, tokens, or a list of either.
std::vector<TextRequest> read_prompts(const Service& service, const Json& body, const TextRequest& options) {
  const Json* prompt = body.find("prompt");
  std::vector<Json> prompts;
  if (prompt && prompt->is_array() && !prompt->empty() && !prompt->at(0).is_number_integer()) {
    prompts = prompt->items();
  } else if (prompt) {
    prompts.push_back(*prompt);
  }
  std::vector<TextRequest> requests;
  for (const Json& one : prompts) {
    TextRequest& request = requests.emplace_back(options);
    try {
      if (one.is_string()) {
        request.prompt = one.text();
      } else {
        request.prompt_tokens = one.get<std::vector<int32_t>>();
        request.prompt = service.tokenizer().decode(request.prompt_tokens);  // checks the ids
      }
    } catch (const Error& error) {
      throw ApiError(400, concat("prompt: ", error.what()), "invalid_value");
    }
  }
  if (requests.empty() || std::ssize(requests) > kMostChoices)
    throw ApiError(
        400, concat("prompt: expected 1 to ", kMostChoices, " texts or lists of tokens, found ", requests.size()),
        "invalid_value");
  return requests;
}

}  // namespace

ApiResponse openai_chat(Service& service, const Caller& caller, const Json& body) {
  OpenaiCall call = read_call(body, caller.client, true);
  add_messages(required_messages(body), call.request.messages);
  const TextRequest request = call.request;
  return respond(service, caller, std::move(call), {request});
}

ApiResponse openai_completion(Service& service, const Caller& caller, const Json& body) {
  OpenaiCall call = read_call(body, caller.client, false);
  call.echo = flag(body, "echo", false);
  const std::vector<TextRequest> prompts = read_prompts(service, body, call.request);
  return respond(service, caller, std::move(call), prompts);
}

}  // namespace fathom::serve
