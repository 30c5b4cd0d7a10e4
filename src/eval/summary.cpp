#include "eval/summary.h"

#include <algorithm>
#include <map>

#include "eval/statistics.h"

namespace fathom::eval {
namespace {

constexpr const char* kCellFields[] = {"model", "model_id", "task", "length", "method", "seed"};

/// Returns the numbers that the records have at `field`.
std::vector<double> numbers(std::span<const Record* const> records, const std::string& field) {
  std::vector<double> values;
  for (const Record* record : records) {
    const Json* found = record->find(field);
    if (found && found->is_number()) values.push_back(found->get<double>());
  }
  return values;
}

Record or_null(const std::vector<double>& values, double (*statistic)(std::span<const double>)) {
  return values.empty() ? Record() : Record(statistic(values));
}

double largest(std::span<const double> values) { return *std::ranges::max_element(values); }

Record mean_details(std::span<const Record* const> records) {
  std::map<std::string, std::vector<double>> values;
  std::vector<std::string> order;
  for (const Record* record : records) {
    const Json* details = record->find("details");
    if (!details) continue;
    for (const auto& [name, value] : details->fields()) {
      if (!value.is_number()) continue;
      if (values.count(name) == 0) order.push_back(name);
      values[name].push_back(value.get<double>());
    }
  }
  Record means = Record::object();
  for (const std::string& name : order) means[name] = mean(values[name]);
  return means;
}

Record summarize_cell(std::span<const Record* const> records) {
  const Record& first = *records[0];
  Record summary = {{"summary", true}};
  for (const char* field : kCellFields) summary[field] = first.value(field, Record());
  const bool higher_is_better = first.value("higher_is_better", true);
  const std::vector<double> scores = numbers(records, "score");
  const auto n = static_cast<int64_t>(scores.size());
  summary["n"] = n;
  summary["measure"] = first.value("measure", "score");
  summary["higher_is_better"] = higher_is_better;
  if (n > 0) {
    const double score = mean(scores);
    const Interval interval = higher_is_better ? wilson_interval(score, n) : t_interval(scores);
    summary["score"] = score, summary["low"] = interval.low, summary["high"] = interval.high;
  }
  for (const char* rate : {"prefill_tokens_per_second", "decode_tokens_per_second"})
    summary[rate] = or_null(numbers(records, rate), median);
  if (const std::vector<double> rates = numbers(records, "tokens_per_forward"); !rates.empty())
    summary["tokens_per_forward"] = mean(rates);
  if (const std::vector<double> tokens = numbers(records, "context_tokens"); !tokens.empty())
    summary["context_tokens"] = mean(tokens);
  for (const char* share : {"keys_attended_share", "answer_keys_attended_share", "selecting_share", "cache_bytes"})
    summary[share] = or_null(numbers(records, share), mean);
  summary["peak_rss_bytes"] = or_null(numbers(records, "peak_rss_bytes"), largest);
  summary["same_answer_share"] = or_null(numbers(records, "same_answer"), mean);
  summary["kl"] = or_null(numbers(records, "kl"), mean);
  summary["prompt_tokens"] = or_null(numbers(records, "prompt_tokens"), mean);
  summary["generated_tokens"] = or_null(numbers(records, "generated_tokens"), mean);
  summary["details"] = mean_details(records);
  return summary;
}

}  // namespace

std::vector<Record> summarize(std::span<const Record> records) {
  std::map<std::string, size_t> index;
  std::vector<std::vector<const Record*>> cells;
  for (const Record& record : records) {
    std::string cell;
    for (const char* field : kCellFields) cell += record.value(field, Record()).dump() + "|";
    const auto [found, added] = index.try_emplace(cell, cells.size());
    if (added) cells.emplace_back();
    cells[found->second].push_back(&record);
  }
  std::vector<Record> summaries;
  for (const auto& cell : cells) summaries.push_back(summarize_cell(cell));
  return summaries;
}

}  // namespace fathom::eval
