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

/// A task and its label in records.
struct NamedTask {
  std::string label;    // the task's name, or its spec if that has parameters
  std::string summary;  // as in `fathom methods`
  std::shared_ptr<const Task> task;
};

/// Makes the tasks of these specs, in order. Throws Error (usage) for an unknown task and for one that is given
/// twice.
std::vector<NamedTask> make_tasks(const std::vector<std::string>& specs);

/// Every task is evaluated at every length under every method.
struct EvalPlan {
  std::vector<NamedTask> tasks;
  std::vector<int64_t> lengths;      // in tokens, the reserve for the answer included
  std::vector<MethodSpecs> methods;  // the first is the baseline
  int64_t samples = 20;
  uint64_t seed = 1;
  const Haystack* haystack = nullptr;
  TrialOptions trial;
};

/// Callbacks that report the progress of an evaluation.
struct EvalProgress {
  std::function<void(const std::string& cell)>
      cell;                                     // called when a cell starts; receives its task, length and method
  std::function<void(int64_t tokens)> done;     // receives the planned tokens done so far
  std::function<void(int64_t tokens)> skipped;  // receives further planned tokens that earlier runs have done
};

/// Runs a plan and collects its records.
class Evaluation {
 public:
  Evaluation(EvalPlan plan, RecordLog& log) : plan_(std::move(plan)), log_(log) {}

  /// Returns the number of tokens of the whole plan for this number of models: the sum of the lengths of all
  /// samples.
  int64_t planned_tokens(int64_t models) const;
  /// Makes the first sample of each task and length for this model and opens a session under each method. Throws
  /// Error if one of them fails.
  void check(const EvalModel& model) const;
  /// Runs the samples that the log does not contain. Throws Error, also when interrupted; finished samples are then
  /// in the log.
  void run(const EvalModel& model, const EvalProgress& progress = {});

  /// One record per model, task, length, method and sample, in this order, including those of earlier runs.
  const std::vector<Record>& records() const { return records_; }
  /// One summary per model, task, length and method of these records.
  std::vector<Record> summaries() const;
  /// Facts about each task for reports: name, summary, measure, and the mean evidence_axes of some samples.
  std::vector<Record> task_facts() const;

 private:
  struct Cell;
  struct Batch;
  int64_t count(const Task& task) const;
  TaskInput input(const PromptMaker& maker) const;
  void check_read_context(const EvalModel& model, const PromptMaker& maker, const NamedTask& task,
                          int64_t length) const;
  Batch next_batch(const Cell& cell, int64_t& index) const;
  void run_cell(const Cell& cell);
  void run_batch(const Cell& cell, Batch& batch);
  std::vector<size_t> missing(const Batch& batch, size_t method) const;
  void check_drafts(const Cell& cell, const Batch& batch, size_t sample, size_t method,
                    const Outcome& outcome) const;
  Record describe(const Cell& cell, const Batch& batch, size_t sample, size_t method) const;
  Record record(const Cell& cell, const Batch& batch, size_t sample, size_t method, const Outcome& outcome) const;
  void measure_evidence(const Cell& cell, const Batch& batch);

  EvalPlan plan_;
  RecordLog& log_;
  std::vector<Record> records_;
  std::map<std::string, std::vector<Record>> facts_;  // evidence_axes of the first samples of each task
  int64_t tokens_done_ = 0;
};

}  // namespace fathom::eval
