// Many answers to one question. Only one of them recommends everything that the question requires.
#include <algorithm>

#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

constexpr int64_t kItems = 3, kMinAnswerWords = 12;  // kMinAnswerWords: words of prose in each answer

/// Adds the article: "a kettle".
std::string with_article(std::string_view noun) {
  return (std::string_view("aeiou").find(noun[0]) == std::string_view::npos ? "a " : "an ") + std::string(noun);
}

std::string list_items(const std::vector<std::string_view>& nouns) {
  return concat(with_article(nouns[0]), ", ", with_article(nouns[1]), " and ", with_article(nouns[2]));
}

/// Returns an advice that names all required items in random order or, for a distractor, one or two of them.
std::string advice(Rng& rng, std::vector<std::string_view> items, bool best) {
  rng.shuffle(items);
  if (!best) {
    const std::vector<std::string_view> required = items;
    for (int64_t keep = rng.between(1, kItems - 1); keep < kItems; ++keep) {
      do items[keep] = rng.pick(nouns());
      while (std::ranges::count(required, items[keep]) > 0 || std::ranges::count(items, items[keep]) > 1);
    }
    rng.shuffle(items);
  }
  return concat(rng.pick(first_names()), " recommends ", list_items(items), ".");
}

class BestAnswer final : public Task {
 public:
  BestAnswer(std::string name, int64_t tokens) : Task(std::move(name)), tokens_(tokens) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const int64_t answers = std::max<int64_t>(2, length / tokens_);
    const Rng start = rng;
    return fit_prose_sample(*this, input, length, rng, answers * kMinAnswerWords,
                            [&](std::string_view prose) { return build(input, prose, answers, start); });
  }

  /// Scores 1 if the highest label in the text, or else the first number, is the correct one.
  Score score(const Sample& sample, const Answer& answer) const override {
    int64_t label = -1;
    for (size_t at = answer.text.find('A'); at != std::string::npos; at = answer.text.find('A', at + 1)) {
      const std::string_view rest = std::string_view(answer.text).substr(at + 1);
      const std::string_view digits = rest.substr(0, rest.find_first_not_of("0123456789"));
      if (!digits.empty() && digits.size() <= 9) label = std::max(label, numbers_in(digits)[0]);
    }
    const std::vector<int64_t> bare = numbers_in(answer.text);
    if (label < 0 && !bare.empty()) label = bare.front();
    return {"A" + std::to_string(label) == sample.references[0] ? 1.0 : 0.0};
  }

 private:
  static Sample build(const TaskInput& input, std::string_view prose, int64_t answers, Rng rng) {
    std::vector<std::string_view> items;
    for (const int64_t noun : rng.distinct(std::ssize(nouns()), kItems)) items.push_back(nouns()[noun]);
    const int64_t best = rng.below(answers);
    std::vector<double> cuts;
    for (int64_t i = 1; i < answers; ++i) cuts.push_back(static_cast<double>(i) / static_cast<double>(answers));
    const std::vector<std::string_view> pieces = cut_prose(prose, cuts, 0.3 / static_cast<double>(answers));
    Sample sample;
    sample.context = "Below are a number of answers, labelled A1, A2 and so on.\n\n";
    for (int64_t i = 0; i < answers; ++i) {
      const std::vector<std::string_view> halves = cut_prose(pieces[i], {rng.uniform()}, 1);
      sample.context += concat("A", i + 1, ": ", halves[0], halves[0].empty() ? "" : " ");
      const TextSpan span = append_part(sample.context, advice(rng, items, i == best));
      if (i == best) sample.evidence = {span};
      sample.context += concat(halves[1].empty() ? "" : " ", halves[1], "\n\n");
    }
    sample.question = concat("Question: Which of the answers recommends all three of these: ", list_items(items),
                             "? Give its label.\n");
    sample.lead = "Answer: The label is";
    sample.references = {concat("A", best + 1)};
    sample.reserve = reserve_for(input, sample.references[0]);
    sample.stop = {"\n"};
    sample.depth = static_cast<double>(sample.evidence[0].begin) / static_cast<double>(sample.context.size());
    sample.details["answers"] = answers;
    return sample;
  }

  int64_t tokens_;
};

}  // namespace

MethodInfo best_answer_info() {
  return {.name = "best_answer",
          .summary = "find the only answer among many that recommends everything the question requires",
          .paper = "Ada-LEval: Evaluating long-context LLMs with length-adaptable benchmarks, 2024",
          .needs = "any model",
          .parameters = {{"tokens",
                          Parameter::Type::kInt,
                          "128",
                          "approximate tokens of one answer; more gives fewer answers",
                          64,
                          1e6,
                          {}}}};
}

TaskList make_best_answer(const Values& values) {
  return {std::make_shared<BestAnswer>("best_answer", values.integer("tokens"))};
}

}  // namespace fathom::eval
