// In-context classification with many classes of nonsense words; the meaning of a label can only be learned from
// the demonstrations.
#include <algorithm>
#include <numeric>

#include "eval/metrics.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

constexpr int64_t kClassWords = 8, kItemWords = 12;

struct ItemClass {
  std::string label;
  std::vector<std::string> words;  // each word repeated by its weight
};

/// Draws classes with 8 words each of a shared vocabulary, with weights 1 to 4. The vocabulary has 24 words plus 4
/// per class, so with many classes a word belongs to two classes on average and seldom determines the class.
std::vector<ItemClass> draw_classes(Rng& rng, int64_t count) {
  FreshWords fresh;
  const std::vector<std::string> vocabulary = fresh.draw(rng, 2, 24 + kClassWords * count / 2);
  std::vector<ItemClass> classes;
  for (int64_t i = 0; i < count; ++i) {
    ItemClass drawn{fresh.draw(rng, 2), {}};
    for (const int64_t word : rng.distinct(std::ssize(vocabulary), kClassWords)) {
      drawn.words.insert(drawn.words.end(), rng.between(1, 4), vocabulary[word]);
    }
    classes.push_back(std::move(drawn));
  }
  return classes;
}

std::string draw_item(Rng& rng, const ItemClass& item_class) {
  std::vector<std::string> words;
  for (int64_t i = 0; i < kItemWords; ++i) words.push_back(rng.pick(item_class.words));
  return join(words, " ");
}

class Classify final : public Task {
 public:
  Classify(std::string name, int64_t classes, bool name_labels, bool grouped)
      : Task(std::move(name)), classes_(classes), name_labels_(name_labels), grouped_(grouped) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    const Rng start = rng(input, length, index);
    return fit_sample(*this, input, length, classes_, std::max(classes_, length),
                      [&](int64_t items) { return build(input, items, start); });
  }

  /// Scores 1 if the first line is the label.
  Score score(const Sample& sample, const Answer& answer) const override {
    return {lower_case(first_line(answer.text)) == sample.references[0] ? 1.0 : 0.0};
  }

 private:
  /// Returns the class of each demonstration: rounds in which each class occurs once in random order; the last
  /// round may be incomplete. If grouped, the demonstrations are sorted by class.
  std::vector<int64_t> draw_order(Rng& rng, int64_t items) const {
    std::vector<int64_t> order, round(classes_);
    std::iota(round.begin(), round.end(), 0);
    rng.shuffle(round);
    std::vector<int64_t> rank(classes_);
    for (int64_t i = 0; i < classes_; ++i) rank[round[i]] = i;
    while (std::ssize(order) < items) {
      order.insert(order.end(), round.begin(), round.begin() + std::min(classes_, items - std::ssize(order)));
      rng.shuffle(round);
    }
    if (grouped_) std::ranges::stable_sort(order, {}, [&](int64_t item_class) { return rank[item_class]; });
    return order;
  }

  Sample build(const TaskInput& input, int64_t items, Rng rng) const {
    const std::vector<ItemClass> classes = draw_classes(rng, classes_);
    const int64_t query_class = rng.below(classes_);
    const std::string query = draw_item(rng, classes[query_class]);
    Sample sample;
    sample.context =
        "Items are sorted by the words that they are made of. Each item below is followed by its label.\n";
    if (name_labels_) {
      std::vector<std::string> labels;
      for (const ItemClass& named : classes) labels.push_back(named.label);
      sample.context += "The labels are: " + join(labels, ", ") + ".\n";
    }
    sample.context += '\n';
    for (const int64_t item_class : draw_order(rng, items)) {
      const TextSpan item = append_part(
          sample.context, "item: " + draw_item(rng, classes[item_class]) + "\nlabel: " + classes[item_class].label);
      if (item_class == query_class) sample.evidence.push_back(item);
      sample.context += "\n\n";
    }
    sample.question = "item: " + query + "\n";
    sample.lead = "label:";
    sample.references = {classes[query_class].label};
    sample.reserve = reserve_for(input, sample.references[0]);
    sample.stop = {"\n"};
    sample.details["demonstrations"] = items;
    // The start of the last demonstration of the class, as a share of the context.
    sample.details["last_demonstration"] =
        static_cast<double>(sample.evidence.back().begin) / static_cast<double>(sample.context.size());
    return sample;
  }

  int64_t classes_;
  bool name_labels_, grouped_;
};

}  // namespace

MethodInfo classify_info() {
  using Type = Parameter::Type;
  return {.name = "classify",
          .summary = "label an item after demonstrations of many classes, in nonsense words",
          .paper = "Long-context LLMs Struggle with Long In-context Learning, 2024",
          .needs = "any model",
          .parameters = {{"classes",
                          Type::kInt,
                          "28",
                          "number of labels, each demonstrated at least once; more is harder",
                          2,
                          2000,
                          {}},
                         {"labels",
                          Type::kBool,
                          "false",
                          "true: all labels are listed at the beginning, which is easier",
                          {},
                          {},
                          {}},
                         {"order",
                          Type::kChoice,
                          "shuffled",
                          "order of the demonstrations: shuffled or grouped by label",
                          {},
                          {},
                          {"shuffled", "grouped"}}}};
}

TaskList make_classify(const Values& values) {
  const int64_t classes = values.integer("classes");
  const bool labels = values.boolean("labels"), grouped = values.string("order") == "grouped";
  const std::string name =
      "classify/" + std::to_string(classes) + (labels ? "_labels" : "") + (grouped ? "_grouped" : "");
  return {std::make_shared<Classify>(name, classes, labels, grouped)};
}

}  // namespace fathom::eval
