#include "serve/service.h"

#include <algorithm>
#include <optional>

#include "attend/methods.h"
#include "base/error.h"
#include "base/format.h"
#include "base/utf8.h"
#include "context/text_edits.h"
#include "decode/drafter.h"
#include "serve/api_error.h"
#include "tokens/prompt.h"

namespace fathom::serve {
namespace {

/// Throws ApiError for a text that is not UTF-8.
void check_utf8(std::string_view text) {
  const size_t valid = utf8_valid_prefix(text);
  if (valid < text.size()) throw ApiError(400, concat("the text is not UTF-8: byte ", valid), "invalid_text");
}

/// Calls `check`, and turns its usage errors into errors of the request.
template <class Check>
void check_request(const Check& check) {
  try {
    check();
  } catch (const Error& error) {
    throw ApiError(400, error.what(), "invalid_method");
  }
}

/// A session of another thread than the engine's, which destroys it on that one.
struct EngineSession {
  explicit EngineSession(Scheduler& given) : scheduler(given) {}
  ~EngineSession() {
    if (!session) return;
    try {
      scheduler.run([&](Engine&) { session.reset(); });
    } catch (const Error&) {  // the scheduler has stopped
    }
  }
  EngineSession(const EngineSession&) = delete;

  Scheduler& scheduler;
  std::optional<Session> session{};
};

}  // namespace

Service::Service(std::shared_ptr<Engine> engine, std::shared_ptr<const Tokenizer> tokenizer,
                 std::unique_ptr<const ChatTemplate> chat_template, ServiceOptions options)
    : engine_(std::move(engine)),
      tokenizer_(std::move(tokenizer)),
      template_(std::move(chat_template)),
      format_(template_ ? learn_answer_format(*template_) : AnswerFormat()),
      options_(std::move(options)),
      contexts_(options_.contexts),
      constraints_(*tokenizer_, format_),
      scheduler_(std::make_unique<Scheduler>(engine_, tokenizer_, options_.scheduler)) {}

std::string Service::render(const Messages& messages, const ToolUse& tools, bool reasoning) const {
  const Json known = tools.choice == ToolUse::Choice::kNone ? Json() : tools.tools;
  const Messages prepared = with_tools(format_, messages, known);
  if (template_) {
    TemplateInputs inputs;
    if (format_.knows_tools) inputs.tools = known;
    if (!reasoning) inputs.switches["enable_thinking"] = false;
    try {
      return template_->render(prepared, true, inputs);
    } catch (const Error& error) {
      throw ApiError(400, concat("the model's chat template: ", error.what()), "invalid_messages");
    }
  }
  std::string text;
  for (const ChatMessage& message : prepared) text += (text.empty() ? "" : "\n") + message.content;
  return text;
}

bool Service::reasons(const TextRequest& request) {
  return request.reasoning && request.form.kind == JsonForm::Kind::kNone &&
         request.tools.choice != ToolUse::Choice::kRequired;
}

std::string Service::forced_beginning(const TextRequest& request) const {
  if (request.tools.choice != ToolUse::Choice::kRequired) return "";
  return format_.call_begin;
}

/// Returns whether the text of an answer is to contain control tokens, since calls and reasoning are marked by
/// them.
bool Service::shows_special(const TextRequest& request) const {
  if (request.messages.empty() || !template_) return false;
  const auto is_control = [&](const std::string& text) {
    return std::ranges::any_of(
        tokenizer_->encode(text, {.add_bos_eos = false, .parse_special = true}),
        [&](int32_t id) { return tokenizer_->vocabulary().type(id) == TokenType::kControl; });
  };
  const bool calls = request.tools.choice != ToolUse::Choice::kNone && !request.tools.tools.is_null();
  return format_.style == AnswerFormat::Style::kHarmony ||
         (!format_.think_end.empty() && is_control(format_.think_end)) ||
         (calls && is_control(format_.call_begin + format_.call_end));
}

FramedText Service::frame(std::string text) const {
  return template_ ? FramedText::of_chat(*template_, "", std::move(text)) : FramedText{"", std::move(text), ""};
}

std::vector<int32_t> Service::prompt_of(const TextRequest& request) const {
  if (!request.prompt_tokens.empty()) {
    engine_->check_tokens(request.prompt_tokens);
    return request.prompt_tokens;
  }
  std::string text = request.prompt;
  bool special = false;
  if (!request.messages.empty()) {
    Messages messages = request.messages;
    if (!request.context.empty()) {
      const auto first = std::ranges::find(messages, "user", &ChatMessage::role);
      if (first == messages.end()) throw ApiError(400, "messages: expected one of the user, with a context");
      first->content.insert(0, contexts_.text(request.client, request.context).text);
    }
    text = render(messages, request.tools, reasons(request));
    if (!reasons(request) && format_.begins_reasoning && !format_.has_switch) text += format_.think_end + "\n\n";
    text += forced_beginning(request);
    special = template_ != nullptr;
  } else if (!request.context.empty()) {
    const FramedText framed = contexts_.text(request.client, request.context);
    text = concat(framed.before, framed.text, text, framed.after);
    special = framed.chat;
  }
  if (text.empty()) throw ApiError(400, "the prompt is empty");
  return encode_prompt(*tokenizer_, text, special);
}

/// Throws ApiError if a prompt leaves no room for an answer.
void Service::check_length(int64_t tokens) const {
  const int64_t limit = context_length();
  if (limit > 0 && tokens >= limit)
    throw ApiError(400,
                   concat("the prompt has ", tokens, " tokens, ", tokens - limit + 1,
                          " more than fit: this server accepts ", limit, " tokens of prompt and answer together"),
                   "context_length_exceeded");
}

JobRequest Service::reading_job(const std::string& client, std::vector<int32_t> prompt) const {
  check_length(std::ssize(prompt));
  JobRequest job;
  job.client = client;
  job.prompt = std::move(prompt);
  job.session = options_.session;
  job.session.share_prefixes = job.session.attend == "dense";
  job.generate.max_tokens = 0;
  return job;
}

std::shared_ptr<Job> Service::begin(const TextRequest& request) {
  JobRequest job = reading_job(request.client, prompt_of(request));
  const int64_t length = std::ssize(job.prompt), limit = context_length();
  job.priority = request.priority;
  check_request([&] {
    if (!request.attend.empty()) attend_methods().make(request.attend);
    for (const std::string& draft : request.drafts) check_draft_method(draft);
    Sampler(request.steps, request.seed);
  });
  if (!request.attend.empty()) job.session.attend = request.attend;
  job.session.share_prefixes = job.session.attend == "dense";
  if (!request.context.empty()) {
    job.open = [this, client = request.client, name = request.context, attend = request.attend] {
      Session session = contexts_.open(engine_, options_.session, client, name);
      return attend.empty() || attend == session.options().attend ? std::move(session) : session.fork(attend);
    };
  }
  job.constraint = constraints_.find(request.form, request.tools);
  job.drafts = request.drafts.empty() ? options_.drafts : request.drafts;
  job.steps = request.steps;
  job.seed = request.seed;
  job.generate.stop = request.stop;
  job.generate.ignore_eos = request.ignore_eos;
  job.generate.continues = request.messages.empty() || request.tools.choice == ToolUse::Choice::kRequired;
  job.generate.show_special = shows_special(request);
  job.generate.top_logprobs = static_cast<size_t>(std::max<int64_t>(request.logprobs, 0));
  job.logprobs = request.logprobs >= 0;
  job.generate.max_tokens = request.max_tokens >= 0    ? request.max_tokens
                            : options_.max_tokens >= 0 ? options_.max_tokens
                            : limit > 0                ? limit - length
                                                       : GenerateOptions().max_tokens;
  job.report_progress = request.report_progress;
  job.watch_attention = request.attention && !request.context.empty();
  return scheduler_->submit(std::move(job));
}

JobResult Service::read_and_save(JobRequest request, const FramedText& framed, const std::string& name,
                                 const std::function<bool(const PromptProgress&)>& on_progress) {
  const std::string client = request.client;
  EngineSession read(*scheduler_);
  // The job has ended when wait() returns or throws, so it can refer to `read`.
  request.on_read = [&read](Session& session) { read.session.emplace(session.fork()); };
  const std::shared_ptr<Job> job = scheduler_->submit(std::move(request));
  JobResult result = *scheduler_->wait(*job, {.on_progress = on_progress});
  framed.save(*read.session, *tokenizer_, contexts_.path(client, name));  // beside the engine's thread
  scheduler_->run([&](Engine&) { contexts_.close(client, name); });
  return result;
}

NamedContext Service::read_context(const std::string& client, const std::string& name, std::string text,
                                   const std::function<bool(const PromptProgress&)>& on_progress) {
  contexts_.path(client, name);  // creates the folder, or fails before the text is read
  if (text.empty()) throw ApiError(400, "the text of the context is empty");
  check_utf8(text);
  const FramedText framed = frame(std::move(text));
  JobRequest request = reading_job(client, framed.tokens(*tokenizer_));
  request.report_progress = true;
  read_and_save(std::move(request), framed, name, on_progress);
  auto saved = contexts_.find(client, name);
  if (!saved) throw ApiError(409, "the context was deleted while it was read", "context_deleted");
  return *std::move(saved);
}

EditReport Service::edit_context(const std::string& client, const std::string& name, std::string text, bool exact) {
  FramedText framed = contexts_.text(client, name);
  framed.text = std::move(text);
  if (framed.text.empty()) throw ApiError(400, "the text of the context would be empty");
  check_utf8(framed.text);
  std::vector<int32_t> tokens = framed.tokens(*tokenizer_);
  check_length(std::ssize(tokens));
  EditReport report;
  if (exact) {  // reads what follows the common beginning, beside other requests
    JobRequest request = reading_job(client, std::move(tokens));
    request.open = [this, client, name] { return contexts_.open(engine_, options_.session, client, name); };
    const JobResult result = read_and_save(std::move(request), framed, name, {});
    report.kept = result.prompt.cached;
    report.read = result.prompt.processed;
    return report;
  }
  EngineSession edited(*scheduler_);
  scheduler_->run([&](Engine&) {
    edited.session.emplace(contexts_.open(engine_, options_.session, client, name));
    report = edited.session->edit(edits_between(edited.session->ids(), tokens), {});
  });
  framed.save(*edited.session, *tokenizer_, contexts_.path(client, name));
  scheduler_->run([&](Engine&) { contexts_.close(client, name); });
  return report;
}

bool Service::remove_context(const std::string& client, const std::string& name) {
  const bool removed = contexts_.remove(client, name);
  scheduler_->run([&](Engine&) { contexts_.close(client, name); });
  return removed;
}

}  // namespace fathom::serve
