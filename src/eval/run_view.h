#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/json.h"
#include "eval/statistics.h"
#include "eval/task.h"

namespace fathom::eval {

/// The results of one model, task, length and method, or their means.
using RunSummary = Json;

/// A run of `fathom eval` indexed for reports. Refers to the JSON from which it was made.
struct RunView {
  using Key = std::tuple<std::string, std::string, int64_t, std::string>;  // model, task, length, method

  // In the order of the run; names that only occur in summaries come last.
  std::vector<std::string> models, tasks, methods;
  std::vector<int64_t> lengths;                // ascending
  std::map<std::string, Measure> measures;     // of each task
  std::map<Key, const RunSummary*> summaries;  // those with a score

  /// Returns the summary of these names, or nullptr if there is none.
  const RunSummary* find(const std::string& model, const std::string& task, int64_t length,
                         const std::string& method) const;
  /// Returns the method with which others are compared; empty if there are no methods.
  std::string baseline() const { return methods.empty() ? std::string() : methods.front(); }
};

/// Indexes the record of a run. Ignores summaries without length or score.
RunView view_run(const Json& run);

/// Returns the number at `key`, or nothing if it is missing, not a number or not finite.
std::optional<double> number_at(const Json& object, std::string_view key);
/// Returns the text at `key`, or an empty text if it is missing or not a text.
std::string text_at(const Json& object, std::string_view key);
/// Returns the array at `key`, or an empty array if it is missing or not an array.
const Json& items_at(const Json& object, std::string_view key);

/// Returns the interval of a summary; an interval of width 0 at its score if it has none.
Interval interval_of(const RunSummary& summary);

/// Returns, for each model, measure, length and method, a summary over the tasks of that measure that all methods
/// have at that length: the mean of scores and shares, the median of rates and cache sizes. Adds "measure",
/// "higher_is_better" and "tasks", the number of tasks.
std::vector<RunSummary> task_means(const RunView& view);

/// Returns the mean over RULER's 13 tasks, in the same form, for each model, length and method that has all of
/// them.
std::vector<RunSummary> ruler_means(const RunView& view);

/// Returns {"model", "method", "length"} for each model and method of `ruler_means`: the largest length whose mean
/// is at least 0.856, the score of Llama-2-7B at 4k; null if there is none (RULER: What's the Real Context Size of
/// Your Long-Context Language Models?, 2024).
std::vector<Json> effective_lengths(const std::vector<RunSummary>& ruler_means);

}  // namespace fathom::eval
