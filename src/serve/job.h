#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "decode/constraint.h"
#include "decode/generate.h"

namespace fathom::serve {

/// Tokens of a prompt that were read so far.
struct PromptProgress {
  int64_t total = 0;
  int64_t cached = 0;     // found in memory, on disk or in a context
  int64_t processed = 0;  // read by this request
  double seconds = 0;     // since the first of them was read
};

/// The figures of a job at its end.
struct JobResult {
  Generated generated;
  PromptProgress prompt;
  double wait_seconds = 0;   // from submission to the first pass
  double first_seconds = 0;  // from submission to the first token; 0: none
  /// [prompt tokens]: the attention that each got from the generated tokens, summed over the heads of the second
  /// half of the layers. Empty unless JobRequest::watch_attention.
  std::vector<double> attention;
};

/// An error of a request, with the status of the response.
struct JobError {
  int status = 500;
  std::string message;
  std::string code{};
};

/// What happens to a job: its prompt was read further, whole characters of its text are known, a token of these has
/// probabilities, it ended, or failed.
using JobEvent =
    std::variant<PromptProgress, std::string, TokenLogprobs, std::shared_ptr<const JobResult>, JobError>;

/// Events of a job, from the thread of the engine to that of a connection. Thread-safe. The last event is a
/// result or an error.
class JobEvents {
 public:
  void push(JobEvent event) {
    {
      const std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
    }
    changed_.notify_one();
  }
  /// Returns the next event; nothing if there is none within `patience`.
  std::optional<JobEvent> pop(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, patience, [&] { return !events_.empty(); })) return std::nullopt;
    JobEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<JobEvent> events_;
};

/// What a client does with the events of a job. Each function may be empty, and returns false to end the job.
struct JobHandler {
  std::function<bool(const PromptProgress&)> on_progress{};
  std::function<bool(const std::string& text)> on_text{};
  std::function<bool(const TokenLogprobs&)> on_logprobs{};  // after the text of the token
  std::function<bool()> on_wait{};                          // a few times per second
};

/// What a job does: reads a prompt, and then generates a text.
struct JobRequest {
  std::string client;    // whose requests have equal parts of the machine
  int64_t priority = 0;  // of two waiting jobs, the one with more is run first
  std::vector<int32_t> prompt;
  SessionOptions session;  // methods and limits
  /// Returns the session that the job continues, on the engine's thread: its common prefix with the prompt is not
  /// read again. Empty: a new session with the options above.
  std::function<Session()> open;
  std::vector<std::string> drafts;  // specs of --draft methods; empty: none
  std::vector<std::string> steps;   // specs of sampling steps
  uint64_t seed = 0;
  std::shared_ptr<const Constraint> constraint;  // of the text; null: none
  GenerateOptions generate;                      // max_tokens 0: the prompt is only read
  bool logprobs = false;                         // reports generate.top_logprobs probabilities of each token
  bool report_progress = false;
  bool watch_attention = false;  // measures what the text attends to; no drafts then
  /// Called on the engine's thread when the prompt was read; may throw.
  std::function<void(Session&)> on_read;
};

/// A request in the scheduler.
struct Job {
  explicit Job(JobRequest given) : request(std::move(given)) {}

  const JobRequest request;
  JobEvents events;
  std::atomic<bool> cancelled{false};
};

}  // namespace fathom::serve
