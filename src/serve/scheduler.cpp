#include "serve/scheduler.h"

#include <algorithm>
#include <ranges>

#include "attend/attention_mass.h"
#include "base/error.h"
#include "base/format.h"
#include "base/stopwatch.h"
#include "decode/generation.h"
#include "serve/api_error.h"

namespace fathom::serve {
namespace {

constexpr auto kPatience = std::chrono::milliseconds(250);
constexpr int64_t kFewRows = 16;   // parts of prompts have more rows, so that all use the same kernels
constexpr double kForget = 0.999;  // factor per pass on the tokens that clients were served

}  // namespace

/// A job on the engine's thread.
struct Scheduler::Running {
  explicit Running(std::shared_ptr<Job> given) : job(std::move(given)) {}

  std::shared_ptr<Job> job;
  Stopwatch since_submission, since_begin;
  std::optional<Session> session;
  std::optional<Sampler> sampler;
  std::unique_ptr<Drafter> drafter;
  std::unique_ptr<AttentionMass> attention;
  GenerateOptions options;                 // of the generation
  std::unique_ptr<Generation> generation;  // after the prompt
  JobResult result;
  int64_t pieces = 0;  // of text, sent
  bool ended = false;

  const std::vector<int32_t>& prompt() const { return job->request.prompt; }
  int64_t read() const { return result.prompt.cached + result.prompt.processed; }
  int64_t left() const { return std::ssize(prompt()) - read(); }
  bool reading() const { return !ended && !generation; }
};

/// A function that another thread waits for.
struct Scheduler::Task {
  const std::function<void(Engine&)>& work;
  std::exception_ptr error{};
  bool done = false;
};

Scheduler::Scheduler(std::shared_ptr<Engine> engine, std::shared_ptr<const Tokenizer> tokenizer,
                     SchedulerOptions options)
    : engine_(std::move(engine)), tokenizer_(std::move(tokenizer)), options_(options) {
  stats_.memory_limit = engine_->pages().budget()->limit();
  thread_ = std::thread([this] { loop(); });
}

Scheduler::~Scheduler() {
  stop();
  thread_.join();
}

void Scheduler::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

std::shared_ptr<Job> Scheduler::submit(JobRequest request) {
  auto job = std::make_shared<Job>(std::move(request));
  {
    const std::lock_guard lock(mutex_);
    const std::string& client = job->request.client;
    const int64_t waits = std::max<int64_t>(1, waiting_count_ / std::max<int64_t>(1, options_.slots));
    const auto refuse = [&](const char* message) {
      ++stats_.refused;
      throw Refused(message, waits);
    };
    if (stopped_) refuse("the server is stopping");
    if (waiting_count_ >= options_.queue) refuse("too many requests wait");
    if (const auto found = client_jobs_.find(client);
        found != client_jobs_.end() && found->second >= options_.client_jobs)
      refuse("too many requests of this key are open");
    if (options_.client_tokens > 0) {
      double& tokens = allowance(client).tokens;
      if (tokens <= 0) {
        ++stats_.refused;
        const double seconds = (1 - tokens) * 60 / static_cast<double>(options_.client_tokens);
        throw Refused(concat("this key has used its ", options_.client_tokens, " tokens per minute"),
                      1 + static_cast<int64_t>(seconds));
      }
      tokens -= static_cast<double>(job->request.prompt.size());
    }
    ++client_jobs_[client];
    ++waiting_count_;
    submitted_.push_back(job);
  }
  changed_.notify_all();
  return job;
}

/// Returns what a client may use now, of at most the tokens of a minute. Call it with the lock.
Scheduler::TokenAllowance& Scheduler::allowance(const std::string& client) {
  const auto most = static_cast<double>(options_.client_tokens);
  const auto [found, added] = allowances_.try_emplace(client);
  TokenAllowance& own = found->second;
  own.tokens = added ? most : std::min(most, own.tokens + own.since.seconds() * most / 60);
  own.since = Stopwatch();
  return own;
}

void Scheduler::cancel(Job& job) {
  job.cancelled.store(true, std::memory_order_relaxed);
  changed_.notify_all();
}

void Scheduler::run(const std::function<void(Engine&)>& work) {
  Task task{work};
  std::unique_lock lock(mutex_);
  if (stopped_) throw Error("the server is stopping", Error::Kind::kInterrupted);
  tasks_.push_back(&task);
  changed_.notify_all();
  changed_.wait(lock, [&] { return task.done; });
  if (task.error) std::rethrow_exception(task.error);
}

std::shared_ptr<const JobResult> Scheduler::wait(Job& job, const JobHandler& handler) {
  Stopwatch since_wait;
  for (;;) {
    const std::optional<JobEvent> event = job.events.pop(kPatience);
    bool continues = true;
    if (handler.on_wait && (!event || since_wait.seconds() > std::chrono::duration<double>(kPatience).count())) {
      continues = handler.on_wait();
      since_wait = Stopwatch();
    }
    if (!continues) cancel(job);
    if (!event) continue;
    if (const auto* progress = std::get_if<PromptProgress>(&*event)) {
      continues = !handler.on_progress || handler.on_progress(*progress);
    } else if (const auto* text = std::get_if<std::string>(&*event)) {
      continues = !handler.on_text || handler.on_text(*text);
    } else if (const auto* logprobs = std::get_if<TokenLogprobs>(&*event)) {
      continues = !handler.on_logprobs || handler.on_logprobs(*logprobs);
    } else if (const auto* error = std::get_if<JobError>(&*event)) {
      throw ApiError(error->status, error->message, error->code);
    } else {
      return std::get<std::shared_ptr<const JobResult>>(*event);
    }
    if (!continues) cancel(job);
  }
}

SchedulerStats Scheduler::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

/// Takes submitted jobs, and runs functions of other threads. Waits if there is nothing to do.
void Scheduler::take_new_jobs() {
  std::unique_lock lock(mutex_);
  if (running_.empty() && waiting_.empty())
    changed_.wait(lock, [&] { return stopped_ || !submitted_.empty() || !tasks_.empty(); });
  while (!tasks_.empty()) {
    Task& task = *tasks_.front();
    tasks_.pop_front();
    lock.unlock();
    try {
      task.work(*engine_);
    } catch (...) {
      task.error = std::current_exception();
    }
    lock.lock();
    task.done = true;
    changed_.notify_all();
  }
  for (std::shared_ptr<Job>& job : submitted_) waiting_.push_back(std::make_unique<Running>(std::move(job)));
  submitted_.clear();
}

void Scheduler::drop_cancelled() {
  const auto failure = std::make_exception_ptr(Error("the request was cancelled", Error::Kind::kInterrupted));
  for (auto* list : {&waiting_, &running_})
    for (const auto& job : *list)
      if (!job->ended && job->job->cancelled.load(std::memory_order_relaxed)) fail(*job, failure);
}

/// Begins waiting jobs while there are free slots: those with the highest priority, then of the clients with the
/// fewest running jobs, then the oldest.
void Scheduler::start_jobs() {
  while (!waiting_.empty() && std::ssize(running_) < options_.slots) {
    const auto jobs_of = [&](const std::string& client) {
      return std::ranges::count_if(running_, [&](const auto& job) { return job->job->request.client == client; });
    };
    const auto best = std::ranges::min_element(waiting_, {}, [&](const auto& job) {
      return std::pair(-job->job->request.priority, jobs_of(job->job->request.client));
    });
    running_.splice(running_.end(), waiting_, best);
    Running& job = *running_.back();
    try {
      begin(job);
    } catch (...) {
      fail(job, std::current_exception());
    }
  }
}

/// Opens the session of a job and finds the prefix of its prompt that need not be read.
void Scheduler::begin(Running& job) {
  const JobRequest& request = job.job->request;
  job.result.wait_seconds = job.since_submission.seconds();
  job.session.emplace(request.open ? request.open() : Session(engine_, request.session));
  Session& session = *job.session;
  job.sampler.emplace(request.steps, request.seed);
  job.sampler->constrain(request.constraint, std::ssize(job.prompt()));
  if (!request.drafts.empty() && !request.watch_attention)
    job.drafter = std::make_unique<Drafter>(
        DraftOptions{request.drafts},
        DraftSetup{engine_->shared_model(), engine_->shared_runtime(), tokenizer_.get(), &session, &draft_memory_});
  engine_->check_tokens(job.prompt());
  job.result.prompt.cached =
      session.length() > 0 ? session.rewind_to_prefix(job.prompt()) : session.restore(job.prompt());
  job.result.prompt.total = std::ssize(job.prompt());
  job.since_begin = Stopwatch();
  if (request.report_progress) job.job->events.push(job.result.prompt);
}

/// Returns the jobs of whose prompts the next pass reads parts, with the numbers of tokens: those with the highest
/// priority, then of the clients that were served least. others: whether texts are written in the pass.
std::vector<Scheduler::Part> Scheduler::choose_prompts(bool others) {
  std::vector<Running*> reading;
  for (const auto& job : running_)
    if (job->reading()) reading.push_back(job.get());
  std::ranges::stable_sort(reading, {}, [&](const Running* job) {
    return std::pair(-job->job->request.priority, served_[job->job->request.client]);
  });
  std::vector<Part> parts;
  int64_t left = row_limit(others);
  for (Running* job : reading) {
    const int64_t rows = rows_of(*job, left, parts.empty());
    if (rows == 0) break;
    parts.push_back({job, rows});
    left -= rows;
    if (left <= 0) break;
  }
  return parts;
}

/// Returns how many tokens of prompts a pass reads: those that take kPromptSeconds, but at least prompt_rows and at
/// most kMostRows.
int64_t Scheduler::row_limit(bool others) const {
  constexpr double kPromptSeconds = 0.02;
  constexpr int64_t kMostRows = 256;
  if (!others) return kMostRows;
  const double rows = row_seconds_ > 0 ? kPromptSeconds / row_seconds_ : 0;
  return std::max(options_.prompt_rows, static_cast<int64_t>(std::min<double>(rows, kMostRows)));
}

/// Returns how many tokens of a prompt a pass reads that has room for `left`. Parts of a chunk have the results of
/// the whole one if attention is dense; other methods may select pages for a chunk, so it is not divided. first:
/// whether nothing else is read; otherwise only whole chunks are added, or none.
int64_t Scheduler::rows_of(const Running& job, int64_t left, bool first) {
  const int64_t chunk = job.session->next_chunk(job.left());
  if (chunk <= left) return chunk;
  if (!first) return 0;
  if (job.session->options().attend != "dense" || chunk < left + kFewRows) return chunk;
  return std::max(left, kFewRows);
}

void Scheduler::pass() {
  std::vector<Generation*> texts;
  std::vector<Running*> writers;
  for (const auto& job : running_) {
    if (job->ended || !job->generation) continue;
    texts.push_back(job->generation.get());
    writers.push_back(job.get());
  }
  std::vector<Part> parts;
  if (texts.empty() || prompt_debt_ <= 0) parts = choose_prompts(!texts.empty());
  if (texts.empty() && parts.empty()) return;
  std::vector<Session::Step> prompts;
  int64_t rows = 0;
  for (const Part& part : parts) {
    prompts.push_back({.session = &*part.job->session,
                       .tokens = std::span(part.job->prompt()).subspan(part.job->read(), part.rows),
                       .prompt = true,
                       .last = part.rows == part.job->left()});
    rows += part.rows;
  }
  const Stopwatch watch;
  const std::vector<std::exception_ptr> errors = Generation::advance(texts, prompts);
  const double seconds = watch.seconds();
  {
    const std::lock_guard lock(mutex_);
    ++stats_.forwards;
    stats_.busy_seconds += seconds;
  }
  if (rows > 0) {
    const double row_seconds = seconds / static_cast<double>(rows);
    row_seconds_ = row_seconds_ > 0 ? 0.8 * row_seconds_ + 0.2 * row_seconds : row_seconds;
  }
  if (texts.empty()) {
    prompt_debt_ = 0;
  } else if (rows > 0) {
    prompt_debt_ = seconds * (1 - options_.prompt_share) / std::max(options_.prompt_share, 0.01);
  } else {
    prompt_debt_ -= seconds;
  }
  for (Running* writer : writers) {
    if (writer->generation->error()) {
      fail(*writer, writer->generation->error());
    } else if (writer->generation->ended()) {
      finish(*writer);
    }
  }
  if (rows > 0)
    for (double& tokens : std::views::values(served_)) tokens *= kForget;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (errors[i]) {
      fail(*parts[i].job, errors[i]);
    } else {
      take_part(parts[i]);
    }
  }
}

/// Reports what was read of a prompt.
void Scheduler::take_part(const Part& part) {
  Running& reader = *part.job;
  served_[reader.job->request.client] += static_cast<double>(part.rows);
  PromptProgress& progress = reader.result.prompt;
  progress.processed += part.rows;
  progress.seconds = reader.since_begin.seconds();
  if (reader.job->request.report_progress) reader.job->events.push(progress);
  if (reader.left() == 0) end_prompt(reader);
}

/// Begins the generation of a job that has read its prompt.
void Scheduler::end_prompt(Running& job) {
  try {
    const JobRequest& request = job.job->request;
    if (request.on_read) request.on_read(*job.session);
    if (request.generate.max_tokens == 0) return finish(job);
    if (request.watch_attention) watch(job);
    job.options = request.generate;
    if (request.logprobs)
      job.options.on_logprobs = [&job](const TokenLogprobs& token) { job.job->events.push(token); };
    job.generation = std::make_unique<Generation>(*job.session, *tokenizer_, *job.sampler, job.prompt(),
                                                  job.options, job.drafter.get(), [&job](std::string_view text) {
                                                    if (job.pieces++ == 0)
                                                      job.result.first_seconds = job.since_submission.seconds();
                                                    job.job->events.push(std::string(text));
                                                  });
    if (job.generation->error()) return fail(job, job.generation->error());
    if (job.generation->ended()) finish(job);
  } catch (...) {
    fail(job, std::current_exception());
  }
}

/// Observes the attention of the text of a job, in the second half of the layers.
void Scheduler::watch(Running& job) {
  const Sequence& sequence = job.session->sequence();
  std::vector<char> layers(sequence.layers());
  for (int layer = sequence.layers() / 2; layer < sequence.layers(); ++layer)
    layers[layer] = sequence.paged(layer) != nullptr;
  job.attention = std::make_unique<AttentionMass>(std::move(layers), sequence.max_heads(), 0);
  job.session->watch(job.attention.get());
}

/// Returns the attention to each token of the prompt of a job.
std::vector<double> Scheduler::attention_of(const Running& job) {
  std::vector<double> sums(job.prompt().size());
  const Sequence& sequence = job.session->sequence();
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    const PagedKv* kv = sequence.paged(layer);
    for (int head = 0; kv && job.attention->watches(layer) && head < kv->heads(); ++head) {
      const std::vector<double> mass = job.attention->mass(layer, head, std::ssize(sums));
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += mass[i];
    }
  }
  return sums;
}

void Scheduler::finish(Running& job) {
  if (job.generation) job.result.generated = job.generation->finish();
  if (job.attention) job.result.attention = attention_of(job);
  job.ended = true;
  {
    const std::lock_guard lock(mutex_);
    ++stats_.finished;
    stats_.prompt_tokens += job.result.prompt.total;
    stats_.cached_tokens += job.result.prompt.cached;
    stats_.generated_tokens += std::ssize(job.result.generated.tokens);
    if (options_.client_tokens > 0)
      allowance(job.job->request.client).tokens +=
          static_cast<double>(job.result.prompt.cached - std::ssize(job.result.generated.tokens));
  }
  job.job->events.push(std::make_shared<const JobResult>(std::move(job.result)));
}

void Scheduler::fail(Running& job, std::exception_ptr error) {
  job.ended = true;
  {
    const std::lock_guard lock(mutex_);
    ++(job.job->cancelled ? stats_.cancelled : stats_.failed);
  }
  const ApiError failure = public_error(error);
  job.job->events.push(JobError{failure.status(), failure.what(), failure.code()});
}

/// Removes ended jobs, with their sessions.
void Scheduler::remove_finished() {
  const std::lock_guard lock(mutex_);
  for (auto* list : {&waiting_, &running_}) {
    for (auto job = list->begin(); job != list->end();) {
      if (!(*job)->ended) {
        ++job;
        continue;
      }
      const auto client = client_jobs_.find((*job)->job->request.client);
      if (--client->second == 0) client_jobs_.erase(client);
      job = list->erase(job);
    }
  }
}

void Scheduler::update_stats() {
  const std::lock_guard lock(mutex_);
  waiting_count_ = std::ssize(waiting_) + std::ssize(submitted_);
  stats_.running = std::ssize(running_);
  stats_.waiting = waiting_count_;
  stats_.memory_used = engine_->pages().budget()->in_use();
  stats_.slots.clear();
  for (const auto& job : running_) stats_.slots.push_back({job->result.prompt.total, job->read(), job->pieces});
}

void Scheduler::loop() {
  for (;;) {
    take_new_jobs();
    {
      const std::lock_guard lock(mutex_);
      if (stopped_) break;
    }
    drop_cancelled();
    start_jobs();
    pass();
    remove_finished();
    update_stats();
  }
  const auto failure = std::make_exception_ptr(Error("the server is stopping", Error::Kind::kInterrupted));
  take_new_jobs();
  for (auto* list : {&waiting_, &running_})
    for (const auto& job : *list)
      if (!job->ended) fail(*job, failure);
  remove_finished();
}

}  // namespace fathom::serve
