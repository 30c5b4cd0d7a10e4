#include "eval/runner.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/format.h"
#include "base/stopwatch.h"
#include "context/methods.h"
#include "eval/evidence.h"
#include "eval/summary.h"

namespace fathom::eval {
namespace {

/// Maximum number of samples of one group that run together.
constexpr int64_t kGroupSamples = 64;
/// Number of samples of a task whose evidence_axes are computed.
constexpr size_t kMeasuredSamples = 8;

/// Maximum number of samples in which Evaluation::check looks for the text of a context.
constexpr int64_t kCheckedSamples = 32;

std::string hex(uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(number));
  return text;
}

Record positive_or_null(double value) { return value > 0 ? Record(value) : Record(); }
Record share(double part, double whole) { return whole > 0 ? Record(part / whole) : Record(); }
template <class T>
Record value_or_null(const std::optional<T>& value) {
  return value ? Record(*value) : Record();
}

}  // namespace

/// The model, task and length that are being evaluated.
struct Evaluation::Cell {
  const EvalModel& model;
  const PromptMaker& maker;
  const NamedTask& task;
  int64_t length;
  const EvalProgress& progress;
};

/// Consecutive samples that run together.
struct Evaluation::Batch {
  std::vector<int64_t> indices;
  std::vector<Sample> samples;
  std::vector<Prompt> prompts;
  std::vector<std::vector<std::string>> keys;  // [method][sample]
  std::vector<std::vector<bool>> done;         // [method][sample]
};

std::vector<NamedTask> make_tasks(const std::vector<std::string>& specs) {
  std::vector<NamedTask> tasks;
  std::set<std::string> labels;
  for (const std::string& text : specs) {
    const Spec spec = parse_spec(text);
    const MethodInfo& info = task_methods().find(spec).info;
    for (auto& task : task_methods().make(text)) {
      const bool single = task->name() == info.name;
      std::string label = single && !spec.values.empty() ? spec.to_string() : task->name();
      if (!labels.insert(label).second) fail_usage("task ", label, " is given twice");
      tasks.push_back({std::move(label), info.summary, std::move(task)});
    }
  }
  return tasks;
}

int64_t Evaluation::count(const Task& task) const {
  return task.available() < 0 ? plan_.samples : std::min(plan_.samples, task.available());
}

int64_t Evaluation::planned_tokens(int64_t models) const {
  int64_t tokens = 0;
  for (const NamedTask& task : plan_.tasks) {
    for (const int64_t length : plan_.lengths)
      tokens += models * count(*task.task) * length * static_cast<int64_t>(plan_.methods.size());
  }
  return tokens;
}

TaskInput Evaluation::input(const PromptMaker& maker) const {
  return {[&maker](std::string_view text) { return maker.count(text); },
          [&maker](const Sample& sample) { return maker.measure(sample); }, plan_.haystack, plan_.seed};
}

void Evaluation::check(const EvalModel& model) const {
  const PromptMaker maker(*model.tokenizer, model.chat);
  const auto has_reader = [](const MethodSpecs& method) { return read_methods().make(method.read) != nullptr; };
  const bool any_reader = std::ranges::any_of(plan_.methods, has_reader);
  for (const NamedTask& task : plan_.tasks) {
    for (const int64_t length : plan_.lengths) {
      if (count(*task.task) == 0) continue;
      const Sample sample = task.task->make(input(maker), length, 0);
      maker.make(sample, length);
      check_read_context(model, maker, task, length);
      if (any_reader && sample.mode == Sample::Mode::kForced)
        fail_usage("task ", task.task->name(),
                   " measures predictions of the whole text, which --read shortens; leave out --read");
    }
  }
  for (const MethodSpecs& method : plan_.methods) {
    Session session(model.model, model.runtime,
                    {0, plan_.trial.chunk, method.attend, method.position, method.cache, method.evict});
    Drafter(plan_.trial.draft, {model.model, model.runtime, model.tokenizer.get(), &session});
  }
}

/// Throws Error unless the context that was read before, if there is one, can be opened under each method, and a
/// prompt begins with its text.
void Evaluation::check_read_context(const EvalModel& model, const PromptMaker& maker, const NamedTask& task,
                                    int64_t length) const {
  const ReadContext* context = plan_.trial.read_context.get();
  if (!context) return;
  int64_t common = 0, first_scored = 0;  // tokens
  for (int64_t index = 0; index < std::min(count(*task.task), kCheckedSamples); ++index) {
    const Sample sample = task.task->make(input(maker), length, index);
    for (const MethodSpecs& method : plan_.methods) {
      if (index > 0) break;
      const MethodSpecs reading = plan_.trial.reading_method(method, sample);
      context->check(reading);
      SessionOptions options = SessionOptions::of(reading);
      options.adapters = model.adapters;
      context->open(model.model, model.runtime, std::move(options));
    }
    const Prompt prompt = maker.make(sample, length);
    const int64_t unscored = unscored_tokens(sample, prompt);
    if (context->taken(prompt.tokens, unscored) > 0) return;
    common = std::max(common, context->taken(prompt.tokens, std::ssize(prompt.tokens)));
    first_scored = unscored + 1;
  }
  const std::string cell = concat("task ", task.label, ", length ", length, ": ", context->file().path());
  if (common > 0)
    fail_usage(cell, ": predictions from token ", first_scored, " on are measured, so those tokens must be read: ",
               "expected a task that measures only later ones, such as perplexity:from=", common);
  fail_usage(cell, ": no prompt begins with the text of the context: expected at least ", context->least(),
             " tokens in common");
}

void Evaluation::run(const EvalModel& model, const EvalProgress& progress) {
  const PromptMaker maker(*model.tokenizer, model.chat);
  for (const NamedTask& task : plan_.tasks) {
    for (const int64_t length : plan_.lengths) run_cell({model, maker, task, length, progress});
  }
}

/// Makes the next samples: those of one group, or up to `concurrency` samples without a group.
Evaluation::Batch Evaluation::next_batch(const Cell& cell, int64_t& index) const {
  Batch batch;
  const int64_t end = count(*cell.task.task);
  for (; index < end; ++index) {
    Sample sample = cell.task.task->make(input(cell.maker), cell.length, index);
    const bool fits =
        batch.samples.empty() || (sample.group == batch.samples[0].group &&
                                  static_cast<int64_t>(batch.samples.size()) <
                                      (sample.group.empty() ? plan_.trial.concurrency : kGroupSamples));
    if (!fits) break;
    try {
      batch.prompts.push_back(cell.maker.make(sample, cell.length));
    } catch (const Error& error) {
      throw Error(concat("task ", cell.task.label, ", sample ", index, ": ", error.what()), error.kind());
    }
    batch.samples.push_back(std::move(sample));
    batch.indices.push_back(index);
    if (batch.samples[0].group.empty() && static_cast<int64_t>(batch.samples.size()) == plan_.trial.concurrency) {
      ++index;
      break;
    }
  }
  for (size_t m = 0; m < plan_.methods.size(); ++m) {
    batch.keys.emplace_back();
    batch.done.emplace_back();
    for (size_t s = 0; s < batch.samples.size(); ++s) {
      batch.keys[m].push_back(RecordLog::key(describe(cell, batch, s, m)));
      batch.done[m].push_back(log_.find(batch.keys[m][s]) != nullptr);
    }
  }
  return batch;
}

void Evaluation::run_cell(const Cell& cell) {
  const size_t first = records_.size();
  std::vector<std::vector<Record>> by_method(plan_.methods.size());
  for (int64_t index = 0; index < count(*cell.task.task);) {
    Batch batch = next_batch(cell, index);
    measure_evidence(cell, batch);
    run_batch(cell, batch);
    for (size_t m = 0; m < plan_.methods.size(); ++m) {
      for (const std::string& key : batch.keys[m]) by_method[m].push_back(*log_.find(key));
    }
  }
  for (auto& records : by_method) records_.insert(records_.end(), records.begin(), records.end());
  for (const Record& summary : summarize(std::span(records_).subspan(first))) log_.add_summary(summary);
}

/// Returns the samples to run under a method: those without a record and, for the baseline, also those that another
/// method needs for comparison.
std::vector<size_t> Evaluation::missing(const Batch& batch, size_t method) const {
  std::vector<size_t> samples;
  for (size_t s = 0; s < batch.samples.size(); ++s) {
    bool needed = !batch.done[method][s];
    for (size_t m = 1; method == 0 && m < plan_.methods.size(); ++m) needed = needed || !batch.done[m][s];
    if (needed) samples.push_back(s);
  }
  return samples;
}

void Evaluation::run_batch(const Cell& cell, Batch& batch) {
  Trial trial(cell.model, batch.samples, batch.prompts, plan_.trial, [&](int64_t tokens) {
    if (cell.progress.done) cell.progress.done(tokens_done_ + tokens);
  });
  for (size_t m = 0; m < plan_.methods.size(); ++m) {
    if (cell.progress.cell)
      cell.progress.cell(concat(cell.task.label, " ", format_size(static_cast<double>(cell.length)), " ",
                                plan_.methods[m].label()));
    const std::vector<size_t> chosen = missing(batch, m);
    const auto skipped = static_cast<int64_t>(batch.samples.size() - chosen.size());
    if (cell.progress.skipped) cell.progress.skipped(skipped * cell.length);
    if (chosen.empty()) continue;
    const Stopwatch watch;
    const std::vector<Outcome> outcomes = trial.run(plan_.methods[m], chosen, plan_.methods.size() > 1);
    const double seconds = watch.seconds() / static_cast<double>(chosen.size());
    for (size_t i = 0; i < chosen.size(); ++i) {
      check_drafts(cell, batch, chosen[i], m, outcomes[i]);
      if (batch.done[m][chosen[i]]) continue;
      Record record = this->record(cell, batch, chosen[i], m, outcomes[i]);
      record["seconds"] = seconds;
      log_.add(batch.keys[m][chosen[i]], std::move(record));
    }
    tokens_done_ += static_cast<int64_t>(chosen.size()) * cell.length;
  }
}

/// Throws Error if the answers with and without drafts differ.
void Evaluation::check_drafts(const Cell& cell, const Batch& batch, size_t sample, size_t method,
                              const Outcome& outcome) const {
  if (!outcome.plain_text) return;
  fail("task ", cell.task.label, ", length ", cell.length, ", sample ", batch.indices[sample], ", ",
       method_label(plan_.methods[method], plan_.trial), ": the answer with drafts is ", quote(outcome.answer.text),
       ", expected the tokens of the answer without drafts, ", quote(*outcome.plain_text));
}

/// Returns the fields of a record that are known before the sample runs. They include those of its key.
Record Evaluation::describe(const Cell& cell, const Batch& batch, size_t sample, size_t method) const {
  return {{"task", cell.task.label},
          {"length", cell.length},
          {"method", method_label(plan_.methods[method], plan_.trial)},
          {"model", cell.model.name},
          {"model_id", cell.model.id},
          {"seed", plan_.seed},
          {"sample", batch.indices[sample]},
          {"prompt_hash", hex(batch.prompts[sample].hash())}};
}

Record Evaluation::record(const Cell& cell, const Batch& batch, size_t s, size_t method,
                          const Outcome& outcome) const {
  const Sample& sample = batch.samples[s];
  const Prompt& prompt = batch.prompts[s];
  const Score score = cell.task.task->score(sample, outcome.answer);
  const Measure measure = cell.task.task->measure();
  Record record = describe(cell, batch, s, method);
  record["score"] = score.value;
  record["measure"] = measure.name;
  record["higher_is_better"] = measure.higher_is_better;
  if (sample.mode == Sample::Mode::kGenerate) {
    record["answer"] = outcome.answer.text;
    record["stop"] = outcome.stop;
  }
  record["reference"] = sample.references;
  record["prompt_tokens"] = prompt.tokens.size();
  record["prompt_chars"] = sample.prompt().size();
  if (prompt.cut) record["cut_middle"] = true;
  record["generated_tokens"] = sample.mode == Sample::Mode::kGenerate ? outcome.tokens.size() : 0;
  if (sample.depth) record["depth"] = *sample.depth;
  if (!sample.evidence.empty())
    record["answer_offset"] = cell.maker.count(sample.prompt().substr(0, sample.evidence[0].begin));
  record["prefill_tokens_per_second"] = positive_or_null(outcome.prefill_tokens_per_second);
  record["decode_tokens_per_second"] = positive_or_null(outcome.decode_tokens_per_second);
  if (!plan_.trial.draft.methods.empty())
    record["tokens_per_forward"] = positive_or_null(outcome.tokens_per_forward);
  if (plan_.trial.read_context) record["context_tokens"] = outcome.context_tokens;
  AttentionCount all = outcome.reading;
  all += outcome.answering;
  record["keys_attended_share"] = share(all.attended, all.visible);
  record["answer_keys_attended_share"] = share(outcome.answering.attended, outcome.answering.visible);
  record["selecting_share"] = share(all.selecting, all.running);
  record["cache_bytes"] = outcome.cache_bytes;
  record["peak_rss_bytes"] = outcome.peak_rss_bytes;
  record["same_answer"] = value_or_null(outcome.same);
  record["kl"] = value_or_null(outcome.kl);
  record["details"] = score.details.is_object() ? score.details : Record::object();
  if (!sample.details.empty()) record["about"] = sample.details;
  return record;
}

void Evaluation::measure_evidence(const Cell& cell, const Batch& batch) {
  std::vector<Record>& facts = facts_[cell.task.label];
  for (const Sample& sample : batch.samples) {
    if (facts.size() < kMeasuredSamples) facts.push_back(evidence_axes(sample));
  }
}

std::vector<Record> Evaluation::summaries() const { return summarize(records_); }

std::vector<Record> Evaluation::task_facts() const {
  std::vector<Record> tasks;
  for (const NamedTask& task : plan_.tasks) {
    const Measure measure = task.task->measure();
    Record facts = {{"name", task.label},
                    {"summary", task.summary},
                    {"measure", measure.name},
                    {"higher_is_better", measure.higher_is_better}};
    const auto measured = facts_.find(task.label);
    for (const char* axis : {"scope", "spans", "spread", "overlap"}) {
      double sum = 0, count = 0;
      if (measured == facts_.end()) break;
      for (const Record& sample : measured->second) {
        if (sample.contains(axis)) sum += sample[axis].get<double>(), ++count;
      }
      if (count > 0) facts[axis] = sum / count;
    }
    tasks.push_back(std::move(facts));
  }
  return tasks;
}

}  // namespace fathom::eval
