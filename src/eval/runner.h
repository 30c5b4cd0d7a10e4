#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/record_log.h"
#include "eval/task.h"
#include "eval/trial.h"

namespace fathom::eval {

/// A task as the user named it.
struct NamedTask {
  std::string label;    // in records: the task's name, or its spec where that has parameters
  std::string summary;  // what `fathom methods` says of it
  std::shared_ptr<const Task> task;
};

/// The tasks of these specs, in order. Throws Error (usage) for unknown ones and for one that is named twice.
std::vector<NamedTask> make_tasks(const std::vector<std::string>& specs);

/// What is to be evaluated: every task at every length under every method.
struct EvalPlan {
  std::vector<NamedTask> tasks;
  std::vector<int64_t> lengths;      // tokens, the answer's reserve included
  std::vector<MethodSpecs> methods;  // the first is the baseline of the others
  int64_t samples = 20;
  uint64_t seed = 1;
  const Haystack* haystack = nullptr;
  TrialOptions trial;
};

/// What an evaluation tells while it works.
struct EvalProgress {
  std::function<void(const std::string& cell)> at;  // which task, length and method
  std::function<void(int64_t tokens)> done;         // planned tokens done so far
  std::function<void(int64_t tokens)> skipped;      // that need not be done, since they were done before
};

/// Runs a plan, and keeps what comes of it.
class Evaluation {
 public:
  Evaluation(EvalPlan plan, RecordLog& log) : plan_(std::move(plan)), log_(log) {}

  /// Tokens to be read if nothing was done before: of all models' samples the lengths.
  int64_t planned_tokens(int64_t models) const;
  /// Makes the first sample of each task and length for this model. Throws Error for what cannot be made.
  void check(const EvalModel& model) const;
  /// Runs what the log does not have yet. Throws Error, also when interrupted; what was done is in the log.
  void run(const EvalModel& model, const EvalProgress& progress = {});

  /// One record per model, task, length, method and sample, in this order, earlier runs' included.
  const std::vector<Record>& records() const { return records_; }
  /// One per cell of those, over its samples.
  std::vector<Record> summaries() const;
  /// What is known of each task, for reports: name, summary, measure, and how the evidence lies in the text.
  std::vector<Record> task_facts() const;

 private:
  struct Cell;
  struct Batch;
  int64_t count(const Task& task) const;
  TaskInput input(const PromptMaker& maker) const;
  Batch next_batch(const Cell& cell, int64_t& index) const;
  void run_cell(const Cell& cell);
  void run_batch(const Cell& cell, Batch& batch);
  std::vector<size_t> missing(const Batch& batch, size_t method) const;
  Record describe(const Cell& cell, const Batch& batch, size_t sample, size_t method) const;
  Record record(const Cell& cell, const Batch& batch, size_t sample, size_t method, const Outcome& outcome) const;
  void observe(const Cell& cell, const Batch& batch);

  EvalPlan plan_;
  RecordLog& log_;
  std::vector<Record> records_;
  std::map<std::string, std::vector<Record>> facts_;  // of some samples of each task
  int64_t tokens_done_ = 0;
};

}  // namespace fathom::eval
