#include "eval/run_view.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace fathom::eval {
namespace {

template <class T>
void add_once(std::vector<T>& list, const T& item) {
  if (std::find(list.begin(), list.end(), item) == list.end()) list.push_back(item);
}

std::optional<int64_t> length_of(const Json& value) {
  if (!value.is_number()) return std::nullopt;
  const double length = value.get<double>();
  if (!(length >= 0 && length < 0x1p53)) return std::nullopt;
  return static_cast<int64_t>(length);
}

/// Adds the models, tasks, methods and lengths that the run lists, in its order.
void add_listed(const Json& run, RunView& view) {
  for (const Json& model : items_at(run, "models").items()) {
    if (model.is_object()) add_once(view.models, text_at(model, "name"));
  }
  for (const Json& task : items_at(run, "tasks").items()) {
    if (!task.is_object()) continue;
    const std::string name = text_at(task, "name"), measure = text_at(task, "measure");
    add_once(view.tasks, name);
    const Json* higher = task.find("higher_is_better");
    view.measures.try_emplace(name, Measure{measure.empty() ? Measure().name : measure,
                                            !higher || !higher->is_boolean() || higher->get<bool>()});
  }
  for (const Json& method : items_at(run, "methods").items()) {
    if (method.is_string()) add_once(view.methods, method.get<std::string>());
  }
  for (const Json& length : items_at(run, "lengths").items()) {
    if (const auto tokens = length_of(length)) add_once(view.lengths, *tokens);
  }
}

/// Returns the numbers that the summaries have at `key`.
std::vector<double> numbers_at(const std::vector<const RunSummary*>& summaries, std::string_view key) {
  std::vector<double> numbers;
  for (const RunSummary* summary : summaries) {
    if (const auto number = number_at(*summary, key)) numbers.push_back(*number);
  }
  return numbers;
}

/// Returns null for a value that is not finite.
Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

/// Combines the summaries of several tasks into one; all must have scores.
RunSummary combine(const std::vector<const RunSummary*>& parts) {
  std::vector<Interval> intervals;
  for (const RunSummary* part : parts) intervals.push_back(interval_of(*part));
  const std::vector<double> scores = numbers_at(parts, "score");
  const Interval interval = interval_of_mean(scores, intervals);
  const std::vector<double> peaks = numbers_at(parts, "peak_rss_bytes");
  RunSummary combined;
  combined["tasks"] = parts.size();
  combined["score"] = mean(scores);
  combined["low"] = finite(interval.low);
  combined["high"] = finite(interval.high);
  for (const char* key : {"prefill_tokens_per_second", "decode_tokens_per_second", "cache_bytes"}) {
    combined[key] = finite(median(numbers_at(parts, key)));
  }
  for (const char* key : {"tokens_per_forward", "keys_attended_share", "same_answer_share", "kl"}) {
    combined[key] = finite(mean(numbers_at(parts, key)));
  }
  combined["peak_rss_bytes"] = peaks.empty() ? Json() : Json(*std::max_element(peaks.begin(), peaks.end()));
  return combined;
}

/// Returns the summaries of `method` for those of the tasks that have one.
std::vector<const RunSummary*> summaries_of(const RunView& view, const std::string& model,
                                            const std::vector<std::string>& tasks, int64_t length,
                                            const std::string& method) {
  std::vector<const RunSummary*> found;
  for (const std::string& task : tasks) {
    if (const RunSummary* summary = view.find(model, task, length, method)) found.push_back(summary);
  }
  return found;
}

RunSummary mean_fields(const std::string& model, const Measure& measure, int64_t length,
                       const std::string& method) {
  return {{"model", model},
          {"measure", measure.name},
          {"higher_is_better", measure.higher_is_better},
          {"length", length},
          {"method", method}};
}

/// Adds for each method the mean over the tasks that all methods have. `tasks` have the same measure. Methods
/// without any of the tasks are ignored.
void add_means(const RunView& view, const std::string& model, const Measure& measure,
               const std::vector<std::string>& tasks, int64_t length, std::vector<RunSummary>& means) {
  std::vector<std::string> present, shared;
  for (const std::string& method : view.methods) {
    if (!summaries_of(view, model, tasks, length, method).empty()) present.push_back(method);
  }
  std::copy_if(tasks.begin(), tasks.end(), std::back_inserter(shared), [&](const std::string& task) {
    return std::all_of(present.begin(), present.end(), [&](const std::string& method) {
      return view.find(model, task, length, method) != nullptr;
    });
  });
  if (shared.empty()) return;
  for (const std::string& method : present) {
    RunSummary combined = mean_fields(model, measure, length, method);
    combined.update(combine(summaries_of(view, model, shared, length, method)));
    means.push_back(std::move(combined));
  }
}

}  // namespace

const RunSummary* RunView::find(const std::string& model, const std::string& task, int64_t length,
                                const std::string& method) const {
  const auto found = summaries.find({model, task, length, method});
  return found == summaries.end() ? nullptr : found->second;
}

RunView view_run(const Json& run) {
  RunView view;
  add_listed(run, view);
  for (const Json& summary : items_at(run, "summaries").items()) {
    if (!summary.is_object()) continue;
    const auto length = summary.contains("length") ? length_of(summary["length"]) : std::nullopt;
    if (!length || !number_at(summary, "score")) continue;
    const std::string model = text_at(summary, "model"), task = text_at(summary, "task"),
                      method = text_at(summary, "method");
    add_once(view.models, model);
    add_once(view.tasks, task);
    add_once(view.methods, method);
    add_once(view.lengths, *length);
    view.measures.try_emplace(task);
    view.summaries.try_emplace({model, task, *length, method}, &summary);
  }
  std::sort(view.lengths.begin(), view.lengths.end());
  return view;
}

std::optional<double> number_at(const Json& object, std::string_view key) {
  const Json* found = object.find(key);
  if (!found || !found->is_number()) return std::nullopt;
  const double number = found->get<double>();
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

std::string text_at(const Json& object, std::string_view key) {
  const Json* found = object.find(key);
  return found && found->is_string() ? found->get<std::string>() : std::string();
}

const Json& items_at(const Json& object, std::string_view key) {
  static const Json kNone = Json::array();
  const Json* found = object.find(key);
  return found && found->is_array() ? *found : kNone;
}

Interval interval_of(const RunSummary& summary) {
  const double score = number_at(summary, "score").value_or(0);
  return {number_at(summary, "low").value_or(score), number_at(summary, "high").value_or(score)};
}

std::vector<RunSummary> task_means(const RunView& view) {
  std::vector<std::pair<Measure, std::vector<std::string>>> groups;
  for (const std::string& task : view.tasks) {
    const Measure& measure = view.measures.at(task);
    const auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& other) {
      return other.first.name == measure.name && other.first.higher_is_better == measure.higher_is_better;
    });
    if (group != groups.end()) {
      group->second.push_back(task);
    } else {
      groups.push_back({measure, {task}});
    }
  }
  std::vector<RunSummary> means;
  for (const std::string& model : view.models) {
    for (const auto& [measure, tasks] : groups) {
      for (const int64_t length : view.lengths) add_means(view, model, measure, tasks, length, means);
    }
  }
  return means;
}

std::vector<RunSummary> ruler_means(const RunView& view) {
  std::vector<std::string> tasks;
  for (const auto& task : task_methods().make("ruler")) tasks.push_back(task->name());
  std::vector<RunSummary> means;
  for (const std::string& model : view.models) {
    for (const int64_t length : view.lengths) {
      for (const std::string& method : view.methods) {
        const auto parts = summaries_of(view, model, tasks, length, method);
        if (parts.size() < tasks.size()) continue;
        RunSummary combined = mean_fields(model, Measure(), length, method);
        combined.update(combine(parts));
        means.push_back(std::move(combined));
      }
    }
  }
  return means;
}

std::vector<Json> effective_lengths(const std::vector<RunSummary>& ruler_means) {
  constexpr double kThreshold = 0.856;
  std::vector<Json> lengths;
  for (const RunSummary& mean : ruler_means) {
    auto entry = std::find_if(lengths.begin(), lengths.end(), [&](const Json& other) {
      return other["model"] == mean["model"] && other["method"] == mean["method"];
    });
    if (entry == lengths.end()) {
      lengths.push_back({{"model", mean["model"]}, {"method", mean["method"]}, {"length", nullptr}});
      entry = lengths.end() - 1;
    }
    Json& best = (*entry)["length"];
    const int64_t length = mean["length"].get<int64_t>();
    if (mean["score"].get<double>() >= kThreshold && (best.is_null() || length > best.get<int64_t>()))
      best = length;
  }
  return lengths;
}

}  // namespace fathom::eval
