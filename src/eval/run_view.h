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

/// A run of `fathom eval` as reports look at it. Refers to the JSON it was made from.
struct RunView {
  using Summary = Json;
  using Key = std::tuple<std::string, std::string, int64_t, std::string>;  // model, task, length, method

  // In the order of the run; what only summaries name comes last.
  std::vector<std::string> models, tasks, methods;
  std::vector<int64_t> lengths;             // ascending
  std::map<std::string, Measure> measures;  // of each task
  std::map<Key, const Summary*> summaries;  // with a score

  /// nullptr if there is none.
  const Summary* find(const std::string& model, const std::string& task, int64_t length,
                      const std::string& method) const;
  /// The method others are compared with; empty if there are no methods.
  std::string baseline() const { return methods.empty() ? std::string() : methods.front(); }
};

RunView view_run(const Json& run);

/// The number at `key`; none if it is missing, no number or not finite.
std::optional<double> number_at(const Json& object, std::string_view key);
/// The text at `key`; empty if it is missing or no text.
std::string text_at(const Json& object, std::string_view key);
/// The items of the array at `key`; none if it is missing or no array.
const Json& items_at(const Json& object, std::string_view key);

/// The interval of a summary; its score alone if it has none.
Interval interval_of(const RunView::Summary& summary);

/// For each model, measure, length and method a summary of the tasks with that measure which all methods have
/// there: the mean of the scores, the median of rates and cache sizes, the mean of shares. Has "measure" and
/// "higher_is_better"; "tasks" is how many.
std::vector<RunView::Summary> task_means(const RunView& view);

/// The mean of RULER's 13 tasks, in the same form, for each model, length and method that has them all.
std::vector<RunView::Summary> ruler_means(const RunView& view);

/// {"model", "method", "length"} for each model and method of `ruler_means`: the largest length whose mean is at
/// least that of Llama-2-7B at 4k, 0.856; null if there is none. RULER: What's the real context size of your
/// long-context language models?, 2024.
std::vector<Json> effective_lengths(const std::vector<RunView::Summary>& ruler_means);

}  // namespace fathom::eval
