#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "eval/metrics.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

namespace fs = std::filesystem;

constexpr const char* kQuestionPrompt =
    "Read the text below. It holds the answer to a question.\n\n{context}\n\nAnswer the question in as few words "
    "as "
    "you can, without explaining.\nQuestion: {input}\nAnswer:";
constexpr const char* kQuestionPromptZh =
    "请先阅读下面的材料。\n\n{context}\n\n请根据材料用尽可能少的词回答，不要解释。\n问题：{input}\n回答：";
constexpr const char* kSummaryPrompt =
    "Below is a document, or several on one topic.\n\n{context}\n\nWrite a summary of it in one page.\nSummary:";
constexpr const char* kSummaryPromptZh = "下面是一份会议记录。\n\n{context}\n\n请写出它的总结。\n总结：";
constexpr const char* kMeetingPrompt =
    "Below is the transcript of a meeting.\n\n{context}\n\nAnswer in one or more sentences what is asked about "
    "it.\n"
    "Request: {input}\nAnswer:";
constexpr const char* kExamplesPrompt = "Continue as the examples show.\n\n{context}\n{input}";
constexpr const char* kExamplesPromptZh = "请按照例子的样子继续。\n\n{context}\n{input}";
constexpr const char* kCountPrompt =
    "Below are numbered paragraphs, some of which are repeated.\n\n{context}\n\nHow many different paragraphs are "
    "there? Answer with the number alone.\nNumber:";
constexpr const char* kRetrievalPrompt =
    "Below are 30 numbered paragraphs.\n\n{context}\n\nHere is the summary of one of them:\n\n{input}\n\nWhich one "
    "is "
    "it? Answer in the form \"Paragraph 1\".\nAnswer:";
constexpr const char* kRetrievalPromptZh =
    "下面是有编号的段落。\n\n{context}\n\n下面是其中一段的摘要：\n\n{input}"
    "\n\n它是哪一段的摘要？请用“段落1”的形式回答。"
    "\n回答：";
constexpr const char* kCodePrompt = "Write the next line of this code.\n{context}{input}Next line:\n";

struct LongBenchTask {
  const char* name;
  const char* metric;
  int64_t reserve;
  const char* prompt;
  bool chat = true;
  bool first_line = false;  // only the first line of the answer is scored
};

constexpr LongBenchTask kTasks[] = {
    {"narrativeqa", "qa_f1", 128, kQuestionPrompt},
    {"qasper", "qa_f1", 128, kQuestionPrompt},
    {"multifieldqa_en", "qa_f1", 64, kQuestionPrompt},
    {"multifieldqa_zh", "qa_f1_zh", 64, kQuestionPromptZh},
    {"hotpotqa", "qa_f1", 32, kQuestionPrompt},
    {"2wikimqa", "qa_f1", 32, kQuestionPrompt},
    {"musique", "qa_f1", 32, kQuestionPrompt},
    {"dureader", "rouge_l_sentences_zh", 128, kQuestionPromptZh},
    {"gov_report", "rouge_l_sentences", 512, kSummaryPrompt},
    {"qmsum", "rouge_l_sentences", 512, kMeetingPrompt},
    {"multi_news", "rouge_l_sentences", 512, kSummaryPrompt},
    {"vcsum", "rouge_l_sentences_zh", 512, kSummaryPromptZh},
    {"trec", "class", 64, kExamplesPrompt, false, true},
    {"triviaqa", "qa_f1", 32, kExamplesPrompt, false, true},
    {"samsum", "rouge_l_sentences", 128, kExamplesPrompt, false, true},
    {"lsht", "class", 64, kExamplesPromptZh, false, true},
    {"passage_count", "number", 32, kCountPrompt},
    {"passage_retrieval_en", "number", 32, kRetrievalPrompt},
    {"passage_retrieval_zh", "number", 32, kRetrievalPromptZh},
    {"lcc", "code_similarity", 64, kCodePrompt, false},
    {"repobench-p", "code_similarity", 64, kCodePrompt, false},
};

SetSource source() {
  return {"longbench", "<task>.jsonl or <task>_e.jsonl, such as hotpotqa.jsonl,",
          "LongBench (Hugging Face: THUDM/LongBench)"};
}

/// Prompts and maximum tokens of answers: from the published files if they are found, else built in.
struct LongBenchConfig {
  std::map<std::string, std::string> prompts, caps;
  std::string where = "LongBench's own prompts";
};

LongBenchConfig read_config(const Values& values) {
  std::vector<fs::path> folders;
  if (values.has("config")) {
    folders = {values.string("config")};
  } else {
    const fs::path path = values.string("path");
    const fs::path folder = is_file(path.string()) ? path.parent_path() : path;
    folders = {folder, folder / "config", folder / ".." / "config"};
  }
  LongBenchConfig config;
  for (const fs::path& candidate : folders) {
    if (!is_file((candidate / "dataset2prompt.json").string())) continue;
    config.where = (candidate / "dataset2prompt.json").string();
    config.prompts = read_string_map(config.where);
    if (is_file((candidate / "dataset2maxlen.json").string())) {
      config.caps = read_string_map((candidate / "dataset2maxlen.json").string());
    }
    return config;
  }
  if (values.has("config")) {
    fail("longbench: config=", values.string("config"),
         ": contains no dataset2prompt.json; expected the folder config/ of LongBench");
  }
  return config;
}

int64_t cap_of(const LongBenchTask& task, const LongBenchConfig& config) {
  const auto found = config.caps.find(task.name);
  if (found == config.caps.end()) return task.reserve;
  const std::string& text = found->second;
  int64_t cap = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), cap);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size() || cap < 1) {
    fail("dataset2maxlen.json: field ", quote(task.name), ": expected a number of tokens of at least 1, found ",
         quote(text));
  }
  return cap;
}

/// Returns the length bucket of LongBench-E: "0-4k", "4-8k" or "8k+".
const char* bucket(int64_t words) { return words < 4000 ? "0-4k" : words < 8000 ? "4-8k" : "8k+"; }

SetTask::Scorer scorer(const LongBenchTask& task) {
  return
      [compare = score_by(task.metric), first_line = task.first_line](const Sample& sample, const Answer& answer) {
        if (!first_line) return compare(sample, answer);
        std::string_view text = answer.text;
        while (text.starts_with('\n')) text.remove_prefix(1);
        Answer cut;
        cut.text = text.substr(0, text.find('\n'));
        return compare(sample, cut);
      };
}

Sample read_sample(const SetRecord& record, const LongBenchTask& task, int64_t reserve, const PromptForm& form,
                   bool balanced) {
  Sample sample = published_sample(reserve, record.texts("answers"), record.number());
  form.fill({{"context", record.text("context")}, {"input", record.text_or("input", "")}}, sample);
  sample.chat = task.chat;
  if (task.name == std::string_view("samsum")) sample.stop = {"\n"};
  if (task.metric == std::string_view("class")) sample.details["classes"] = record.texts("all_classes");
  if (record.find("length") != nullptr) sample.details["length"] = record.integer("length");
  if (balanced) sample.details["kinds"] = Json::array({bucket(record.integer("length"))});
  return sample;
}

}  // namespace

MethodInfo longbench_info() {
  MethodInfo info{.name = "longbench",
                  .summary = "LongBench and LongBench-E: 21 tasks in English, Chinese and code",
                  .paper = "LongBench: A Bilingual, Multitask Benchmark for Long Context Understanding, 2023",
                  .needs = "files of the set",
                  .parameters = set_parameters(source())};
  info.parameters.push_back(
      {.name = "config",
       .type = Parameter::Type::kString,
       .summary = "folder with LongBench's prompts (dataset2prompt.json, dataset2maxlen.json); default: next "
                  "to the data; without these files, Fathom's own prompts"});
  return info;
}

TaskList make_longbench(const Values& values) {
  std::vector<std::string> names;
  for (const LongBenchTask& task : kTasks) {
    names.emplace_back(task.name);
    names.push_back(std::string(task.name) + "_e");
  }
  const std::vector<SetFile> files = find_set_files(values, source(), names, {".jsonl"}, {"data"});
  const LongBenchConfig config = read_config(values);
  TaskList tasks;
  for (const SetFile& file : files) {
    const auto* known = std::ranges::find_if(kTasks, [&](const LongBenchTask& task) {
      return file.name == task.name || file.name == std::string(task.name) + "_e";
    });
    const auto published = config.prompts.find(known->name);
    const PromptForm form(published == config.prompts.end() ? known->prompt : published->second, config.where,
                          {"context", "input"}, "context");
    const int64_t reserve = cap_of(*known, config);
    auto task = std::make_shared<SetTask>("longbench/" + file.name, scorer(*known));
    read_records(file.path, [&](const SetRecord& record) {
      task->add(read_sample(record, *known, reserve, form, file.name != known->name));
    });
    task->finish(file.path);
    tasks.push_back(std::move(task));
  }
  return tasks;
}

}  // namespace fathom::eval
