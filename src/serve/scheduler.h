#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <thread>

#include "base/stopwatch.h"
#include "decode/draft_memory.h"
#include "serve/api_error.h"
#include "serve/job.h"
#include "session/engine.h"
#include "tokens/tokenizer.h"

namespace fathom::serve {

struct SchedulerOptions {
  int64_t slots = 16;         // jobs that are run together
  int64_t queue = 256;        // jobs that wait; more are refused
  int64_t client_jobs = 64;   // jobs of one client, running and waiting; more are refused
  int64_t client_tokens = 0;  // read and written per minute by one client, without cached ones; 0: any number
  int64_t prompt_rows = 32;   // tokens of prompts in a pass while others generate, more if they take under 20 ms
  double prompt_share = 0.5;  // share of the time for prompts while others generate
};

/// A job was refused, because too many wait.
class Refused : public ApiError {
 public:
  Refused(const std::string& message, int64_t retry_seconds)
      : ApiError(429, message, "too_many_requests"), retry_seconds_(retry_seconds) {}
  /// An estimate of the seconds until there is room.
  int64_t retry_seconds() const { return retry_seconds_; }

 private:
  int64_t retry_seconds_;
};

/// Counters of a scheduler since its start, and its present state.
struct SchedulerStats {
  int64_t running = 0, waiting = 0;
  int64_t finished = 0, failed = 0, cancelled = 0, refused = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0, forwards = 0;
  double busy_seconds = 0;
  size_t memory_used = 0, memory_limit = 0;  // bytes
  struct Slot {
    int64_t prompt_tokens = 0, read_tokens = 0, pieces = 0;
  };
  std::vector<Slot> slots;  // of running jobs
};

/// Runs jobs on one engine, which only its thread uses. Each forward pass generates a token (or a draft) for every
/// job that has read its prompt, and reads parts of prompts: so a long prompt does not hold up the others.
/// Prompts are chosen by priority, then of the client that was served least. Tokens of a job do not depend on what
/// else runs. Thread-safe.
class Scheduler {
 public:
  Scheduler(std::shared_ptr<Engine> engine, std::shared_ptr<const Tokenizer> tokenizer, SchedulerOptions options);
  /// Calls stop().
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;

  /// Ends all jobs with an error, and refuses new ones.
  void stop();
  /// Adds a job. Throws Refused.
  std::shared_ptr<Job> submit(JobRequest request);
  /// Waits for the end of a job. Cancels it if a function of the handler returns false. Throws ApiError if it
  /// fails.
  std::shared_ptr<const JobResult> wait(Job& job, const JobHandler& handler = {});
  /// Ends a job before its next pass; its last event is an error.
  void cancel(Job& job);
  /// Runs a function on the engine's thread between two passes, and waits for it. Throws what it throws, and Error
  /// if the scheduler has stopped.
  void run(const std::function<void(Engine&)>& work);
  SchedulerStats stats() const;

 private:
  struct Running;
  struct Task;
  struct TokenAllowance {
    double tokens = 0;  // that the client may use now; negative: used in advance
    Stopwatch since{};  // the last change
  };
  TokenAllowance& allowance(const std::string& client);
  void loop();
  void take_new_jobs();
  void start_jobs();
  void begin(Running& job);
  void drop_cancelled();
  /// The next tokens of the prompt of a job.
  struct Part {
    Running* job = nullptr;
    int64_t rows = 0;
  };
  std::vector<Part> choose_prompts(bool others);
  int64_t row_limit(bool others) const;
  static int64_t rows_of(const Running& job, int64_t left, bool first);
  void pass();
  void take_part(const Part& part);
  void end_prompt(Running& job);
  static void watch(Running& job);
  static std::vector<double> attention_of(const Running& job);
  void finish(Running& job);
  void fail(Running& job, std::exception_ptr error);
  void remove_finished();
  void update_stats();

  std::shared_ptr<Engine> engine_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  SchedulerOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<std::shared_ptr<Job>> submitted_;  // not yet seen by the engine's thread
  std::list<Task*> tasks_;
  std::map<std::string, int64_t> client_jobs_;  // running and waiting
  std::map<std::string, TokenAllowance> allowances_;
  int64_t waiting_count_ = 0;
  SchedulerStats stats_;
  bool stopped_ = false;

  // Used by the engine's thread alone.
  std::list<std::unique_ptr<Running>> waiting_, running_;
  std::map<std::string, double> served_;  // tokens of prompts read for each client
  double prompt_debt_ = 0;                // seconds of generating before the next part of a prompt
  double row_seconds_ = 0;                // recent time of a pass with prompts, by the rows of these
  DraftMemory draft_memory_;
  std::thread thread_;
};

}  // namespace fathom::serve
