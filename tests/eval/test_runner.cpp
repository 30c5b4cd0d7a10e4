// Tests of prompts, of trials with several methods, of evaluations, and of the record log.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/error.h"
#include "decode/generate.h"
#include "eval/prompts.h"
#include "eval/runner.h"
#include "eval/summary.h"
#include "seedling_model.h"
#include "task_bench.h"

namespace fathom::eval {
namespace {

class RunFolder {
 public:
  RunFolder() : path_(std::filesystem::temp_directory_path() / ("fathom-runner-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~RunFolder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

// --- prompts ---

Sample forced(const std::string& text, std::vector<TextSpan> scored) {
  Sample sample;
  sample.mode = Sample::Mode::kForced;
  sample.chat = false;
  sample.context = text;
  sample.scored = std::move(scored);
  return sample;
}

TEST(Prompts, ScoredTokensAreThoseOfTheSpans) {
  const PromptMaker maker(*seedling().tokenizer, nullptr);
  const std::string text = "The harbour was silver in the morning, extraordinarily silver.";
  const std::vector<TextSpan> spans = {{4, 11}, {38, 54}, {55, 61}};  // harbour, extraordinarily, silver
  const Prompt prompt = maker.make(forced(text, spans), 1000);
  std::vector<std::string> words(3);
  for (size_t i = 0; i < prompt.scored.size(); ++i)
    words[prompt.span_of[i]] += seedling().tokenizer->piece(prompt.tokens[prompt.scored[i]]);
  EXPECT_EQ(words, (std::vector<std::string>{" harbour", " extraordinarily", " silver"}));
}

TEST(Prompts, SpansThatCoverTheTextScoreEveryTokenButTheFirst) {
  const PromptMaker maker(*seedling().tokenizer, nullptr);
  const std::string text = "Caf\xc3\xa9 noir, \xe4\xb8\xad\xe6\x96\x87\n and more.";
  const Prompt prompt = maker.make(forced(text, {{0, 5}, {5, text.size()}}), 1000);
  EXPECT_EQ(prompt.scored.size() + 1, prompt.tokens.size());
  EXPECT_TRUE(std::ranges::is_sorted(prompt.scored));
}

TEST(Prompts, MiddleIsCutIfTheSampleAllowsIt) {
  const PromptMaker maker(*seedling().tokenizer, nullptr);
  Sample sample;
  for (int i = 0; i < 500; ++i) sample.context += "word" + std::to_string(i) + " ";
  sample.question = "What was the first word?";
  sample.lead = "\nAnswer:";
  sample.reserve = 20;
  EXPECT_THROW(maker.make(sample, 200), Error);
  sample.cut_middle = true;
  const Prompt prompt = maker.make(sample, 200);
  EXPECT_TRUE(prompt.cut);
  EXPECT_LE(prompt.tokens.size() + sample.reserve, 200u);
  EXPECT_GE(prompt.tokens.size() + sample.reserve, 190u);
  const std::string text = seedling().tokenizer->decode(prompt.tokens);
  EXPECT_NE(text.find("word0 word1 "), std::string::npos);
  EXPECT_EQ(text.find("word250"), std::string::npos);
  EXPECT_TRUE(text.ends_with("What was the first word?\nAnswer:")) << text;
  EXPECT_THROW(maker.make(sample, 25), Error);
}

TEST(Prompts, ChatPutsTheLeadAfterTheAssistantMarker) {
  const auto chat = std::make_shared<ChatTemplate>(
      "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] ", "", "");
  const PromptMaker maker(*seedling().tokenizer, chat);
  Sample sample;
  sample.context = "Some text. ", sample.question = "A question?", sample.lead = "The answer is";
  const Prompt prompt = maker.make(sample, 100);
  EXPECT_EQ(seedling().tokenizer->decode(prompt.tokens),
            "[user] Some text. A question?\n[assistant] The answer is");
  EXPECT_EQ(maker.measure(sample), static_cast<int64_t>(prompt.tokens.size()));
  const std::string head = seedling().tokenizer->decode(std::span(prompt.tokens).first(prompt.context_tokens));
  EXPECT_TRUE(std::string("[user] Some text. ").starts_with(head)) << head;
  EXPECT_GE(head.size(), 15u);
}

TEST(Prompts, PredictionsAreMeasuredInPlainTextInAChatToo) {
  const auto chat = std::make_shared<ChatTemplate>("[{{ messages[0].content }}]", "", "");
  Sample sample = forced("One two three.", {{4, 7}});
  sample.chat = true;
  EXPECT_EQ(PromptMaker(*seedling().tokenizer, chat).make(sample, 100).tokens,
            PromptMaker(*seedling().tokenizer, nullptr).make(sample, 100).tokens);
}

// --- methods side by side ---

struct PreparedSamples {
  std::vector<Sample> samples;
  std::vector<Prompt> prompts;
};
PreparedSamples prepare(const std::string& spec, int64_t length, int64_t count) {
  static const auto prose = prose_haystack();
  const PromptMaker maker(*seedling().tokenizer, nullptr);
  const TaskInput input{[&](std::string_view text) { return maker.count(text); },
                        [&](const Sample& sample) { return maker.measure(sample); }, prose.get(), 1};
  PreparedSamples prepared;
  for (int64_t i = 0; i < count; ++i) {
    prepared.samples.push_back(task_of(spec)->make(input, length, i));
    prepared.prompts.push_back(maker.make(prepared.samples.back(), length));
  }
  return prepared;
}
std::vector<size_t> all_of(const PreparedSamples& prepared) {
  std::vector<size_t> all(prepared.samples.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  return all;
}
std::vector<Outcome> run(const PreparedSamples& prepared, const MethodSpecs& method, TrialOptions options = {}) {
  return Trial(seedling(), prepared.samples, prepared.prompts, options, nullptr)
      .run(method, all_of(prepared), false);
}

const MethodSpecs kDense, kWindow{"window:sink=0,window=64"}, kWide{"window:sink=0,window=1m"};

TEST(Trial, AnswersEqualTheOnesOfTheEngine) {
  const PreparedSamples prepared = prepare("needle", 512, 3);
  const std::vector<Outcome> outcomes = run(prepared, kDense);
  for (size_t i = 0; i < prepared.samples.size(); ++i) {
    Session session(seedling().model, seedling().runtime);
    session.append(prepared.prompts[i].tokens);
    Sampler greedy;
    const Generated generated =
        generate(session, *seedling().tokenizer, greedy, prepared.prompts[i].tokens,
                 {.max_tokens = prepared.samples[i].reserve, .stop = prepared.samples[i].stop});
    EXPECT_EQ(outcomes[i].answer.text, generated.text);
    EXPECT_STREQ(outcomes[i].stop, name(generated.stop));
    EXPECT_NE(generated.text.find(prepared.samples[i].references[0]), std::string::npos)
        << "the model answers this easy sample";
  }
}

TEST(Trial, AnswersDoNotDependOnConcurrency) {
  const PreparedSamples prepared = prepare("niah_single_2", 512, 5);
  const std::vector<Outcome> alone = run(prepared, kDense), together = run(prepared, kDense, {.concurrency = 4});
  for (size_t i = 0; i < prepared.samples.size(); ++i) EXPECT_EQ(alone[i].tokens, together[i].tokens);
}

TEST(Trial, DraftsChangeNoAnswerAndSavePasses) {
  for (const char* task : {"niah_single_2", "needle"}) {
    const PreparedSamples prepared = prepare(task, 512, 4);
    const std::vector<Outcome> plain = run(prepared, kDense);
    TrialOptions options{.concurrency = 3};
    options.draft = {{"auto"}, 4};
    const std::vector<Outcome> drafted = run(prepared, kDense, options);
    options.check_drafts = true;
    const std::vector<Outcome> checked = run(prepared, kDense, options);
    double most = 0;
    for (size_t i = 0; i < prepared.samples.size(); ++i) {
      EXPECT_EQ(plain[i].tokens_per_forward, 0);
      for (const Outcome& outcome : {drafted[i], checked[i]}) {
        EXPECT_EQ(outcome.tokens, plain[i].tokens) << task;
        EXPECT_EQ(outcome.answer.text, plain[i].answer.text) << task;
        EXPECT_STREQ(outcome.stop, plain[i].stop) << task;
        EXPECT_FALSE(outcome.plain_text.has_value());
        EXPECT_GE(outcome.tokens_per_forward, 1);
        most = std::max(most, outcome.tokens_per_forward);
      }
    }
    EXPECT_GT(most, 1.3) << task;
  }
}

TEST(Trial, TokenThatEndsAnAnswerIsIncludedWithDraftsToo) {
  const PreparedSamples prepared = prepare("needle", 512, 3);
  EvalModel model = seedling();
  Vocabulary vocabulary = model.tokenizer->vocabulary();
  vocabulary.end_of_generation = {run(prepared, kDense)[0].tokens.back()};
  model.tokenizer = std::make_shared<Tokenizer>(vocabulary);
  TrialOptions options;
  const auto outcomes = [&] {
    return Trial(model, prepared.samples, prepared.prompts, options, nullptr).run(kDense, all_of(prepared), false);
  };
  const std::vector<Outcome> plain = outcomes();
  ASSERT_STREQ(plain[0].stop, "eos");
  for (const char* draft : {"suffix", "recycle", "self"}) {
    options.draft = {{draft}, 8};
    const std::vector<Outcome> drafted = outcomes();
    for (size_t i = 0; i < prepared.samples.size(); ++i) {
      EXPECT_EQ(drafted[i].tokens, plain[i].tokens) << draft;
      EXPECT_STREQ(drafted[i].stop, plain[i].stop) << draft;
    }
  }
}

TEST(Trial, DraftsContinueWhatAReaderKept) {
  const PreparedSamples prepared = prepare("niah_single_2", 512, 2);
  const MethodSpecs reader{.read = "infiniretri"};
  TrialOptions options{.check_drafts = true};
  options.draft = {{"self", "suffix"}, 4};
  const std::vector<Outcome> plain = run(prepared, reader), drafted = run(prepared, reader, options);
  for (size_t i = 0; i < prepared.samples.size(); ++i) {
    EXPECT_EQ(drafted[i].tokens, plain[i].tokens);
    EXPECT_FALSE(drafted[i].plain_text.has_value());
  }
}

TEST(Trial, ComparisonsAreTheSameWithDrafts) {
  const PreparedSamples prepared = prepare("needle", 512, 2);
  TrialOptions options;
  options.draft = {{"suffix"}, 4};
  Trial plain(seedling(), prepared.samples, prepared.prompts, {}, nullptr),
      drafted(seedling(), prepared.samples, prepared.prompts, options, nullptr);
  for (const MethodSpecs& method : {kDense, kWindow}) {
    const std::vector<Outcome> expected = plain.run(method, all_of(prepared), true),
                               found = drafted.run(method, all_of(prepared), true);
    for (size_t i = 0; i < prepared.samples.size(); ++i) {
      EXPECT_EQ(found[i].tokens, expected[i].tokens);
      EXPECT_EQ(found[i].same, expected[i].same);
      EXPECT_EQ(found[i].kl, expected[i].kl);
    }
  }
}

TEST(Trial, SharedPrefillGivesTheSameAnswers) {
  PreparedSamples prepared = prepare("needle", 512, 1);
  prepared.samples.resize(3, prepared.samples[0]);
  prepared.samples[1].question = "\nQuestion: What is the secret code of nobody?\n";
  prepared.samples[2].lead = "Answer: The code is";
  const PromptMaker maker(*seedling().tokenizer, nullptr);
  for (size_t i = 0; i < 3; ++i) {
    prepared.samples[i].group = "document";
    prepared.prompts.resize(3);
    prepared.prompts[i] = maker.make(prepared.samples[i], 600);
  }
  const std::vector<Outcome> shared = run(prepared, kDense),
                             read_densely = run(prepared, kDense, {.share_prefill = true});
  for (size_t i = 0; i < 3; ++i) {
    PreparedSamples one{{prepared.samples[i]}, {prepared.prompts[i]}};
    EXPECT_EQ(run(one, kDense)[0].tokens, shared[i].tokens);
    EXPECT_EQ(read_densely[i].tokens, shared[i].tokens);
  }
  EXPECT_GT(shared[0].reading.visible, 5 * shared[1].reading.visible) << "the document is prefilled once";
}

TEST(Trial, AMethodThatAttendsToEverythingEqualsTheBaseline) {
  const PreparedSamples prepared = prepare("needle", 512, 3);
  Trial trial(seedling(), prepared.samples, prepared.prompts, {.concurrency = 3}, nullptr);
  for (const Outcome& outcome : trial.run(kDense, all_of(prepared), true)) {
    EXPECT_FALSE(outcome.kl.has_value());
    EXPECT_FALSE(outcome.same.has_value());
    EXPECT_EQ(outcome.reading.attended, outcome.reading.visible);
  }
  for (const Outcome& outcome : trial.run(kWide, all_of(prepared), true)) {
    EXPECT_EQ(outcome.same, 1.0);
    EXPECT_LT(outcome.kl.value(), 1e-6);
  }
}

/// Returns the log softmax of a row.
std::vector<double> log_softmax(std::span<const float> row) {
  double sum = 0;
  for (const float v : row) sum += std::exp(static_cast<double>(v));
  std::vector<double> logs;
  for (const float v : row) logs.push_back(v - std::log(sum));
  return logs;
}

TEST(Trial, DivergenceIsMeasuredAtTheBaselinesAnswerTokens) {
  const PreparedSamples prepared = prepare("needle", 512, 1);
  Trial trial(seedling(), prepared.samples, prepared.prompts, {}, nullptr);
  const std::vector<int32_t> answer = trial.run(kDense, all_of(prepared), true)[0].tokens;
  const Outcome windowed = trial.run(kWindow, all_of(prepared), true)[0];
  EXPECT_EQ(windowed.same, 0.0);
  EXPECT_NE(windowed.tokens, answer) << "the answers must differ for a replay";
  Session dense(seedling().model, seedling().runtime),
      window(seedling().model, seedling().runtime, {.attend = kWindow.attend});
  dense.append(prepared.prompts[0].tokens);
  window.append(prepared.prompts[0].tokens);
  double kl = 0;
  for (size_t i = 0; i < answer.size(); ++i) {
    const std::vector<double> p = log_softmax(dense.logits()), q = log_softmax(window.logits());
    for (size_t v = 0; v < p.size(); ++v) kl += std::exp(p[v]) * (p[v] - q[v]);
    dense.append({&answer[i], 1});
    window.append({&answer[i], 1});
  }
  EXPECT_NEAR(windowed.kl.value(), kl / static_cast<double>(answer.size()), 1e-4);
  EXPECT_GT(windowed.kl.value(), 0.1);
  EXPECT_LT(windowed.reading.attended, 0.5 * windowed.reading.visible);
}

TEST(Trial, ForcedSpansHaveTheLossOfTheirTokens) {
  const PreparedSamples prepared = prepare("perplexity", 300, 1);
  const Outcome outcome = run(prepared, kDense)[0];
  double expected = 0, found = 0;
  int64_t tokens = 0;
  Session session(seedling().model, seedling().runtime);
  AppendOptions options;
  options.on_logits = [&](int64_t row, std::span<const float> logits) {
    if (row + 1 < static_cast<int64_t>(prepared.prompts[0].tokens.size()))
      expected -= log_softmax(logits)[prepared.prompts[0].tokens[row + 1]];
  };
  session.append(prepared.prompts[0].tokens, options);
  for (const SpanScore& span : outcome.answer.spans) found += span.nll, tokens += span.tokens;
  EXPECT_NEAR(found, expected, 1e-3 * expected);
  EXPECT_EQ(tokens + 1, static_cast<int64_t>(prepared.prompts[0].tokens.size()));
}

// --- plans ---

EvalPlan plan(int64_t samples, std::vector<MethodSpecs> methods = {kDense, kWindow}) {
  static const auto prose = prose_haystack();
  return {make_tasks({"needle", "perplexity"}), {256, 300}, std::move(methods), samples, 1, prose.get(), {}};
}

/// Returns records without the fields that differ between runs.
std::vector<std::string> reproducible_lines(std::vector<Record> records) {
  std::vector<std::string> lines;
  for (Record& record : records) {
    for (const char* field :
         {"seconds", "selecting_share", "prefill_tokens_per_second", "decode_tokens_per_second", "peak_rss_bytes"})
      record.erase(field);
    lines.push_back(record.dump());
  }
  return lines;
}

std::vector<Record> records_of(EvalPlan plan, RecordLog& log) {
  Evaluation evaluation(std::move(plan), log);
  evaluation.check(seedling());
  evaluation.run(seedling());
  return evaluation.records();
}

size_t result_lines(const std::string& path) {
  std::ifstream file(path);
  size_t count = 0;
  for (std::string line; std::getline(file, line);) count += line.starts_with("{\"task\":") ? 1 : 0;
  return count;
}

TEST(Evaluation, HasOneRecordForEachTaskLengthMethodAndSample) {
  RecordLog log;
  const std::vector<Record> records = records_of(plan(3), log);
  std::set<std::string> keys;
  for (const Record& record : records) keys.insert(RecordLog::key(record));
  EXPECT_EQ(records.size(), 2u * 2 * 2 * 3);
  EXPECT_EQ(keys.size(), records.size());
}

TEST(Evaluation, ResumesAfterAnInterruptionWithoutRepeatingOrLosingSamples) {
  const RunFolder folder;
  RecordLog memory;
  const std::vector<std::string> whole = reproducible_lines(records_of(plan(3), memory));
  const std::string path = folder / "results.jsonl";
  int interruptions = 0;
  for (int64_t allowed_tokens = 600;; allowed_tokens += 1500) {  // each attempt gets further
    RecordLog log(path);
    Evaluation evaluation(plan(3), log);
    EvalProgress progress;
    progress.done = [&](int64_t tokens) {
      if (tokens > allowed_tokens) throw Error("killed", Error::Kind::kInterrupted);
    };
    try {
      evaluation.run(seedling(), progress);
      EXPECT_EQ(reproducible_lines(evaluation.records()), whole);
      break;
    } catch (const Error&) {
      ++interruptions;
    }
    std::ofstream(path, std::ios::app) << "{\"task\":\"needle\",\"len";  // as an interrupted write leaves it
  }
  EXPECT_GT(interruptions, 2);
  EXPECT_EQ(result_lines(path), whole.size());
}

TEST(Evaluation, AddsMethodsAndSamplesToEarlierResults) {
  const RunFolder folder;
  const std::string path = folder / "results.jsonl";
  {
    RecordLog log(path);
    records_of(plan(2, {kDense}), log);
  }
  EXPECT_EQ(result_lines(path), 8u);
  std::vector<std::string> extended;
  {
    RecordLog log(path);
    extended = reproducible_lines(records_of(plan(3), log));
  }
  EXPECT_EQ(result_lines(path), 24u);
  RecordLog fresh;
  EXPECT_EQ(extended, reproducible_lines(records_of(plan(3), fresh))) << "including the comparisons";
  const std::string before = read(path);
  {
    RecordLog log(path);
    records_of(plan(3), log);
  }
  EXPECT_EQ(read(path), before) << "no sample runs again";
}

TEST(Evaluation, ResultsWithDraftsHaveTheirOwnLabelAndTokensPerForward) {
  RecordLog log;
  EvalPlan drafts = plan(2, {kDense});
  drafts.tasks = make_tasks({"needle"});
  EvalPlan without = drafts;
  drafts.trial.draft = {{"suffix", "copy"}, 0};
  const std::vector<Record> plain = records_of(without, log), drafted = records_of(drafts, log);
  ASSERT_EQ(plain.size(), drafted.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(plain[i]["method"], "attend=dense");
    EXPECT_EQ(drafted[i]["method"], "attend=dense draft=suffix draft=copy");
    EXPECT_EQ(drafted[i]["answer"], plain[i]["answer"]);
    EXPECT_EQ(drafted[i]["generated_tokens"], plain[i]["generated_tokens"]);
    EXPECT_FALSE(plain[i].contains("tokens_per_forward"));
    EXPECT_GE(drafted[i]["tokens_per_forward"].get<double>(), 1);
  }
  EXPECT_FALSE(summarize(plain)[0].contains("tokens_per_forward"));
  const double mean =
      (drafted[0]["tokens_per_forward"].get<double>() + drafted[1]["tokens_per_forward"].get<double>()) / 2;
  EXPECT_DOUBLE_EQ(summarize(drafted)[0]["tokens_per_forward"].get<double>(), mean);
}

TEST(Evaluation, CheckNamesDraftsThatDoNotWorkWithAMethod) {
  RecordLog log;
  EvalPlan impossible = plan(1, {{.evict = "tova:share=0.5"}});
  impossible.trial.draft = {{"suffix"}, 0};
  try {
    Evaluation(impossible, log).check(seedling());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    EXPECT_NE(std::string(error.what()).find("--draft suffix"), std::string::npos) << error.what();
  }
}

TEST(Evaluation, SummaryIsTheMeanWithItsInterval) {
  RecordLog log;
  Evaluation evaluation(plan(4), log);
  evaluation.run(seedling());
  const std::vector<Record> summaries = evaluation.summaries();
  ASSERT_EQ(summaries.size(), 8u);
  for (const Record& summary : summaries) {
    double sum = 0;
    for (const Record& record : evaluation.records()) {
      if (record["task"] == summary["task"] && record["length"] == summary["length"] &&
          record["method"] == summary["method"])
        sum += record["score"].get<double>();
    }
    EXPECT_NEAR(summary["score"].get<double>(), sum / 4, 1e-12);
    EXPECT_LE(summary["low"].get<double>(), summary["score"].get<double>());
    EXPECT_GE(summary["high"].get<double>(), summary["score"].get<double>());
    EXPECT_EQ(summary["kl"].is_null(), summary["method"] == "attend=dense");
  }
}

TEST(Evaluation, AShortWindowScoresBelowDense) {
  RecordLog log;
  EvalPlan needles = plan(10);
  needles.tasks = make_tasks({"needle"});
  needles.lengths = {512};
  Evaluation evaluation(needles, log);
  evaluation.run(seedling());
  const std::vector<Record> summaries = evaluation.summaries();
  EXPECT_GE(summaries[0]["score"].get<double>(), 0.9);
  EXPECT_LE(summaries[1]["score"].get<double>(), 0.3);
  EXPECT_GT(summaries[0]["low"].get<double>(), summaries[1]["high"].get<double>());
}

TEST(Evaluation, CheckNamesATaskThatCannotBeMade) {
  RecordLog log;
  EvalPlan impossible = plan(1);
  impossible.lengths = {256, 30};
  try {
    Evaluation(impossible, log).check(seedling());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("task needle: needs at least"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("the length is 30"), std::string::npos) << error.what();
  }
}

TEST(Tasks, AreLabelledByTheirSpecAndUnique) {
  const auto tasks = make_tasks({"needle", "needle:depths=5", "vt"});
  EXPECT_EQ(tasks[0].label, "needle");
  EXPECT_EQ(tasks[1].label, "needle:depths=5");
  EXPECT_THROW(make_tasks({"needle", "needle"}), Error);
  EXPECT_THROW(make_tasks({"ruler", "vt"}), Error);
  try {
    make_tasks({"nedle"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("needle"), std::string::npos);
  }
}

// --- the log ---

const Record kRecord = {{"task", "t"}, {"length", 5}, {"method", "m"},      {"model_id", "x"},
                        {"seed", 1},   {"sample", 0}, {"prompt_hash", "h"}, {"score", 0.5}};

std::string log_error(const std::string& path) {
  try {
    RecordLog log(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(RecordLog, FindsRecordsOfAnEarlierRun) {
  const RunFolder folder;
  {
    RecordLog log(folder / "a");
    EXPECT_EQ(log.find(RecordLog::key(kRecord)), nullptr);
    log.add(RecordLog::key(kRecord), kRecord);
  }
  RecordLog log(folder / "a");
  ASSERT_NE(log.find(RecordLog::key(kRecord)), nullptr);
  EXPECT_EQ(*log.find(RecordLog::key(kRecord)), kRecord);
}

TEST(RecordLog, RejectsAndKeepsForeignFiles) {
  const RunFolder folder;
  for (const std::string text : {"hello\n", "{\"a\":1}\n", "{\"a\":1}", "{\"task\":\"t\",\"method\":\"m\"}\nnotes",
                                 "{\"task\":\"t\",\"method\":\"m\"}\n{\"task\"\n{}\n"}) {
    write(folder / "b", text);
    const std::string error = log_error(folder / "b");
    EXPECT_NE(error.find(folder / "b"), std::string::npos) << text << error;
    EXPECT_EQ(read(folder / "b"), text);
  }
  write(folder / "b", "{}\n\x80\n");
  EXPECT_NE(log_error(folder / "b").find("line 1"), std::string::npos);
  EXPECT_NE(log_error("/no/such/folder/file").find("/no/such/folder/file"), std::string::npos);
  EXPECT_NE(log_error("/dev/null").find("regular file"), std::string::npos);
}

TEST(RecordLog, IsLockedByOneRun) {
  const RunFolder folder;
  const RecordLog first(folder / "c");
  EXPECT_NE(log_error(folder / "c").find("another evaluation"), std::string::npos);
}

TEST(RecordLog, AFullDiskKeepsWhatWasWritten) {
  const RunFolder folder;
  RecordLog log(folder / "e");
  log.add("first", kRecord);
  const std::string before = read(folder / "e");
  rlimit unlimited{};
  ::getrlimit(RLIMIT_FSIZE, &unlimited);
  const rlimit full{before.size() + 10, unlimited.rlim_max};
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &full);
  std::string error;
  try {
    log.add("second", kRecord);
  } catch (const Error& failed) {
    error = failed.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &unlimited);
  ::signal(SIGXFSZ, handler);
  EXPECT_NE(error.find("earlier lines are kept"), std::string::npos) << error;
  EXPECT_EQ(read(folder / "e"), before);
  EXPECT_EQ(log.find("second"), nullptr);
}

TEST(RecordLog, WritesASummaryOnlyWhenItChanges) {
  const RunFolder folder;
  Record summary = {{"summary", true}, {"task", "t"}, {"method", "m"}, {"score", 1}};
  for (int run = 0; run < 2; ++run) {
    RecordLog log(folder / "d");
    log.add_summary(summary);
    log.add_summary(summary);
  }
  EXPECT_EQ(read(folder / "d"), summary.dump() + "\n");
  summary["score"] = 2;
  RecordLog(folder / "d").add_summary(summary);
  EXPECT_TRUE(read(folder / "d").ends_with(summary.dump() + "\n"));
}

}  // namespace
}  // namespace fathom::eval
