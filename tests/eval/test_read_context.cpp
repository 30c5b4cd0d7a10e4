// Evaluations whose prompts begin with a context that was read before.
#include <gtest/gtest.h>

#include "base/error.h"
#include "eval/runner.h"
#include "seedling_model.h"
#include "task_bench.h"
#include "temporary_folder.h"

namespace fathom::eval {
namespace {

const std::string& long_text() {
  static const std::string text = [] {
    Rng rng(1, "", 0, 0);
    return prose_haystack()->text(rng, 600);
  }();
  return text;
}

/// A plan of one task on long_text(), with 3 samples of 500 tokens in chunks of 64.
EvalPlan reading_plan(const std::string& task, const MethodSpecs& method) {
  static const auto text = text_haystack("text", long_text(), {.from_start = true});
  TrialOptions trial;
  trial.chunk = 64;
  return {make_tasks({task}), {500}, {method}, 3, 1, text.get(), trial};
}

/// Reads a text under a method, in chunks of 64, and saves it.
std::shared_ptr<const ContextFile> read_and_save(const std::string& text, const MethodSpecs& method,
                                                 const std::string& path) {
  SessionOptions options = SessionOptions::of(method);
  options.chunk = 64;
  Session session(seedling().model, seedling().runtime, options);
  session.append(seedling().tokenizer->encode(text, {true, false}));
  session.save(path);
  return std::make_shared<const ContextFile>(path);
}

std::vector<Record> evaluated(EvalPlan plan) {
  RecordLog log;
  Evaluation evaluation(std::move(plan), log);
  evaluation.check(seedling());
  evaluation.run(seedling());
  return evaluation.records();
}

/// Returns the records without times, and without the shares of attention, which count only what was read.
std::vector<std::string> comparable(std::vector<Record> records) {
  std::vector<std::string> lines;
  for (Record& record : records) {
    for (const char* field : {"seconds", "selecting_share", "prefill_tokens_per_second", "decode_tokens_per_second",
                              "peak_rss_bytes", "keys_attended_share", "context_tokens"})
      record.erase(field);
    lines.push_back(record.dump());
  }
  return lines;
}

std::string check_error(const EvalPlan& plan) {
  RecordLog log;
  try {
    Evaluation(plan, log).check(seedling());
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ReadContexts, ResultsHaveTheBitsOfReadingEverything) {
  const test::TemporaryFolder folder;
  const std::string introduction = "Read the text below and remember the secret code that stands in it.\n\n";
  for (const MethodSpecs& method :
       {MethodSpecs{}, MethodSpecs{.cache = "q8"}, MethodSpecs{.attend = "quest:budget=128"},
        MethodSpecs{.attend = "tokenselect:budget=128"}, MethodSpecs{.position = "yarn:factor=2"}}) {
    for (const std::string task : {"perplexity:from=300", "needle:depths=2"}) {
      SCOPED_TRACE(method.label() + ", " + task);
      const std::string begin = task.starts_with("needle") ? introduction : "";
      const auto file = read_and_save(begin + long_text().substr(0, 1000), method, folder.file("a.ctx"));
      EvalPlan plan = reading_plan(task, method);
      const std::vector<std::string> expected = comparable(evaluated(plan));
      plan.trial.read_context = std::make_shared<const ReadContext>(file, plan.trial.chunk);
      const std::vector<Record> found = evaluated(plan);
      EXPECT_EQ(comparable(found), expected);
      int64_t taken = 0;
      for (const Record& record : found) {
        const auto tokens = record["context_tokens"].get<int64_t>();
        EXPECT_EQ(tokens % 64, 0);
        EXPECT_LE(tokens, std::ssize(file->tokens()));
        taken = std::max(taken, tokens);
      }
      EXPECT_GE(taken, 192);
    }
  }
}

TEST(ReadContexts, DensePrefillTakesTheContextUnderOtherMethods) {
  const test::TemporaryFolder folder;
  const std::string begin = "Read the text below and remember the secret code that stands in it.\n\n";
  const auto file = read_and_save(begin + long_text().substr(0, 1000), {}, folder.file("a.ctx"));
  EvalPlan plan = reading_plan("needle:depths=2", {});
  plan.methods.push_back({.attend = "quest:budget=64,dense_layers=0"});
  plan.trial.share_prefill = true;
  const std::vector<std::string> expected = comparable(evaluated(plan));
  plan.trial.read_context = std::make_shared<const ReadContext>(file, plan.trial.chunk);
  EXPECT_EQ(comparable(evaluated(plan)), expected);
  plan.trial.share_prefill = false;
  EXPECT_NE(check_error(plan).find("found --attend quest:budget=64,dense_layers=0"), std::string::npos)
      << check_error(plan);
}

TEST(ReadContexts, UnsuitableContextsAreErrorsBeforeTheRun) {
  const test::TemporaryFolder folder;
  const auto error_of = [&](const std::string& text, const MethodSpecs& read, const MethodSpecs& method,
                            const std::string& task) {
    EvalPlan plan = reading_plan(task, method);
    plan.trial.read_context =
        std::make_shared<const ReadContext>(read_and_save(text, read, folder.file("a.ctx")), plan.trial.chunk);
    return check_error(plan);
  };
  const std::string own = long_text().substr(0, 1000), other = long_text().substr(700, 1000);
  EXPECT_EQ(error_of(own, {}, {}, "perplexity:from=300"), "no error");
  EXPECT_NE(error_of(other, {}, {}, "perplexity:from=300").find("no prompt begins with the text of the context"),
            std::string::npos);
  EXPECT_NE(error_of(own, {}, {}, "perplexity").find("predictions from token 1 on are measured"),
            std::string::npos);
  EXPECT_NE(
      error_of(own, {}, {.cache = "q8"}, "perplexity:from=300").find("read with --cache bf16, found --cache q8"),
      std::string::npos);
  EXPECT_NE(error_of(own, {}, {.position = "ntk:factor=2"}, "perplexity:from=300").find("other rotary positions"),
            std::string::npos);
  EXPECT_THROW(ReadContext(read_and_save(own, {.evict = "streaming:budget=128"}, folder.file("b.ctx")), 64), Error);
}

TEST(ReadContexts, PerplexityMeasuresTokensFromTheGivenOneOn) {
  const Record all = evaluated(reading_plan("perplexity", {}))[0];
  const Record late = evaluated(reading_plan("perplexity:from=256", {}))[0];
  EXPECT_EQ(late["prompt_hash"], all["prompt_hash"]);
  EXPECT_FALSE(late["details"].contains("to_256"));
  EXPECT_NEAR(late["details"]["to_512"].get<double>(), all["details"]["to_512"].get<double>(), 1e-6);
  EXPECT_DOUBLE_EQ(late["score"].get<double>(), late["details"]["to_512"].get<double>());
  EXPECT_NE(check_error(reading_plan("perplexity:from=500", {})).find("leaves nothing to measure"),
            std::string::npos);
}

}  // namespace
}  // namespace fathom::eval
