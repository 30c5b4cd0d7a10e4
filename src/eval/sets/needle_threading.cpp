#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "eval/metrics.h"
#include "eval/sets/python_literal.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

struct NeedleTask {
  const char* name;
  int64_t reserve;  // about 30 tokens a UUID, 25 of them at most
};

constexpr NeedleTask kTasks[] = {{"Single_Needle", 100},
                                 {"Multiple_Needles", 800},
                                 {"Conditional_Needles", 800},
                                 {"Single_Threads", 100},
                                 {"Multi_Threads", 800}};

SetSource source() {
  return {"needle_threading", "<task>.json, as Single_Needle.json,",
          "Needle Threading (Hugging Face: jonathan-roberts1/needle-threading, json_data.zip)"};
}

/// The items of a list as a model may write it: brackets and quotes are left out.
std::vector<std::string> answered_items(std::string_view text) {
  std::string plain;
  for (const char c : text) {
    if (std::string_view("[](){}\"'`").find(c) == std::string_view::npos) plain += c == '\n' ? ',' : c;
  }
  return comma_items(plain);
}

/// Values: one, a list, or a list as Python writes it.
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

/// Percent of the haystack, for the sets that say it; others have "N/A" or the like.
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

/// The share of values in their places; where a condition was asked for, F1 of the two sets.
Score score_values(const Sample& sample, const Answer& answer) {
  std::vector<std::string> items = answered_items(answer.text);
  const std::vector<std::string>& wanted = sample.references;
  if (sample.details.value("unordered", false)) return {set_f1(items, wanted).f1, Json::object()};
  double right = 0;
  for (size_t i = 0; i < wanted.size() && i < items.size(); ++i) {
    right += items[i].compare(0, wanted[i].size(), wanted[i]) == 0 ? 1 : 0;  // what follows a value does not count
  }
  return {right / static_cast<double>(wanted.size()), Json::object()};
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
  for (const NeedleTask& task : kTasks) names.emplace_back(task.name);
  TaskList tasks;
  for (const SetFile& file : find_set_files(values, source(), names, {".json", ".jsonl"}, {"json_data", "data"})) {
    const auto* known =
        std::ranges::find_if(kTasks, [&](const NeedleTask& task) { return file.name == task.name; });
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
