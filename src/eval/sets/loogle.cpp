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
  return {"loogle", "<task>.jsonl, such as shortdep_qa.jsonl,", "LooGLE (Hugging Face: bigainlco/LooGLE)"};
}

/// Returns the names of the masks, or an empty map if `text` is not a dict of strings.
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
    return {};  // an unreadable answer is wrong
  }
  return masks;
}

bool share_a_word(std::string_view a, std::string_view b) {
  const std::vector<std::string_view> words = split_words(b);
  return std::ranges::any_of(split_words(a),
                             [&](std::string_view word) { return std::ranges::find(words, word) != words.end(); });
}

/// Scores the share of masks with the correct name; "partial" counts names that share a word.
Score score_cloze(const Sample& sample, const Answer& answer) {
  const std::map<std::string, std::string> expected = masks_of(sample.references.front());
  const std::map<std::string, std::string> answered = masks_of(answer.text);
  double exact = 0, partial = 0;
  for (const auto& [mask, name] : expected) {
    const auto found = answered.find(mask);
    if (found == answered.end()) continue;
    exact += found->second == name ? 1 : 0;
    partial += share_a_word(found->second, name) ? 1 : 0;
  }
  const auto count = static_cast<double>(std::max<size_t>(1, expected.size()));
  return {exact / count, {{"partial", partial / count}}};
}

/// Scores ROUGE-L recall. Details: the other overlaps and, for ordering questions, the order metric.
Score score_text(const Sample& sample, const Answer& answer) {
  const std::string& reference = sample.references.front();
  const std::string& text = answer.text;
  const std::vector<std::string> tokens = plain_tokens(text);
  const std::vector<std::vector<std::string>> expected{plain_tokens(reference)};
  Score score;
  score.value = rouge_l_sentences(text, reference).recall;
  score.details["bleu_1"] = bleu(tokens, expected, std::vector<double>{1});
  score.details["bleu_4"] = bleu(tokens, expected, std::vector<double>{0, 0, 0, 1});  // 4-grams only, as in LooGLE
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

/// Returns a field of one question as text; for a dict (answers of a cloze) its JSON.
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

/// Returns the published prompts from the folder config, or an empty map without it.
std::map<std::string, std::string> published_prompts(const Values& values) {
  if (!values.has("config")) return {};
  const fs::path file = fs::path(values.string("config")) / "task2prompt.json";
  if (!is_file(file.string())) {
    fail("loogle: config=", values.string("config"),
         ": contains no task2prompt.json; expected the folder config/ of LooGLE");
  }
  return read_string_map(file.string());
}

}  // namespace

MethodInfo loogle_info() {
  MethodInfo info{.name = "loogle",
                  .summary = "LooGLE: questions with near and distant evidence, cloze tests and summaries",
                  .paper = "LooGLE: Can Long-Context Language Models Understand Long Contexts?, 2023",
                  .needs = "files of the set",
                  .parameters = set_parameters(source())};
  info.parameters.push_back(
      {.name = "config",
       .type = Parameter::Type::kString,
       .summary = "folder with LooGLE's prompts (task2prompt.json); default: Fathom's prompts"});
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
    const auto published = prompts.find(file.name);
    const PromptForm form(published == prompts.end() ? known->prompt : published->second, "loogle: " + file.name,
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
