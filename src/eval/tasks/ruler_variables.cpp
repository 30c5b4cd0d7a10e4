// RULER's variable tracking (RULER, 2024): chains of assignments scattered in noise.
#include <algorithm>
#include <set>

#include "eval/tasks/hiding.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

constexpr int64_t kReserve = 30;
constexpr int64_t kExampleTokens =
    500;  // the worked example has at most so many, and at most a third of the length

/// One chain: names[0] holds the value, each further name is set from the one before it.
struct Chain {
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
    const std::vector<Chain> example_chains = draw(rng, 3, used);
    const std::vector<Chain> chains = draw(rng, 5, used);
    const Rng places = rng;
    const std::string example = fit_example(input, example_chains, places, std::min(kExampleTokens, length / 3));
    return fit_sample(*this, input, length, 0, length, [&](int64_t lines) {
      Rng own = places;
      return build(example, chains, scatter(chains, lines, own));
    });
  }

  Score score(const Sample& sample, const Answer& answer) const override { return recall_score(sample, answer); }

 private:
  std::vector<Chain> draw(Rng& rng, int letters, std::set<std::string>& used) const {
    std::vector<Chain> chains;
    for (int64_t c = 0; c < chains_; ++c) {
      Chain chain;
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

  /// The lines of all chains in noise: each chain's in order, at random places.
  static std::string scatter(const std::vector<Chain>& chains, int64_t lines, Rng& rng) {
    std::vector<size_t> turns;  // whose line comes next
    for (size_t c = 0; c < chains.size(); ++c) turns.insert(turns.end(), chains[c].names.size(), c);
    rng.shuffle(turns);
    Hiding hiding;
    std::vector<size_t> next(chains.size());
    for (const size_t c : turns) hiding.pieces.push_back(chains[c].lines()[next[c]++]);
    const auto count = static_cast<int64_t>(turns.size());
    for (const int64_t line : rng.distinct(std::max(lines, count), count))
      hiding.depths.push_back(static_cast<double>(line) / static_cast<double>(std::max(lines, count)));
    std::ranges::sort(hiding.depths);
    return hide_in_noise(lines, hiding);
  }

  static std::string question(const Chain& chain) {
    return "\nQuestion: Which variables hold the value " + chain.value + " in the text above?\n";
  }
  static std::string lead(const Chain& chain) {
    return "Answer: By the assignments in the text above, the value " + chain.value + " is held by " +
           std::to_string(chain.names.size()) + " variables:";
  }

  /// A text with its question and answer: what is wanted, shown once.
  static std::string example(const std::vector<Chain>& chains, int64_t lines, Rng rng) {
    std::string text = scatter(chains, lines, rng) + question(chains[0]) + lead(chains[0]);
    for (const std::string& name : chains[0].names) text += " " + name;
    return text + "\n";
  }
  static std::string fit_example(const TaskInput& input, const std::vector<Chain>& chains, const Rng& rng,
                                 int64_t tokens) {
    const auto size = [&](int64_t lines) { return input.count(example(chains, lines, rng)); };
    int64_t lines = 0;
    while (lines < tokens && size(lines + 1) <= tokens) ++lines;
    return example(chains, lines, rng);
  }

  static Sample build(const std::string& example, const std::vector<Chain>& chains, const std::string& text) {
    static constexpr const char* kStatement =
        "Remember the assignments that are hidden in the text below, and follow them from variable to "
        "variable.\n\n";
    Sample sample;
    sample.context = kStatement + example + "\n" + kStatement + text;
    for (const std::string& line : chains[0].lines()) add_evidence(sample, line + "\n");
    sample.references = chains[0].names;
    sample.question = question(chains[0]);
    sample.lead = lead(chains[0]);
    sample.reserve = kReserve;
    sample.stop = {"\n"};
    return sample;
  }

  int64_t chains_, hops_;
};

}  // namespace

MethodInfo ruler_variables_info() {
  return {"",
          "vt",
          "variable tracking: a chain of assignments scattered in noise, all variables of a value asked for",
          "RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024",
          false,
          "any model",
          "",
          "",
          {{"chains", Parameter::Type::kInt, "1", "chains, of which one is asked for", 1, 50, {}},
           {"hops", Parameter::Type::kInt, "4", "assignments from variable to variable", 1, 50, {}}}};
}

TaskList make_ruler_variables(const Values& values) {
  return {std::make_shared<RulerVariables>("vt", values.integer("chains"), values.integer("hops"))};
}

}  // namespace fathom::eval
