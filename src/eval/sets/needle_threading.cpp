#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "eval/metrics.h"
#include "eval/sets/python_literal.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

struct NeedleThreadingTask {
  const char* name;
  int64_t reserve;  // about 30 tokens per UUID, at most 25 UUIDs
};

constexpr NeedleThreadingTask kTasks[] = {{"Single_Needle", 100},
                                          {"Multiple_Needles", 800},
                                          {"Conditional_Needles", 800},
                                          {"Single_Threads", 100},
                                          {"Multi_Threads", 800}};

SetSource source() {
  return {"needle_threading", "<task>.json, such as Single_Needle.json,",
          "Needle Threading (Hugging Face: jonathan-roberts1/needle-threading, json_data.zip)"};
}

/// Splits a list as a model may write it; brackets and quotation marks are ignored.
std::vector<std::string> answered_items(std::string_view text) {
  std::string plain;
  for (const char c : text) {
    if (std::string_view("[](){}\"'`").find(c) == std::string_view::npos) plain += c == '\n' ? ',' : c;
  }
  return comma_items(plain);
}

/// Returns the values: a single one, a list, or a list as a Python literal.
std::vector<std::string> read_values(const SetRecord& record) {
  const Json* field = record.find("values");
  if (field == nullptr || !field->is_string() || !field->text().starts_with('[')) {
    return record.texts("values");
  }
  std::vector<std::string> values;
  const std::string where = record.where() + ": field \"values\"";
  for (const Json& value : parse_python_literal(record.text("values"), where).items())
    values.push_back(text_of(value, where));
  if (values.empty()) record.fail_at("values", "expected at least one value, found none");
  return values;
}

/// Returns the depth as a share of the haystack, given in percent; other sets have "N/A" or similar.
std::optional<double> read_depth(const SetRecord& record) {
  const Json* field = record.find("needle_depth");
  if (field == nullptr || !(field->is_string() || field->is_number())) return std::nullopt;
  const std::string text = text_of(*field, record.where());
  double percent = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), percent);
  const bool whole = read.ec == std::errc() && read.ptr == text.data() + text.size();
  if (!whole || !(percent >= 0 && percent <= 100)) return std::nullopt;
  return percent / 100;
}

/// Scores the share of values at the correct position; for conditional needles F1 of the two sets.
Score score_values(const Sample& sample, const Answer& answer) {
  std::vector<std::string> items = answered_items(answer.text);
  const std::vector<std::string>& expected = sample.references;
  if (sample.details.value("unordered", false)) return {set_f1(items, expected).f1, Json::object()};
  double correct = 0;
  for (size_t i = 0; i < expected.size() && i < items.size(); ++i) {
    correct += items[i].compare(0, expected[i].size(), expected[i]) == 0 ? 1 : 0;  // text after a value is ignored
  }
  return {correct / static_cast<double>(expected.size()), Json::object()};
}

}  // namespace

MethodInfo needle_threading_info() {
  return {.name = "needle_threading",
          .summary = "Needle Threading: values and chains of values in a JSON map of UUIDs",
          .paper = "Needle Threading: Can LLMs Follow Threads through Near-Million-Scale Haystacks?, 2024",
          .needs = "files of the set",
          .parameters = set_parameters(source())};
}

TaskList make_needle_threading(const Values& values) {
  std::vector<std::string> names;
  for (const NeedleThreadingTask& task : kTasks) names.emplace_back(task.name);
  TaskList tasks;
  for (const SetFile& file : find_set_files(values, source(), names, {".json", ".jsonl"}, {"json_data", "data"})) {
    const auto* known =
        std::ranges::find_if(kTasks, [&](const NeedleThreadingTask& task) { return file.name == task.name; });
    auto task = std::make_shared<SetTask>("needle_threading/" + file.name, score_values);
    read_records(file.path, [&](const SetRecord& record) {
      Sample sample = published_sample(known->reserve, read_values(record), record.number());
      sample.context = record.text("haystack") + "\n";
      sample.question = record.text("question");
      if (file.name == "Single_Needle") sample.depth = read_depth(record);
      if (file.name == "Conditional_Needles") sample.details["unordered"] = true;
      task->add(std::move(sample));
    });
    task->finish(file.path);
    tasks.push_back(std::move(task));
  }
  return tasks;
}

}  // namespace fathom::eval
