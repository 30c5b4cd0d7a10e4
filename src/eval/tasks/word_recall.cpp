// A list of names that is repeated after a gap. Measures how well a model predicts each word of a text it has read.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

constexpr int64_t kMinGapWords = 8;  // of the gap, at least

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// Replaces the names in `names` by names drawn from `others`, so that the gap does not contain words of the lists.
std::string replace_names(std::string_view prose, const std::set<std::string_view>& names, const WordList& others,
                          Rng rng) {
  std::string text;
  for (size_t begin = 0; begin < prose.size();) {
    size_t end = begin;
    while (end < prose.size() && is_letter(prose[end])) ++end;
    const std::string_view word = prose.substr(begin, end - begin);
    text += names.contains(word) ? rng.pick(others) : word;
    if (end < prose.size()) text += prose[end];
    begin = end + 1;
  }
  return text;
}

class WordRecall final : public Task {
 public:
  WordRecall(std::string name, int64_t words, std::string condition, bool generate)
      : Task(std::move(name)), words_(words), condition_(std::move(condition)), generate_(generate) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const WordList names = draw_names(input, rng);
    const WordList first(names.begin(), names.begin() + words_);
    const WordList second = second_list(names, rng);
    const Rng start = rng;
    return fit_prose_sample(*this, input, length, rng, kMinGapWords, [&](std::string_view prose) {
      const WordList others(names.begin() + 2 * words_, names.end());
      const std::string gap = replace_names(prose, {names.begin(), names.begin() + 2 * words_}, others, start);
      return build(input, first, second, gap);
    });
  }

  /// Scores the share of the words recalled: of a list that the model reads, all words but the first, which cannot
  /// be predicted; of a list that it writes, all words at their positions. surprisal_ratio: the surprisal of the
  /// second list in percent of that of the first.
  Score score(const Sample& sample, const Answer& answer) const override {
    return generate_ ? score_written(sample, answer) : score_read(answer);
  }

 private:
  /// Returns all names in random order, those with fewer tokens first: models predict them better, and the words of
  /// a list have similar lengths.
  static WordList draw_names(const TaskInput& input, Rng& rng) {
    WordList names = first_names();
    rng.shuffle(names);
    std::ranges::stable_sort(names, {}, [&](std::string_view name) { return input.count(concat(" ", name)); });
    return names;
  }

  WordList second_list(const WordList& names, Rng& rng) const {
    const auto begin = names.begin() + (condition_ == "control" ? words_ : 0);
    const WordList first(begin, begin + words_);
    WordList second = first;
    while (condition_ == "permute" && second == first) rng.shuffle(second);
    return second;
  }

  Sample build(const TaskInput& input, const WordList& first, const WordList& second,
               const std::string& gap) const {
    Sample sample;
    sample.context = "The list: ";
    const size_t list = sample.context.size();
    sample.evidence = {append_part(sample.context, join(first, " "))};
    sample.context += concat(".\n", gap, "\n");
    sample.question = "Question: Repeat the list.\n";
    sample.lead = "Answer: The list:";
    if (generate_) {
      sample.references = {join(second, " ")};
      sample.reserve = reserve_for(input, sample.references[0]);
      sample.stop = {".", "\n"};
      return sample;
    }
    sample.mode = Sample::Mode::kForced;
    add_spans(list, first, sample.scored);
    add_spans(sample.prompt().size() + 1, second, sample.scored);
    sample.lead += " " + join(second, " ") + ".";
    sample.details["asked"] = concat("the words of the first list but its first (", words_ - 1,
                                     "), then those of the second but its first");
    return sample;
  }

  /// Appends the spans of all words but the first of a list that begins at `begin`.
  static void add_spans(size_t begin, const WordList& words, std::vector<TextSpan>& scored) {
    for (size_t i = 0; i < words.size(); ++i) {
      if (i > 0) scored.push_back({begin, begin + words[i].size()});
      begin += words[i].size() + 1;
    }
  }

  Score score_written(const Sample& sample, const Answer& answer) const {
    const std::vector<std::string_view> expected = split(sample.references[0], ' ');
    std::vector<std::string_view> answered = split(first_line(answer.text), ' ');
    int64_t correct = 0;
    for (size_t i = 0; i < std::min(answered.size(), expected.size()); ++i)
      correct += strip(answered[i], ".,;") == expected[i];
    return {static_cast<double>(correct) / static_cast<double>(words_)};
  }

  Score score_read(const Answer& answer) const {
    const size_t words = words_ - 1;
    double first = 0, second = 0;
    int64_t correct = 0;
    for (size_t i = 0; i < words; ++i) {
      first += answer.spans.at(i).nll;
      second += answer.spans.at(words + i).nll;
      correct += answer.spans[words + i].correct;
    }
    Score score{static_cast<double>(correct) / static_cast<double>(words)};
    if (first > 0) score.details["surprisal_ratio"] = 100 * second / first;
    return score;
  }

  int64_t words_;
  std::string condition_;
  bool generate_;
};

}  // namespace

MethodInfo word_recall_info() {
  using Type = Parameter::Type;
  return {.name = "word_recall",
          .summary = "a list of names is repeated after a gap; measures the words recalled and their surprisal",
          .paper = "Characterizing Verbatim Short-Term Memory in Neural Language Models, 2022",
          .needs = "any model",
          .parameters = {{"words", Type::kInt, "5", "names in the list; more is harder", 2, 30, {}},
                         {"condition",
                          Type::kChoice,
                          "repeat",
                          "the second list: repeat (the same), permute (reordered), control (other names)",
                          {},
                          {},
                          {"repeat", "permute", "control"}},
                         {"mode",
                          Type::kChoice,
                          "forced",
                          "forced: the second list is read; generate: the model writes it (condition=repeat only)",
                          {},
                          {},
                          {"forced", "generate"}}}};
}

TaskList make_word_recall(const Values& values) {
  const int64_t words = values.integer("words");
  const std::string& condition = values.string("condition");
  const bool generate = values.string("mode") == "generate";
  if (generate && condition != "repeat") {
    fail_usage("task word_recall: mode=generate needs condition=repeat, found condition=", condition,
               ": a model can only write a list that it has read");
  }
  const std::string name = concat("word_recall/", condition, "_", words, generate ? "_generate" : "");
  return {std::make_shared<WordRecall>(name, words, condition, generate)};
}

}  // namespace fathom::eval
