#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "eval/metrics.h"
#include "eval/sets/python_literal.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

namespace fs = std::filesystem;

constexpr const char* kQuestionPrompt =
    "Read the text below and answer the question about it.\n\n{input}\n\nQuestion: {Q}\nAnswer:";

struct LoogleTask {
  const char* name;
  int64_t reserve;
  const char* prompt;
};

constexpr LoogleTask kTasks[] = {
    {"shortdep_qa", 300, kQuestionPrompt},
    {"longdep_qa", 500, kQuestionPrompt},
    {"shortdep_cloze", 50,
     "Read the text below. Names in the sentences after it were replaced by masks as <mask-0>; the same mask "
     "stands for "
     "the same name.\n\n{input}\n\nSentences: {Q}\nAnswer with the names as JSON: {{\"<mask-0>\": \"name\", …}}\n"
     "Answer:"},
    {"longdep_summarization", 500, "Read the paper below.\n\n{input}\n\nWrite its summary.\nSummary:"},
};

SetSource source() {
  return {"loogle", "<task>.jsonl, as shortdep_qa.jsonl,", "LooGLE (Hugging Face: bigainlco/LooGLE)"};
}

/// The names behind the masks; empty if `text` is no dict of strings.
std::map<std::string, std::string> masks_of(std::string_view text) {
  const size_t begin = text.find('{');
  const size_t end = text.rfind('}');
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) return {};
  std::map<std::string, std::string> masks;
  try {
    const Json dict = parse_python_literal(text.substr(begin, end + 1 - begin), "answer");
    for (const auto& [mask, name] : dict.fields()) {
      if (name.is_string()) masks[mask] = name.get<std::string>();
    }
  } catch (const Error&) {
    return {};  // what cannot be read is wrong
  }
  return masks;
}

bool share_a_word(std::string_view a, std::string_view b) {
  const std::vector<std::string_view> words = split_words(b);
  return std::ranges::any_of(split_words(a),
                             [&](std::string_view word) { return std::ranges::find(words, word) != words.end(); });
}

/// The share of masks whose names are right; in part: that share a word.
Score score_cloze(const Sample& sample, const Answer& answer) {
  const std::map<std::string, std::string> wanted = masks_of(sample.references.front());
  const std::map<std::string, std::string> given = masks_of(answer.text);
  double exact = 0, partial = 0;
  for (const auto& [mask, name] : wanted) {
    const auto found = given.find(mask);
    if (found == given.end()) continue;
    exact += found->second == name ? 1 : 0;
    partial += share_a_word(found->second, name) ? 1 : 0;
  }
  const auto count = static_cast<double>(std::max<size_t>(1, wanted.size()));
  return {exact / count, {{"partial", partial / count}}};
}

/// ROUGE-L recall; beside it the other overlaps, and for what is to be ordered the nearness of the order.
Score score_text(const Sample& sample, const Answer& answer) {
  const std::string& reference = sample.references.front();
  const std::string& text = answer.text;
  const std::vector<std::string> tokens = plain_tokens(text);
  const std::vector<std::vector<std::string>> wanted{plain_tokens(reference)};
  Score score;
  score.value = rouge_l_sentences(text, reference).recall;
  score.details["bleu_1"] = bleu(tokens, wanted, std::vector<double>{1});
  score.details["bleu_4"] =
      bleu(tokens, wanted, std::vector<double>{0, 0, 0, 1});  // of 4-grams alone, as LooGLE has it
  score.details["rouge_1"] = rouge_n(text, reference, 1).recall;
  score.details["rouge_2"] = rouge_n(text, reference, 2).recall;
  if (sample.details.value("type", "") == "timeline_reorder") {
    score.details["order"] = find_metric("order").score(text, sample);
  }
  return score;
}

Sample summary_sample(const SetRecord& record, const PromptForm& form, int64_t reserve) {
  Sample sample = published_sample(reserve, {record.text("output")}, record.number());
  form.fill({{"input", record.text("input")}}, sample);
  return sample;
}

/// The text of a field of one question; of a dict (the answers of a cloze) its JSON.
std::string question_field(const SetRecord& record, const Json& pair, const char* field) {
  const Json* found = pair.find(field);
  if (!found) record.fail_at("qa_pairs", concat("a question has no ", quote(field)));
  if (found->is_object()) return found->dump();
  if (!found->is_string() && !found->is_number()) {
    record.fail_at("qa_pairs", concat(quote(field), ": expected a string, found ", kind_of(*found)));
  }
  return found->is_string() ? found->get<std::string>() : found->dump();
}

void add_questions(const SetRecord& record, const PromptForm& form, int64_t reserve, bool cloze, SetTask& task) {
  const Json* field = record.find("qa_pairs");
  const Json pairs = field != nullptr && field->is_array()
                         ? *field
                         : parse_python_literal(record.text("qa_pairs"), record.where() + ": field \"qa_pairs\"");
  if (!pairs.is_array()) record.fail_at("qa_pairs", "expected a list of questions, found " + kind_of(pairs));
  for (const Json& pair : pairs.items()) {
    Sample sample = published_sample(reserve, {question_field(record, pair, "A")}, record.number());
    form.fill({{"input", record.text("input")}, {"Q", question_field(record, pair, "Q")}}, sample);
    if (pair.contains("type") && pair["type"].is_string()) sample.details["type"] = pair["type"];
    if (cloze && masks_of(sample.references.front()).empty()) {
      record.fail_at("qa_pairs", "expected a dict of masks and names, found " + quote(sample.references.front()));
    }
    task.add(std::move(sample));
  }
}

/// The published prompts, if there are; config: a folder.
std::map<std::string, std::string> published_prompts(const Values& values) {
  if (!values.has("config")) return {};
  const fs::path file = fs::path(values.string("config")) / "task2prompt.json";
  if (!is_file(file.string())) {
    fail("loogle: config=", values.string("config"), ": holds no task2prompt.json, as in config/ of LooGLE");
  }
  return read_string_map(file.string());
}

}  // namespace

MethodInfo loogle_info() {
  MethodInfo info{.name = "loogle",
                  .summary = "LooGLE: questions with near and far evidence, cloze and summaries",
                  .paper = "LooGLE: Can Long-Context Language Models Understand Long Contexts?, 2023",
                  .needs = "files of the set",
                  .parameters = set_parameters(source())};
  info.parameters.push_back({.name = "config",
                             .type = Parameter::Type::kString,
                             .summary = "folder with task2prompt.json; without it the prompts are ours"});
  return info;
}

TaskList make_loogle(const Values& values) {
  std::vector<std::string> names;
  for (const LoogleTask& task : kTasks) names.emplace_back(task.name);
  const std::vector<SetFile> files =
      find_set_files(values, source(), names, {".jsonl"}, {"data", "LooGLE-testdata"});
  const std::map<std::string, std::string> prompts = published_prompts(values);
  TaskList tasks;
  for (const SetFile& file : files) {
    const auto* known =
        std::ranges::find_if(kTasks, [&](const LoogleTask& task) { return file.name == task.name; });
    const auto given = prompts.find(file.name);
    const PromptForm form(given == prompts.end() ? known->prompt : given->second, "loogle: " + file.name,
                          {"input", "Q"}, "input");
    const bool summary = file.name == "longdep_summarization";
    const bool cloze = file.name == "shortdep_cloze";
    auto task = std::make_shared<SetTask>("loogle/" + file.name, cloze ? score_cloze : score_text);
    read_records(file.path, [&](const SetRecord& record) {
      if (summary) {
        task->add(summary_sample(record, form, known->reserve));
      } else {
        add_questions(record, form, known->reserve, cloze, *task);
      }
    });
    task->finish(file.path);
    tasks.push_back(std::move(task));
  }
  return tasks;
}

}  // namespace fathom::eval
