#include "base/error.h"
#include "base/format.h"
#include "eval/metrics.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

constexpr int64_t kReserve = 64;
constexpr const char* kLengths[] = {"1k", "2k", "4k", "6k", "8k", "12k", "16k", "32k", "64k", "128k"};

SetSource source() {
  return {"ada_leval", "textsort_<length>.json or stackselect_<length>.json, such as textsort_2k.json,",
          "Ada-LEval (github.com/open-compass/Ada-LEval)"};
}

/// TSort: the record contains the whole prompt; the answer is a list of four numbers, as an array or as text.
Sample read_sort(const SetRecord& record) {
  const Json* answer = record.find("answer");
  if (answer == nullptr) record.fail_at("answer", "is missing, expected a permutation of 1 to 4");
  const std::string order = answer->is_string()  ? answer->get<std::string>()
                            : answer->is_array() ? answer->dump()
                                                 : "";
  if (answered_permutation(order, 4).empty()) {
    record.fail_at("answer", "expected a permutation of 1 to 4, found " + quote(order));
  }
  Sample sample = published_sample(kReserve, {order}, record.number());
  sample.context = record.text("prompt");
  return sample;
}

/// BestAnswer: a question and its answers A1, A2, …
Sample read_select(const SetRecord& record) {
  const std::vector<std::string> answers = record.texts("all_answers");
  const std::string& gold = record.text("answer");
  const int64_t label = best_answer_label(gold, static_cast<int64_t>(answers.size()));
  if (label == 0 || gold != "A" + std::to_string(label)) {
    record.fail_at("answer", concat("expected A1 to A", answers.size(), ", found ", quote(gold)));
  }
  Sample sample = published_sample(kReserve, {gold}, record.number());
  sample.context = "Below are a question and " + std::to_string(answers.size()) +
                   " answers to it, named A1, A2 and so on.\n\nQuestion:\n" + record.text("question") + "\n\n";
  for (size_t i = 0; i < answers.size(); ++i) sample.context += concat("A", i + 1, ":\n", answers[i], "\n\n");
  sample.question = "Which answer helps the most? Write its name alone, as A4.\nAnswer:";
  sample.details["choices"] = static_cast<int64_t>(answers.size());
  return sample;
}

}  // namespace

MethodInfo ada_leval_info() {
  return {.name = "ada_leval",
          .summary = "Ada-LEval: sort segments of a book (TSort), find the accepted answer (BestAnswer)",
          .paper = "Ada-LEval: Evaluating long-context LLMs with length-adaptable benchmarks, 2024",
          .needs = "files of the set",
          .parameters = set_parameters(source())};
}

TaskList make_ada_leval(const Values& values) {
  std::vector<std::string> names;
  for (const char* kind : {"textsort_", "stackselect_"}) {
    for (const char* length : kLengths) names.push_back(std::string(kind) + length);
  }
  TaskList tasks;
  for (const SetFile& file : find_set_files(values, source(), names, {".json", ".jsonl"}, {"data"})) {
    const bool sort = file.name.starts_with("textsort");
    auto task = std::make_shared<SetTask>("ada_leval/" + file.name, score_by(sort ? "permutation" : "best_answer"));
    read_records(file.path,
                 [&](const SetRecord& record) { task->add(sort ? read_sort(record) : read_select(record)); });
    task->finish(file.path);
    tasks.push_back(std::move(task));
  }
  return tasks;
}

}  // namespace fathom::eval
