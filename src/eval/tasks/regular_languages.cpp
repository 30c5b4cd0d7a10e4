// Strings of a random automaton: what comes next must be learned from the strings before.
//
// Of the automaton's states every other one has a single edge, the rest two to four, chosen alike; a cycle through
// all states keeps each in reach of all others. A sample is all strings of one automaton, each begun at its first
// state. What a model puts first is certain to be right or wrong only where the automaton leaves a single choice.
// So the asked symbols are those of the last strings at states with one edge that were passed before; the newline
// at the end of a string is not asked.
#include <algorithm>

#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

constexpr int64_t kAskedStrings = 5, kLeastSymbols = 300, kShortest = 10, kLongest = 30;

struct Edge {
  char symbol;
  int64_t to;
};
using Automaton = std::vector<std::vector<Edge>>;

Automaton draw_automaton(Rng& rng, int64_t states, int64_t symbols) {
  const std::vector<int64_t> cycle = rng.distinct(states, states);
  Automaton automaton(states);
  for (int64_t i = 0; i < states; ++i) {
    const int64_t most = std::min({int64_t{4}, states, symbols});
    const int64_t edges = i % 2 == 0 ? 1 : rng.between(2, most);
    const std::vector<int64_t> letters = rng.distinct(symbols, edges);
    std::vector<int64_t> targets = rng.distinct(states, edges);
    const int64_t next = cycle[(i + 1) % states];
    if (std::ranges::count(targets, next) == 0) targets[0] = next;
    for (int64_t edge = 0; edge < edges; ++edge) {
      automaton[cycle[i]].push_back({static_cast<char>('a' + letters[edge]), targets[edge]});
    }
  }
  return automaton;
}

std::string draw_string(Rng& rng, const Automaton& automaton, int64_t length) {
  std::string symbols;
  for (int64_t state = 0; std::ssize(symbols) < length;) {
    const Edge edge = rng.pick(automaton[state]);
    symbols += edge.symbol;
    state = edge.to;
  }
  return symbols;
}

const Edge& edge_of(const std::vector<Edge>& edges, char symbol) {
  return *std::ranges::find(edges, symbol, &Edge::symbol);
}

class RegularLanguage final : public Task {
 public:
  RegularLanguage(std::string name, int64_t states, int64_t symbols)
      : Task(std::move(name)), states_(states), symbols_(symbols) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    const Rng start = rng(input, length, index);
    const int64_t most = kLeastSymbols + 4 * length;  // a symbol and its blank are a token, or less by some counts
    return fit_sample(*this, input, length, kLeastSymbols, most,
                      [&](int64_t symbols) { return build(symbols, start); });
  }

  /// Share of the asked symbols that were the likeliest.
  Score score(const Sample& sample, const Answer& answer) const override {
    int64_t right = 0;
    for (size_t i = 0; i < sample.asked.size(); ++i) right += answer.spans.at(i).right;
    return {static_cast<double>(right) / static_cast<double>(sample.asked.size())};
  }

 private:
  /// Drawn from the last string to the first, which is cut so that there are as many symbols as wanted.
  Sample build(int64_t symbols, Rng rng) const {
    const Automaton automaton = draw_automaton(rng, states_, symbols_);
    std::vector<std::string> strings;
    for (int64_t left = symbols; left > 0; left -= std::ssize(strings.back())) {
      strings.push_back(draw_string(rng, automaton, std::min(left, rng.between(kShortest, kLongest))));
    }
    std::ranges::reverse(strings);
    Sample sample;
    sample.mode = Sample::Mode::kForced;
    sample.context = "Each line follows the same hidden rules:\n";
    const size_t begin = sample.context.size();
    write(automaton, strings, sample);
    sample.evidence = {{begin, sample.context.size()}};
    sample.details["strings"] = strings.size();
    for (const std::vector<Edge>& edges : automaton) {
      Json listed = Json::object();
      for (const Edge& edge : edges) listed[std::string(1, edge.symbol)] = edge.to;
      sample.details["automaton"].push_back(listed);
    }
    return sample;
  }

  /// The last strings are the lead, the others context.
  static void write(const Automaton& automaton, const std::vector<std::string>& strings, Sample& sample) {
    std::vector<bool> passed(automaton.size(), false);
    for (size_t i = 0; i < strings.size(); ++i) {
      const bool asked = i + kAskedStrings >= strings.size();
      std::string& text = asked ? sample.lead : sample.context;
      int64_t state = 0;
      for (const char symbol : strings[i]) {
        if (text.ends_with('\n') || text.empty()) {
          text += symbol;
        } else {
          text += {' ', symbol};
        }
        const size_t end = sample.context.size() + sample.lead.size();
        if (asked && passed[state] && automaton[state].size() == 1) sample.asked.push_back({end - 1, end});
        passed[state] = true;
        state = edge_of(automaton[state], symbol).to;
      }
      text += '\n';
    }
  }

  int64_t states_, symbols_;
};

}  // namespace

MethodInfo regular_language_info() {
  using Type = Parameter::Type;
  return {.name = "regular_language",
          .summary = "strings of a random automaton, learned in context; asked where it leaves one choice only",
          .paper = "In-Context Language Learning: Architectures and Algorithms, 2024",
          .needs = "any model",
          .parameters = {{"states", Type::kInt, "8", "of the automaton", 2, 64, {}},
                         {"symbols", Type::kInt, "12", "letters it may use", 2, 26, {}}}};
}

TaskList make_regular_language(const Values& values) {
  const int64_t states = values.integer("states"), symbols = values.integer("symbols");
  return {std::make_shared<RegularLanguage>(concat("regular_language/", states, "_", symbols), states, symbols)};
}

}  // namespace fathom::eval
