#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "serve/constraints.h"
#include "serve/contexts.h"
#include "serve/conversations.h"
#include "serve/scheduler.h"
#include "tokens/answer_format.h"

namespace fathom::serve {

/// What a server serves.
struct ServiceOptions {
  SessionOptions session;           // defaults of requests
  std::vector<std::string> drafts;  // specs of --draft methods
  SchedulerOptions scheduler;
  int64_t max_tokens = -1;  // of an answer whose request gives no limit; −1: as many as fit
  std::string contexts;     // folder
  std::string name;         // of the model, for clients
  std::string version;      // of the program
};

/// The messages of a conversation. Calls of tools and their results are in the fields of OpenAI's API, with the
/// arguments of calls as objects.
using Messages = std::vector<ChatMessage>;

/// A request for a text, of any API.
struct TextRequest {
  std::string client;
  std::string context;  // name; empty: none
  Messages messages;    // of a conversation; empty: `prompt` is continued
  std::string prompt;
  std::vector<int32_t> prompt_tokens;  // instead of `prompt`; empty: `prompt`
  int64_t max_tokens = -1;             // most tokens of the text; −1: as many as fit
  std::vector<std::string> stop;
  std::vector<std::string> steps;  // specs of sampling steps
  uint64_t seed = 0;
  bool ignore_eos = false;  // continues after end-of-generation tokens, for measurements
  ToolUse tools{};
  JsonForm form{};
  bool reasoning = true;            // whether the model may reason before it answers, if the template can switch it
  int64_t logprobs = -1;            // most likely tokens to report beside each token; −1: no probabilities
  std::string attend;               // spec; empty: that of the server, or of the context
  std::vector<std::string> drafts;  // specs; empty: those of the server
  int64_t priority = 0;
  bool report_progress = false;
  bool attention = false;  // with a context: measures the places that the text attends to
};

/// A part of a text, in bytes, and its share of the attention to the text.
struct Passage {
  int64_t begin = 0, end = 0;
  double share = 0;
};

/// The places of a context that an answer attended to.
struct AttendedText {
  std::vector<double> strip;      // the shares of 256 equal parts of the text
  std::vector<Passage> passages;  // those with the most attention, most first
};

/// The engine, the saved contexts and the scheduler behind the APIs. Thread-safe.
class Service {
 public:
  /// chat_template: null: the messages of a conversation are joined by newlines.
  Service(std::shared_ptr<Engine> engine, std::shared_ptr<const Tokenizer> tokenizer,
          std::unique_ptr<const ChatTemplate> chat_template, ServiceOptions options);

  const ServiceOptions& options() const { return options_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const Model& model() const { return engine_->model(); }
  Scheduler& scheduler() { return *scheduler_; }
  ContextStore& contexts() { return contexts_; }
  ConversationStore& conversations() { return conversations_; }
  const std::shared_ptr<Engine>& engine() const { return engine_; }
  /// The largest number of tokens of a request, prompt and answer; 0: no limit.
  int64_t context_length() const { return options_.session.context; }

  /// How the model writes calls and reasoning.
  const AnswerFormat& answer_format() const { return format_; }

  /// Returns the text of a conversation up to the beginning of the answer.
  std::string render(const Messages& messages, const ToolUse& tools = {}, bool reasoning = true) const;
  /// Returns whether the model may reason before the answer to a request: not before one of a given form.
  static bool reasons(const TextRequest& request);
  /// Returns what the prompt of a request ends with to begin its answer; empty: nothing.
  std::string forced_beginning(const TextRequest& request) const;
  /// Returns the tokens of the prompt of a request.
  std::vector<int32_t> prompt_of(const TextRequest& request) const;
  /// Returns a job that reads a prompt with the options of the server and generates nothing. Throws ApiError for a
  /// prompt that does not fit.
  JobRequest reading_job(const std::string& client, std::vector<int32_t> prompt) const;
  /// Begins a text. Throws ApiError for a request that cannot be served, and Refused.
  std::shared_ptr<Job> begin(const TextRequest& request);

  /// Returns the places of a context that a text attended to. attention: JobResult::attention.
  AttendedText attended_text(const TextRequest& request, const std::vector<double>& attention) const;

  /// Reads a text and saves it as a context of a client; on_progress returns whether to go on. Throws ApiError, and
  /// Refused.
  NamedContext read_context(const std::string& client, const std::string& name, std::string text,
                            const std::function<bool(const PromptProgress&)>& on_progress);
  /// Replaces the text of a context by another one and reads what differs.
  EditReport edit_context(const std::string& client, const std::string& name, std::string text, bool exact);
  bool remove_context(const std::string& client, const std::string& name);

 private:
  FramedText frame(std::string text) const;
  bool shows_special(const TextRequest& request) const;
  void check_length(int64_t tokens) const;
  /// Runs a job that reads a text and saves its session as a context.
  JobResult read_and_save(JobRequest request, const FramedText& framed, const std::string& name,
                          const std::function<bool(const PromptProgress&)>& on_progress);

  std::shared_ptr<Engine> engine_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const ChatTemplate> template_;
  AnswerFormat format_;
  ServiceOptions options_;
  ContextStore contexts_;
  ConversationStore conversations_;
  ConstraintCache constraints_;
  std::unique_ptr<Scheduler> scheduler_;  // declared last: its thread uses the others
};

}  // namespace fathom::serve
