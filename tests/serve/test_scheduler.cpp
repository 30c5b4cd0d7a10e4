// The scheduler: tokens of a job do not depend on what else runs, and jobs are refused, cancelled and ended.
#include "serve/scheduler.h"

#include <gtest/gtest.h>

#include <random>

#include "seed.h"
#include "session/seedling.h"
#include "temporary_folder.h"
#include "tokens/vocabulary.h"

namespace fathom::serve {
namespace {

std::shared_ptr<const Tokenizer> seedling_tokenizer() {
  static const auto tokenizer = std::make_shared<const Tokenizer>(Vocabulary::read(*test::seedling()->file()));
  return tokenizer;
}

std::shared_ptr<Engine> new_engine() {
  return std::make_shared<Engine>(test::seedling(), std::make_shared<Runtime>(2),
                                  EngineOptions{.memory = 256 << 20});
}

/// Waits for the end of a job. Returns its result, or null with the error in `error`.
std::shared_ptr<const JobResult> end_of(Job& job, JobError* error = nullptr) {
  for (;;) {
    const auto event = job.events.pop(std::chrono::seconds(60));
    if (!event) {
      ADD_FAILURE() << "the job does not end";
      return nullptr;
    }
    if (const auto* failure = std::get_if<JobError>(&*event)) {
      if (error) *error = *failure;
      return nullptr;
    }
    if (const auto* result = std::get_if<std::shared_ptr<const JobResult>>(&*event)) return *result;
  }
}

JobRequest request(int64_t length, uint32_t seed, int64_t tokens = 20) {
  JobRequest made;
  made.prompt = test::tokens(length, seed);
  made.session.chunk = 64;
  made.session.share_prefixes = true;
  made.generate.max_tokens = tokens;
  made.generate.ignore_eos = true;
  return made;
}

std::vector<int32_t> tokens_of(Scheduler& scheduler, JobRequest given, int64_t* cached = nullptr) {
  const auto result = end_of(*scheduler.submit(std::move(given)));
  if (!result) return {};
  if (cached) *cached = result->prompt.cached;
  return result->generated.tokens;
}

TEST(Scheduler, TokensDependOnTheRequestAlone) {
  const test::TemporaryFolder folder;
  const auto cache = std::make_shared<DiskCache>(folder.path(), int64_t{1} << 30);
  std::vector<JobRequest> requests;
  std::mt19937 random(test::seed(0));
  for (uint32_t i = 0; i < 16; ++i) {
    JobRequest one = request(i % 4 == 0 ? 600 + 37 * i : 10 + 21 * i, 1 + random() % 1000);
    one.session.disk_cache = cache;
    if (i % 3 == 1) one.steps = {"temperature:t=0.8"}, one.seed = i;
    if (i % 5 == 4) one.session.attend = "quest:budget=128", one.session.share_prefixes = false;
    requests.push_back(one);
  }
  std::vector<std::vector<int32_t>> alone;
  for (const JobRequest& one : requests) {
    Scheduler scheduler(new_engine(), seedling_tokenizer(), {});
    JobRequest cold = one;
    cold.session.disk_cache = nullptr;
    alone.push_back(tokens_of(scheduler, cold));
    ASSERT_EQ(alone.back().size(), 20u);
  }
  const auto expect_same = [&](Scheduler& scheduler, const std::vector<std::string>& drafts, int64_t least_cached) {
    std::vector<std::shared_ptr<Job>> jobs;
    for (JobRequest one : requests) {
      one.drafts = drafts;
      jobs.push_back(scheduler.submit(std::move(one)));
    }
    int64_t cached = 0;
    for (size_t i = 0; i < jobs.size(); ++i) {
      const auto result = end_of(*jobs[i]);
      ASSERT_NE(result, nullptr);
      EXPECT_EQ(result->generated.tokens, alone[i]) << i;
      cached += result->prompt.cached;
    }
    EXPECT_GE(cached, least_cached);
  };
  {
    Scheduler scheduler(new_engine(), seedling_tokenizer(), {.slots = 8, .prompt_rows = 16});
    expect_same(scheduler, {}, 0);           // together, and stored on disk
    expect_same(scheduler, {"auto"}, 4000);  // prefixes in memory, with drafts
  }
  Scheduler scheduler(new_engine(), seedling_tokenizer(), {.slots = 32, .prompt_rows = 48, .prompt_share = 1});
  expect_same(scheduler, {}, 4000);  // prefixes from the disk
}

TEST(Scheduler, RestoresPrefixesFromMemoryAndDisk) {
  const test::TemporaryFolder folder;
  JobRequest one = request(300, 3);
  one.session.disk_cache = std::make_shared<DiskCache>(folder.path(), int64_t{1} << 30);
  one.session.cache_block = 128;
  int64_t cached = -1;
  {
    Scheduler scheduler(new_engine(), seedling_tokenizer(), {});
    tokens_of(scheduler, one, &cached);
    EXPECT_EQ(cached, 0);
    tokens_of(scheduler, one, &cached);
    EXPECT_EQ(cached, 256);
  }
  Scheduler scheduler(new_engine(), seedling_tokenizer(), {});
  tokens_of(scheduler, one, &cached);
  EXPECT_EQ(cached, 256);
}

TEST(Scheduler, ALongPromptDoesNotHoldUpOthers) {
  Scheduler scheduler(new_engine(), seedling_tokenizer(), {.prompt_rows = 16});
  JobRequest long_prompt = request(900, 5, 1);
  long_prompt.report_progress = true;
  const auto writer = scheduler.submit(request(10, 1, 200));
  ASSERT_TRUE(writer->events.pop(std::chrono::seconds(60)).has_value());  // it writes
  const auto reader = scheduler.submit(long_prompt);
  int64_t pieces = 0;
  for (bool ended = false; !ended;) {
    const auto event = reader->events.pop(std::chrono::seconds(60));
    ASSERT_TRUE(event.has_value());
    ended = std::holds_alternative<std::shared_ptr<const JobResult>>(*event);
  }
  while (const auto event = writer->events.pop(std::chrono::milliseconds(0)))
    pieces += std::holds_alternative<std::string>(*event);
  EXPECT_GE(pieces, 40) << "text while about 56 parts of the prompt were read";
  scheduler.cancel(*writer);
}

TEST(Scheduler, RefusesAndCancels) {
  Scheduler scheduler(new_engine(), seedling_tokenizer(), {.slots = 1, .queue = 2, .client_jobs = 3});
  JobRequest endless = request(10, 1, 100'000);
  endless.client = "a";
  const auto first = scheduler.submit(endless);
  while (scheduler.stats().running == 0) std::this_thread::yield();
  std::vector<std::shared_ptr<Job>> waiting;
  for (int i = 0; i < 2; ++i) waiting.push_back(scheduler.submit(endless));
  EXPECT_THROW(scheduler.submit(endless), Refused);
  for (const auto& job : {first, waiting[0]}) {
    scheduler.cancel(*job);
    JobError error;
    EXPECT_EQ(end_of(*job, &error), nullptr);
    EXPECT_EQ(error.status, 503);
  }
  JobRequest wrong = request(10, 1);
  wrong.client = "b";
  wrong.session.attend = "no-such-method";
  scheduler.cancel(*waiting[1]);
  JobError error;
  const auto submit_when_there_is_room = [&](const JobRequest& one) {
    for (;;) {
      try {
        return scheduler.submit(one);
      } catch (const Refused&) {
        std::this_thread::yield();
      }
    }
  };
  EXPECT_EQ(end_of(*submit_when_there_is_room(wrong), &error), nullptr);
  EXPECT_EQ(error.status, 400);
  const SchedulerStats stats = scheduler.stats();
  EXPECT_GE(stats.refused, 1);
  EXPECT_GE(stats.cancelled, 2);
  EXPECT_EQ(end_of(*submit_when_there_is_room(request(10, 1)))->generated.tokens.size(), 20u) << "it continues";
}

TEST(Scheduler, EndsJobsWhenItStops) {
  std::shared_ptr<Job> job;
  {
    Scheduler scheduler(new_engine(), seedling_tokenizer(), {});
    job = scheduler.submit(request(10, 1, 100'000));
  }
  JobError error;
  EXPECT_EQ(end_of(*job, &error), nullptr);
  EXPECT_EQ(error.message, "the server is stopping");
}

TEST(Scheduler, MemoryIsReleased) {
  const auto engine = new_engine();
  Scheduler scheduler(engine, seedling_tokenizer(), {});
  JobRequest one = request(500, 1);
  one.session.share_prefixes = false;
  for (int i = 0; i < 5; ++i) tokens_of(scheduler, one);
  const auto cancelled = scheduler.submit(one);
  scheduler.cancel(*cancelled);
  end_of(*cancelled);
  size_t used = 1;
  scheduler.run([&](Engine& own) { used = own.pages().budget()->in_use(); });
  while (scheduler.stats().running > 0) std::this_thread::yield();
  scheduler.run([&](Engine& own) { used = own.pages().budget()->in_use(); });
  EXPECT_EQ(used, 0u);
}

}  // namespace
}  // namespace fathom::serve
