// Pairs of words, then all keys again in another order: how many values a model can hold and find.
#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

constexpr int64_t kMostPairs = 15000;  // of words with two syllables, of which there are 68,600
constexpr int64_t kLong = 65536;       // tokens: from here on words have three syllables, that there be enough

class Mqar final : public Task {
 public:
  Mqar(std::string name, int64_t pairs) : Task(std::move(name)), pairs_(pairs) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const Rng start = rng;
    if (pairs_ == 0) {
      const int64_t most = length < kLong ? std::min(kMostPairs, length) : length;
      return fit_sample(*this, input, length, 1, most,
                        [&](int64_t pairs) { return build(pairs, length < kLong ? 2 : 3, "", start); });
    }
    return fit_prose_sample(*this, input, length, rng, 0,
                            [&](std::string_view prose) { return build(pairs_, 2, prose, start); });
  }

  /// Share of the values recalled.
  Score score(const Sample& sample, const Answer& answer) const override {
    int64_t right = 0;
    for (size_t i = 0; i < sample.asked.size(); ++i) right += answer.spans.at(i).right;
    return {static_cast<double>(right) / static_cast<double>(sample.asked.size())};
  }

 private:
  static Sample build(int64_t pairs, int syllables, std::string_view prose, Rng rng) {
    FreshWords fresh;
    std::vector<std::pair<std::string, std::string>> said;
    for (int64_t i = 0; i < pairs; ++i) {
      std::string key = fresh.draw(rng, syllables);
      said.emplace_back(std::move(key), fresh.draw(rng, syllables));
    }
    Sample sample;
    sample.mode = Sample::Mode::kForced;
    sample.context = "Each word has a partner:\n";
    for (const auto& [key, value] : said) {
      sample.evidence.push_back(append_part(sample.context, key + ": " + value));
      sample.context += '\n';
    }
    sample.context += concat("\n", prose, prose.empty() ? "" : "\n\n");
    sample.question = "The same words with their partners once more, in another order:\n";
    rng.shuffle(said);
    const size_t offset = sample.context.size() + sample.question.size();
    for (const auto& [key, value] : said) {
      sample.lead += key + ": ";
      const TextSpan span = append_part(sample.lead, value);
      sample.asked.push_back({offset + span.begin, offset + span.end});
      sample.lead += '\n';
    }
    sample.details["pairs"] = pairs;
    return sample;
  }

  int64_t pairs_;
};

}  // namespace

MethodInfo mqar_info() {
  return {.name = "mqar",
          .summary = "multi-query associative recall: the partners of nonsense words, all of them asked for",
          .paper = "Zoology: Measuring and Improving Recall in Efficient Language Models, 2023",
          .needs = "any model",
          .parameters = {{"pairs",
                          Parameter::Type::kInt,
                          "0",
                          "before a gap of prose; 0: as many as fit, and no gap",
                          0,
                          kMostPairs,
                          {}}}};
}

TaskList make_mqar(const Values& values) {
  const int64_t pairs = values.integer("pairs");
  return {std::make_shared<Mqar>(pairs == 0 ? "mqar" : "mqar/" + std::to_string(pairs), pairs)};
}

}  // namespace fathom::eval
