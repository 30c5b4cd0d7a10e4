#include <algorithm>

#include "base/error.h"
#include "eval/metrics.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

constexpr int64_t kReserve = 16384;

struct HelloTask {
  const char* name;
  double words;  // required words; 1000 where the set only requires a long text
};

constexpr HelloTask kTasks[] = {
    {"open_ended_qa", 1000},
    {"summarization", 1000},
    {"chat", 1000},
    {"text_completion", 1000},
    {"heuristic_text_generation", 1000},
    {"heuristic_text_generation_2k", 2000},
    {"heuristic_text_generation_4k", 4000},
    {"heuristic_text_generation_8k", 8000},
    {"heuristic_text_generation_16k", 16000},
};

SetSource source() {
  return {"hellobench", "<task>.jsonl, such as open_ended_qa.jsonl,", "HelloBench (github.com/Quehry/HelloBench)"};
}

/// Scores length and repetition. HelloEval, the score of the set, needs a judge and is not computed.
SetTask::Scorer scorer(double expected) {
  return [expected](const Sample&, const Answer& answer) {
    const auto words = static_cast<double>(count_words(answer.text));
    const double repeated = repetition(answer.text);
    Score score;
    score.value = length_score(expected, std::min(words, expected)) * (1 - repeated);
    score.details["words"] = words;
    score.details["repetition"] = repeated;
    score.details["ends_sentence"] = ends_sentence(answer.text) ? 1 : 0;
    return score;
  };
}

}  // namespace

MethodInfo hellobench_info() {
  return {.name = "hellobench",
          .summary = "HelloBench's prompts for long texts; scores length and repetition, without a judge",
          .paper = "HelloBench: Evaluating Long Text Generation Capabilities of Large Language Models, 2024",
          .needs = "files of the set",
          .parameters = set_parameters(source())};
}

TaskList make_hellobench(const Values& values) {
  std::vector<std::string> names;
  for (const HelloTask& task : kTasks) names.emplace_back(task.name);
  TaskList tasks;
  for (const SetFile& file :
       find_set_files(values, source(), names, {".jsonl"},
                      {"main_data", "length_constrained_data", "data/main_data", "data/length_constrained_data"})) {
    const auto* known = std::ranges::find_if(kTasks, [&](const HelloTask& task) { return file.name == task.name; });
    auto task = std::make_shared<SetTask>("hellobench/" + file.name, scorer(known->words));
    read_records(file.path, [&](const SetRecord& record) {
      Sample sample = published_sample(kReserve, {}, record.number());
      sample.context = record.text("instruction");
      if (record.find("category") != nullptr) sample.details["category"] = record.text("category");
      task->add(std::move(sample));
    });
    task->finish(file.path);
    tasks.push_back(std::move(task));
  }
  return tasks;
}

}  // namespace fathom::eval
