// One fact hidden in a long text at a depth of a grid: needle in a haystack, and the pass key in repeated noise
// (Landmark Attention: Random-Access Infinite Context Length for Transformers, 2023). Both are scored by whether
// the answer contains the reference.
#include <algorithm>

#include "base/format.h"
#include "eval/metrics.h"
#include "eval/tasks/hiding.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

/// The hidden fact, the instruction, the question, the beginning of the answer, and the reference.
struct HiddenFact {
  std::string fact, statement, question, lead, answer;
};

class DepthGridTask : public Task {
 public:
  DepthGridTask(std::string name, const Values& values)
      : Task(std::move(name)),
        depths_(values.integer("depths")),
        logistic_(values.string("spacing") == "logistic") {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const double depth = grid_depth(index, depths_, logistic_);
    return make_at(input, length, depth, rng);
  }
  Score score(const Sample& sample, const Answer& answer) const override {
    return {find_metric("substr_any").score(answer.text, sample), {}};
  }

 protected:
  virtual Sample make_at(const TaskInput& input, int64_t length, double depth, Rng& rng) const = 0;

  static Sample build(const HiddenFact& hidden, const std::string& text, double depth) {
    Sample sample;
    sample.context = hidden.statement + "\n\n" + text;
    add_evidence(sample, hidden.fact);
    sample.question = "\nQuestion: " + hidden.question + "\n";
    sample.lead = "Answer: " + hidden.lead;
    sample.references = {hidden.answer};
    sample.depth = depth;
    sample.reserve = 24;
    sample.stop = {"\n"};
    return sample;
  }

 private:
  int64_t depths_;
  bool logistic_;
};

class NeedleInHaystack final : public DepthGridTask {
 public:
  explicit NeedleInHaystack(const Values& values) : DepthGridTask("needle", values) {}

 protected:
  Sample make_at(const TaskInput& input, int64_t length, double depth, Rng& rng) const override {
    const std::string text = input.haystack->text(rng, length);
    const HiddenFact hidden = draw(rng, text);
    const std::vector<size_t> ends = word_ends(text);
    const auto build_of = [&](int64_t words) {
      const std::string_view beginning = std::string_view(text).substr(0, words > 0 ? ends[words - 1] : 0);
      return build(hidden, hide_in_prose(beginning, {{hidden.fact}, {depth}}) + "\n", depth);
    };
    return fit_sample(*this, input, length, 0, static_cast<int64_t>(ends.size()), build_of, haystack_source(input));
  }

 private:
  /// Draws a secret code that does not occur in the text around it.
  static HiddenFact draw(Rng& rng, const std::string& text) {
    for (;;) {
      const std::string number = random_number(rng, 6), name(rng.pick(first_names()));
      if (text.find(number) != std::string::npos) continue;
      return {concat("The secret code of ", name, " is ", number, "."),
              "Read the text below and remember the secret code that stands in it.",
              concat("What is the secret code of ", name, "?"), concat("The secret code of ", name, " is"), number};
    }
  }
};

class PassKey final : public DepthGridTask {
 public:
  explicit PassKey(const Values& values) : DepthGridTask("passkey", values) {}

 protected:
  Sample make_at(const TaskInput& input, int64_t length, double depth, Rng& rng) const override {
    const std::string key = random_number(rng, 5);
    const HiddenFact hidden{concat("The pass key is ", key, ". Remember it. ", key, " is the pass key."),
                            "Pass over the idle words below and remember the pass key that stands among them.",
                            "What is the pass key?", "The pass key is", key};
    return fit_sample(*this, input, length, 0, length, [&](int64_t lines) {
      return build(hidden, hide_in_noise(lines, {{hidden.fact}, {depth}}), depth);
    });
  }
};

/// LongChat's lines (How Long Can Open-Source LLMs Truly Promise on Context Length?, 2023): each line has a name
/// and a number; the question is about one of them.
class NamedLines final : public Task {
 public:
  NamedLines() : Task("lines") {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const int64_t max_lines = length / 8;  // a line has far more than eight tokens
    const std::vector<std::string> names = draw_names(rng, max_lines);
    std::vector<std::string> numbers;
    for (int64_t i = 0; i < max_lines; ++i) numbers.push_back(random_number(rng, 5));
    const double queried = rng.uniform();
    return fit_sample(*this, input, length, 1, std::max<int64_t>(max_lines, 1), [&](int64_t lines) {
      return build(names, numbers, lines, static_cast<int64_t>(queried * static_cast<double>(lines)));
    });
  }
  Score score(const Sample& sample, const Answer& answer) const override {
    return {find_metric("substr_any").score(answer.text, sample), {}};
  }

 private:
  /// Draws distinct names: pairs of words, or three words if there are too few pairs.
  static std::vector<std::string> draw_names(Rng& rng, int64_t count) {
    const auto nouns_count = static_cast<int64_t>(nouns().size());
    const int64_t pairs = static_cast<int64_t>(adjectives().size()) * nouns_count;
    std::vector<std::string> names;
    for (const int64_t i : rng.distinct(std::max(pairs, pairs * nouns_count), count + 1)) {
      std::string name = concat(adjectives()[i % pairs / nouns_count], "-", nouns()[i % nouns_count]);
      if (count > pairs / 2) name += concat("-", nouns()[i / pairs]);
      names.push_back(std::move(name));
    }
    return names;
  }

  static Sample build(const std::vector<std::string>& names, const std::vector<std::string>& numbers, int64_t lines,
                      int64_t queried) {
    Sample sample;
    sample.context = "Below are lines, each with a name and what its register holds. Remember them.\n\n";
    for (int64_t i = 0; i < lines; ++i) {
      const size_t begin = sample.context.size();
      sample.context += concat("The register of line ", names[i], " is ", numbers[i], ".\n");
      if (i == queried) sample.evidence = {{begin, sample.context.size()}};
    }
    sample.depth = lines > 1 ? static_cast<double>(queried) / static_cast<double>(lines - 1) : 0.0;
    sample.question = concat("\nQuestion: What is the register of line ", names[queried], "?\n");
    sample.lead = concat("Answer: The register of line ", names[queried], " is");
    sample.references = {numbers[queried]};
    sample.reserve = 16;
    sample.stop = {"\n"};
    return sample;
  }
};

std::vector<Parameter> grid_parameters() {
  return {{"depths",
           Parameter::Type::kInt,
           "10",
           "depths of the grid; samples cycle through them; more is a finer grid",
           1,
           1000,
           {}},
          {"spacing",
           Parameter::Type::kChoice,
           "linear",
           "linear: evenly spaced depths; logistic: denser near both ends",
           {},
           {},
           {"linear", "logistic"}}};
}

}  // namespace

MethodInfo needle_info() {
  return {"", "needle", "find a code hidden in prose, over a grid of depths (needle in a haystack)",
          "", false,    "any model",
          "", "",       grid_parameters()};
}
TaskList make_needle(const Values& values) { return {std::make_shared<NeedleInHaystack>(values)}; }

MethodInfo passkey_info() {
  return {"",
          "passkey",
          "find a pass key stated twice in repeated noise, over a grid of depths",
          "Landmark Attention: Random-Access Infinite Context Length for Transformers, 2023",
          false,
          "any model",
          "",
          "",
          grid_parameters()};
}
TaskList make_passkey(const Values& values) { return {std::make_shared<PassKey>(values)}; }

MethodInfo lines_info() {
  return {"",
          "lines",
          "lines with a name and a number each; find the number of one name (LongChat)",
          "How Long Can Open-Source LLMs Truly Promise on Context Length?, 2023",
          false,
          "any model",
          "",
          "",
          {}};
}
TaskList make_lines(const Values&) { return {std::make_shared<NamedLines>()}; }

}  // namespace fathom::eval
