#include <algorithm>

#include "base/error.h"
#include "eval/metrics.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

constexpr int64_t kReserve = 128;

struct M4leTask {
  const char* name;
  const char* metric;
  std::vector<std::string> stop{};
  std::string reference_end{};  // references are also cut before this
};

const std::vector<M4leTask>& m4le_tasks() {
  const std::vector<std::string> line{"\n"};
  const std::vector<std::string> sentence{"\n", "."};
  const std::vector<std::string> sentence_zh{"\n", "。"};
  static const std::vector<M4leTask> tasks{
      {"arxiv", "rouge_l_sentences_recall", line},
      {"bigpatent_global_cls", "substr_any", {":"}},
      {"bigpatent_global_sum", "rouge_l_sentences_recall", line},
      {"booksum", "rouge_l_sentences_recall", line},
      {"c3", "substr_any", sentence_zh},
      {"cepsum", "rouge_l_sentences_recall_zh", line},
      {"clts+", "rouge_l_sentences_recall_zh", {"\n", "新闻"}},
      {"cnewsum", "rouge_l_sentences_recall_zh", {"\n", "新闻"}},
      {"cnnnews", "rouge_l_sentences_recall", line},
      {"drcd_explicit-single_ret", "substr_any", {"，", "\n"}},
      {"drcd_semantic-single_qa", "substr_any", sentence_zh},
      {"duorc", "substr_any", sentence},
      {"dureader", "substr_any", sentence_zh},
      {"hotpotqa", "substr_any", sentence},
      {"lcsts", "rouge_l_sentences_recall_zh", line},
      {"marc", "comma_f1", {"."}, "."},
      {"mnds-news_explicit-multiple_cls+ret", "comma_f1", {"."}, "."},
      {"mnds-news_explicit-single_cls+ret", "same_text"},
      {"mnds-news_semantic-multiple_cls+cnt", "same_text", {"."}, "."},
      {"ncls", "rouge_l_sentences_recall_zh", line},
      {"news-commentary-en2zh", "bleu_zh"},
      {"news-commentary-zh2en", "bleu"},
      {"news2016", "rouge_l_sentences_recall_zh", line},
      {"newsqa", "substr_any", sentence},
      {"nq-open", "substr_any", sentence},
      {"online-shopping", "comma_f1", {"。"}},
      {"open-subtitles-en2zh", "bleu_zh"},
      {"open-subtitles-zh2en", "bleu"},
      {"pubmed", "rouge_l_sentences_recall", line},
      {"tedtalks-en2zh", "bleu_zh"},
      {"tedtalks-zh2en", "bleu"},
      {"thucnews_explicit-multiple_cls+ret", "comma_f1", {"。"}},
      {"thucnews_explicit-single_cls+ret", "same_text"},
      {"thucnews_semantic-multiple_cls+cnt", "same_text", {"。"}, "。"},
      {"triviaqa", "substr_any", sentence},
      {"wiki2019zh", "same_text", {"。"}},
      {"wikihow", "rouge_l_sentences_recall", line},
      {"wikitext-103", "same_text", {"."}},
      {"wow", "substr_any", {",", "\n"}},
  };
  return tasks;
}

SetSource source() { return {"m4le", "<task>.jsonl, such as hotpotqa.jsonl,", "M4LE (Hugging Face: wckwan/M4LE)"}; }

/// Returns the text in the first quotation marks, or all of it without them (for news headlines).
std::string_view quoted_part(std::string_view text) {
  const size_t begin = text.find('"');
  if (begin == std::string_view::npos) return text;
  text.remove_prefix(begin + 1);
  return text.substr(0, text.find('"'));
}

SetTask::Scorer scorer(const M4leTask& task) {
  return [compare = score_by(task.metric), headline = task.name == std::string_view("news2016")](
             const Sample& sample, const Answer& answer) {
    std::string_view text = answer.text;
    for (const std::string& end : sample.stop) text = text.substr(0, text.find(end));
    Answer cut;
    cut.text = trim(headline ? quoted_part(text) : text);
    return compare(sample, cut);
  };
}

Sample read_sample(const SetRecord& record, const M4leTask& task) {
  std::vector<std::string> references = record.texts("answers");
  for (std::string& reference : references) {
    if (!task.reference_end.empty()) reference = reference.substr(0, reference.find(task.reference_end));
  }
  Sample sample = published_sample(kReserve, std::move(references), record.number());
  sample.context = record.text("instruction") + "\n" + record.text("input");
  sample.stop = task.stop;
  if (record.find("length_bucket") != nullptr)
    sample.details["kinds"] = Json::array({std::to_string(record.integer("length_bucket"))});
  return sample;
}

}  // namespace

MethodInfo m4le_info() {
  return {
      .name = "m4le",
      .summary =
          "M4LE: short tasks extended to long inputs, five abilities; the paper normalises scores by "
          "those of GPT-3.5-16k",
      .paper = "M4LE: A Multi-Ability Multi-Range Multi-Task Multi-Domain Long-Context Evaluation Benchmark, 2023",
      .needs = "files of the set",
      .parameters = set_parameters(source())};
}

TaskList make_m4le(const Values& values) {
  std::vector<std::string> names;
  for (const M4leTask& task : m4le_tasks()) names.emplace_back(task.name);
  TaskList tasks;
  for (const SetFile& file : find_set_files(values, source(), names, {".jsonl"}, {"data"})) {
    const M4leTask& known =
        *std::ranges::find_if(m4le_tasks(), [&](const M4leTask& task) { return file.name == task.name; });
    auto task = std::make_shared<SetTask>("m4le/" + file.name, scorer(known));
    read_records(file.path, [&](const SetRecord& record) { task->add(read_sample(record, known)); });
    task->finish(file.path);
    tasks.push_back(std::move(task));
  }
  return tasks;
}

}  // namespace fathom::eval
