// Multi-query associative recall: pairs of words, then all keys again in another order.
#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

constexpr int64_t kMaxPairs = 15000;  // two-syllable words suffice: there are 68,600
// From this length in tokens on, words have three syllables, because there are too few words of two.
constexpr int64_t kManyPairsFrom = 65536;

class Mqar final : public Task {
 public:
  Mqar(std::string name, int64_t pairs) : Task(std::move(name)), pairs_(pairs) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const Rng start = rng;
    if (pairs_ == 0) {
      const int64_t max_pairs = length < kManyPairsFrom ? std::min(kMaxPairs, length) : length;
      return fit_sample(*this, input, length, 1, max_pairs,
                        [&](int64_t pairs) { return build(pairs, length < kManyPairsFrom ? 2 : 3, "", start); });
    }
    return fit_prose_sample(*this, input, length, rng, 0,
                            [&](std::string_view prose) { return build(pairs_, 2, prose, start); });
  }

  /// Scores the share of the values recalled.
  Score score(const Sample& sample, const Answer& answer) const override {
    int64_t correct = 0;
    for (size_t i = 0; i < sample.scored.size(); ++i) correct += answer.spans.at(i).correct;
    return {static_cast<double>(correct) / static_cast<double>(sample.scored.size())};
  }

 private:
  static Sample build(int64_t pairs, int syllables, std::string_view prose, Rng rng) {
    FreshWords fresh;
    std::vector<std::pair<std::string, std::string>> partners;
    for (int64_t i = 0; i < pairs; ++i) {
      std::string key = fresh.draw(rng, syllables);
      partners.emplace_back(std::move(key), fresh.draw(rng, syllables));
    }
    Sample sample;
    sample.mode = Sample::Mode::kForced;
    sample.context = "Each word has a partner:\n";
    for (const auto& [key, value] : partners) {
      sample.evidence.push_back(append_part(sample.context, key + ": " + value));
      sample.context += '\n';
    }
    sample.context += concat("\n", prose, prose.empty() ? "" : "\n\n");
    sample.question = "The same words with their partners once more, in another order:\n";
    rng.shuffle(partners);
    const size_t offset = sample.context.size() + sample.question.size();
    for (const auto& [key, value] : partners) {
      sample.lead += key + ": ";
      const TextSpan span = append_part(sample.lead, value);
      sample.scored.push_back({offset + span.begin, offset + span.end});
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
          .summary = "multi-query associative recall: state the partners of all nonsense words",
          .paper = "Zoology: Measuring and Improving Recall in Efficient Language Models, 2023",
          .needs = "any model",
          .parameters = {{"pairs",
                          Parameter::Type::kInt,
                          "0",
                          "pairs before a gap of prose; more is harder; 0: as many as fit, without a gap",
                          0,
                          kMaxPairs,
                          {}}}};
}

TaskList make_mqar(const Values& values) {
  const int64_t pairs = values.integer("pairs");
  return {std::make_shared<Mqar>(pairs == 0 ? "mqar" : "mqar/" + std::to_string(pairs), pairs)};
}

}  // namespace fathom::eval
