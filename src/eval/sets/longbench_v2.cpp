#include "base/error.h"
#include "base/format.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

constexpr int64_t kReserve = 128;
constexpr const char* kPrompt =
    "Read the text below and answer the question about it.\n\n{context}\n\nQuestion: {question}\n(A) "
    "{choice_A}\n(B) "
    "{choice_B}\n(C) {choice_C}\n(D) {choice_D}\n\nOne choice is right. End with the sentence \"The correct answer "
    "is "
    "(X)\", with the letter of your choice for X.";

SetSource source() {
  return {"longbench_v2", "data.json or data.jsonl", "LongBench v2 (Hugging Face: THUDM/LongBench-v2)"};
}

Sample read_sample(const SetRecord& record, const PromptForm& form) {
  const std::string& letter = record.text("answer");
  if (letter.size() != 1 || letter[0] < 'A' || letter[0] > 'D') {
    record.fail_at("answer", "expected A, B, C or D, found " + quote(letter));
  }
  Sample sample = published_sample(kReserve, {"The correct answer is (" + letter + ")"}, record.number());
  std::map<std::string, std::string> values;
  for (const char* field : {"context", "question", "choice_A", "choice_B", "choice_C", "choice_D"}) {
    values[field] = record.text(field);
  }
  form.fill(values, sample);
  auto& kinds = sample.details["kinds"] = Json::array();
  for (const char* field : {"difficulty", "length"}) {
    if (record.find(field) != nullptr) kinds.push_back(record.text(field));
  }
  for (const char* field : {"domain", "sub_domain"}) {
    if (record.find(field) != nullptr) sample.details[field] = record.text(field);
  }
  return sample;
}

}  // namespace

MethodInfo longbench_v2_info() {
  return {.name = "longbench_v2",
          .summary = "LongBench v2: questions with four choices on long real texts",
          .paper =
              "LongBench v2: Towards Deeper Understanding and Reasoning on Realistic Long-context Multitasks, 2024",
          .needs = "files of the set",
          .parameters = {set_parameters(source()).front()}};
}

TaskList make_longbench_v2(const Values& values) {
  const PromptForm form(kPrompt, "longbench_v2",
                        {"context", "question", "choice_A", "choice_B", "choice_C", "choice_D"}, "context");
  const SetFile file = find_set_files(values, source(), {"data"}, {".json", ".jsonl"}).front();
  auto task = std::make_shared<SetTask>("longbench_v2", score_by("letter"));
  read_records(file.path, [&](const SetRecord& record) { task->add(read_sample(record, form)); });
  task->finish(file.path);
  return {std::move(task)};
}

}  // namespace fathom::eval
