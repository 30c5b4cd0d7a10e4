#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

constexpr const char* kHiddenPrompt =
    "Somewhere in the text below a piece of information is hidden. Find it and keep it in "
    "mind.\n\n{context}\n\n{input}";
constexpr const char* kBookPrompt =
    "Read the book below.\n\n{context}\n\nAnswer a question about it, as briefly as you can.\nQuestion: {input}\n"
    "Answer:";
constexpr const char* kBookPromptZh = "请阅读下面的书。\n\n{context}\n\n请尽量简短地回答。\n问题：{input}\n答案：";
constexpr const char* kChoicePrompt =
    "Read the book below.\n\n{context}\n\nQuestion: {input}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer with the "
    "letter of "
    "the right choice alone.";

struct InfiniteTask {
  const char* name;
  const char* metric;
  int64_t reserve;
  const char* prompt;
  const char* lead = "";
};

constexpr InfiniteTask kTasks[] = {
    {"passkey", "first_integer", 6, kHiddenPrompt, "The pass key is"},
    {"number_string", "first_integer", 12, kHiddenPrompt, "The sequence of digits is"},
    {"kv_retrieval", "word", 50,
     "Below is a JSON object. Find the value that belongs to a key.\n\n{context}\n\n{input}"},
    {"longbook_sum_eng", "rouge_l_lines", 1200,
     "Read the book below.\n\n{context}\n\nWrite a summary of the whole book.\nSummary:"},
    {"longbook_qa_eng", "qa_f1", 40, kBookPrompt},
    {"longbook_qa_chn", "qa_f1_zh", 40, kBookPromptZh},
    {"longbook_choice_eng", "infinite_choice", 40, kChoicePrompt, "The letter is"},
    {"longdialogue_qa_eng", "word_any_case", 40,
     "In the script below one name of a character was replaced by $$MASK$$.\n\n{context}\n\nWhose name was it? "
     "Answer "
     "with the name alone, as it stands before the lines of that character.",
     "The name is"},
    {"math_find", "first_number", 3, "Below is a list of numbers.\n\n{context}\n\n{input}"},
    {"math_calc", "integer_prefix", 30000,
     "Below is a long sum.\n\n{context}\n\nWork it out from left to right and write down the value after each "
     "number, "
     "as a list: for 2 + 5 - 3 it would be [2, 7, 4].\nValues:"},
    {"code_run", "last_integer", 5, "Below is code in Python.\n\n{context}\n\n{input}", "The return value is"},
    {"code_debug", "infinite_debug", 5,
     "In the code below one function was given an obvious error.\n\n{context}\n\n{input}\nA. {A}\nB. {B}\nC. "
     "{C}\nD. "
     "{D}\nAnswer with the letter of the function that has the error.",
     "The correct option is:"},
};

SetSource source() {
  return {"infinitebench", "<task>.jsonl, such as passkey.jsonl,",
          "InfiniteBench (Hugging Face: xinrongzhang2022/InfiniteBench)"};
}

/// Returns the answer, a list of integers or a list with one such list, as text.
std::vector<std::string> integer_list(const SetRecord& record) {
  const Json* list = record.find("answer");
  if (list != nullptr && list->is_array() && list->size() == 1 && (*list)[0].is_array()) list = &(*list)[0];
  if (list == nullptr || !list->is_array()) record.fail_at("answer", "expected a list of integers");
  std::string text;
  for (const Json& item : list->items()) {
    if (!item.is_number_integer()) record.fail_at("answer", "expected integers, found " + kind_of(item));
    text += (text.empty() ? "" : ", ") + item.dump();
  }
  return {"[" + text + "]"};
}

/// Sets the options, letter and reference. The answer is an option, alone or followed by its letter.
void read_choice(const SetRecord& record, std::map<std::string, std::string>& values, Sample& sample) {
  constexpr std::string_view kLetters = "ABCD";
  const std::vector<std::string> options = record.texts("options");
  if (options.size() != kLetters.size()) {
    record.fail_at("options", concat("expected 4 of them, found ", options.size()));
  }
  for (size_t i = 0; i < options.size(); ++i) values[std::string{kLetters[i]}] = options[i];
  const std::vector<std::string> answer = record.texts("answer");
  size_t correct = std::ranges::find(options, answer.front()) - options.begin();
  if (answer.size() == 2 && answer[1].size() == 1) correct = std::min(kLetters.find(answer[1]), options.size());
  if (correct == options.size()) record.fail_at("answer", "is none of the options: " + quote(answer.front()));
  sample.references = {std::string{kLetters[correct]} + ". " + options[correct]};
  sample.details["letter"] = std::string{kLetters[correct]};
  sample.details["option"] = options[correct];
}

Sample read_sample(const SetRecord& record, const InfiniteTask& task, const PromptForm& form) {
  const std::string_view name = task.name;
  Sample sample = published_sample(task.reserve, {}, record.number());
  std::map<std::string, std::string> values{
      {"context", record.text(record.find("context") == nullptr && record.find("content") ? "content" : "context")},
      {"input", record.text_or("input", "")}};
  if (name == "longbook_choice_eng" || name == "code_debug") {
    read_choice(record, values, sample);
  } else if (name == "math_calc") {
    sample.references = integer_list(record);
  } else {
    sample.references = record.texts("answer");
    const bool single = name != "longbook_sum_eng" && !name.starts_with("longbook_qa");
    if (single) sample.references.resize(1);
  }
  form.fill(values, sample);
  sample.lead = task.lead;
  if (!sample.lead.empty()) sample.question += "\n\n";
  return sample;
}

}  // namespace

MethodInfo infinitebench_info() {
  return {.name = "infinitebench",
          .summary = "InfiniteBench: 12 tasks of 100,000 tokens and more",
          .paper = "InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens, 2024",
          .needs = "files of the set",
          .parameters = set_parameters(source())};
}

TaskList make_infinitebench(const Values& values) {
  std::vector<std::string> names;
  for (const InfiniteTask& task : kTasks) names.emplace_back(task.name);
  TaskList tasks;
  for (const SetFile& file : find_set_files(values, source(), names, {".jsonl"})) {
    const auto* known =
        std::ranges::find_if(kTasks, [&](const InfiniteTask& task) { return file.name == task.name; });
    const PromptForm form(known->prompt, "infinitebench", {"context", "input", "A", "B", "C", "D"}, "context");
    auto task = std::make_shared<SetTask>("infinitebench/" + file.name, score_by(known->metric));
    read_records(file.path, [&](const SetRecord& record) { task->add(read_sample(record, *known, form)); });
    task->finish(file.path);
    tasks.push_back(std::move(task));
  }
  return tasks;
}

}  // namespace fathom::eval
