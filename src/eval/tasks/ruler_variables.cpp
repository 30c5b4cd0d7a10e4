// RULER's variable tracking (RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024):
// chains of assignments scattered in noise.
#include <algorithm>
#include <set>

#include "eval/tasks/hiding.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

constexpr int64_t kVariableReserve = 30;
constexpr int64_t kExampleTokens = 500;  // most tokens of the worked example; at most a third of the length

/// A chain of assignments: names[0] is set to the value, each further name to the one before it.
struct AssignmentChain {
  std::string value;
  std::vector<std::string> names;

  std::vector<std::string> lines() const {
    std::vector<std::string> lines{"VAR " + names[0] + " = " + value};
    for (size_t i = 1; i < names.size(); ++i) lines.push_back("VAR " + names[i] + " = VAR " + names[i - 1]);
    return lines;
  }
};

class RulerVariables final : public Task {
 public:
  RulerVariables(std::string name, int64_t chains, int64_t hops)
      : Task(std::move(name)), chains_(chains), hops_(hops) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    std::set<std::string> used;
    const std::vector<AssignmentChain> example_chains = draw(rng, 3, used);
    const std::vector<AssignmentChain> chains = draw(rng, 5, used);
    const Rng scatter_rng = rng;
    const std::string example =
        fit_example(input, example_chains, scatter_rng, std::min(kExampleTokens, length / 3));
    return fit_sample(*this, input, length, 0, length, [&](int64_t lines) {
      Rng own = scatter_rng;
      return build(example, chains, scatter(chains, lines, own));
    });
  }

  Score score(const Sample& sample, const Answer& answer) const override { return recall_score(sample, answer); }

 private:
  std::vector<AssignmentChain> draw(Rng& rng, int letters, std::set<std::string>& used) const {
    std::vector<AssignmentChain> chains;
    for (int64_t c = 0; c < chains_; ++c) {
      AssignmentChain chain;
      do {
        chain.value = random_number(rng, 5);
      } while (!used.insert(chain.value).second);
      while (static_cast<int64_t>(chain.names.size()) <= hops_) {
        const std::string name = random_letters(rng, letters, 'A');
        if (name != "VAR" && used.insert(name).second) chain.names.push_back(name);
      }
      chains.push_back(chain);
    }
    return chains;
  }

  /// Inserts the lines of all chains into noise at random positions. The lines of each chain keep their order.
  static std::string scatter(const std::vector<AssignmentChain>& chains, int64_t lines, Rng& rng) {
    std::vector<size_t> order;  // the chain of each line
    for (size_t c = 0; c < chains.size(); ++c) order.insert(order.end(), chains[c].names.size(), c);
    rng.shuffle(order);
    HiddenPieces hidden;
    std::vector<size_t> next(chains.size());
    for (const size_t c : order) hidden.texts.push_back(chains[c].lines()[next[c]++]);
    const auto count = static_cast<int64_t>(order.size());
    for (const int64_t line : rng.distinct(std::max(lines, count), count))
      hidden.depths.push_back(static_cast<double>(line) / static_cast<double>(std::max(lines, count)));
    std::ranges::sort(hidden.depths);
    return hide_in_noise(lines, hidden);
  }

  static std::string question(const AssignmentChain& chain) {
    return "\nQuestion: Which variables hold the value " + chain.value + " in the text above?\n";
  }
  static std::string lead(const AssignmentChain& chain) {
    return "Answer: By the assignments in the text above, the value " + chain.value + " is held by " +
           std::to_string(chain.names.size()) + " variables:";
  }

  /// Returns a worked example: a text with its question and answer.
  static std::string example(const std::vector<AssignmentChain>& chains, int64_t lines, Rng rng) {
    std::string text = scatter(chains, lines, rng) + question(chains[0]) + lead(chains[0]);
    for (const std::string& name : chains[0].names) text += " " + name;
    return text + "\n";
  }
  static std::string fit_example(const TaskInput& input, const std::vector<AssignmentChain>& chains, const Rng& rng,
                                 int64_t tokens) {
    const auto size = [&](int64_t lines) { return input.count(example(chains, lines, rng)); };
    int64_t lines = 0;
    while (lines < tokens && size(lines + 1) <= tokens) ++lines;
    return example(chains, lines, rng);
  }

  static Sample build(const std::string& example, const std::vector<AssignmentChain>& chains,
                      const std::string& text) {
    static constexpr const char* kStatement =
        "Remember the assignments that are hidden in the text below, and follow them from variable to "
        "variable.\n\n";
    Sample sample;
    sample.context = kStatement + example + "\n" + kStatement + text;
    for (const std::string& line : chains[0].lines()) add_evidence(sample, line + "\n");
    sample.references = chains[0].names;
    sample.question = question(chains[0]);
    sample.lead = lead(chains[0]);
    sample.reserve = kVariableReserve;
    sample.stop = {"\n"};
    return sample;
  }

  int64_t chains_, hops_;
};

}  // namespace

MethodInfo ruler_variables_info() {
  return {"",
          "vt",
          "variable tracking: assignments scattered in noise; name all variables with a given value",
          "RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024",
          false,
          "any model",
          "",
          "",
          {{"chains",
            Parameter::Type::kInt,
            "1",
            "chains of assignments, one of which is queried; more is harder",
            1,
            50,
            {}},
           {"hops", Parameter::Type::kInt, "4", "assignments along a chain; more is harder", 1, 50, {}}}};
}

TaskList make_ruler_variables(const Values& values) {
  return {std::make_shared<RulerVariables>("vt", values.integer("chains"), values.integer("hops"))};
}

}  // namespace fathom::eval
