// Strings of a random automaton: the next symbol must be learned from the earlier strings.
//
// Every other state of the automaton has a single edge; the others have two to four with equal probability. A cycle
// through all states keeps each state reachable. A sample consists of strings of one automaton, each from its first
// state. Only at a state with a single edge is the next symbol certain. Only the symbols of the last strings at
// single-edge states that were visited before are therefore scored. The newline at the end of a string is not
// scored.
#include <algorithm>

#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

constexpr int64_t kScoredStrings = 5, kMinSymbols = 300, kShortest = 10, kLongest = 30;

struct Edge {
  char symbol;
  int64_t to;
};
using Automaton = std::vector<std::vector<Edge>>;

Automaton draw_automaton(Rng& rng, int64_t states, int64_t symbols) {
  const std::vector<int64_t> cycle = rng.distinct(states, states);
  Automaton automaton(states);
  for (int64_t i = 0; i < states; ++i) {
    const int64_t max_edges = std::min({int64_t{4}, states, symbols});
    const int64_t edges = i % 2 == 0 ? 1 : rng.between(2, max_edges);
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
    // A symbol and its space are one token; some tokenizers need fewer tokens.
    const int64_t max_symbols = kMinSymbols + 4 * length;
    return fit_sample(*this, input, length, kMinSymbols, max_symbols,
                      [&](int64_t symbols) { return build(symbols, start); });
  }

  /// Scores the share of the scored symbols that were the most likely ones.
  Score score(const Sample& sample, const Answer& answer) const override {
    int64_t correct = 0;
    for (size_t i = 0; i < sample.scored.size(); ++i) correct += answer.spans.at(i).correct;
    return {static_cast<double>(correct) / static_cast<double>(sample.scored.size())};
  }

 private:
  /// Draws strings from the last to the first; the first is cut to give exactly `symbols` symbols.
  Sample build(int64_t symbols, Rng rng) const {
    const Automaton automaton = draw_automaton(rng, states_, symbols_);
    std::vector<std::string> strings;
    for (int64_t remaining = symbols; remaining > 0; remaining -= std::ssize(strings.back())) {
      strings.push_back(draw_string(rng, automaton, std::min(remaining, rng.between(kShortest, kLongest))));
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

  /// Writes the last strings to the lead and the others to the context.
  static void write(const Automaton& automaton, const std::vector<std::string>& strings, Sample& sample) {
    std::vector<bool> visited(automaton.size(), false);
    for (size_t i = 0; i < strings.size(); ++i) {
      const bool scored = i + kScoredStrings >= strings.size();
      std::string& text = scored ? sample.lead : sample.context;
      int64_t state = 0;
      for (const char symbol : strings[i]) {
        if (text.ends_with('\n') || text.empty()) {
          text += symbol;
        } else {
          text += {' ', symbol};
        }
        const size_t end = sample.context.size() + sample.lead.size();
        if (scored && visited[state] && automaton[state].size() == 1) sample.scored.push_back({end - 1, end});
        visited[state] = true;
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
  return {
      .name = "regular_language",
      .summary = "strings of a random automaton, learned in context; scored where only one symbol can follow",
      .paper = "In-Context Language Learning: Architectures and Algorithms, 2024",
      .needs = "any model",
      .parameters = {{"states", Type::kInt, "8", "states of the automaton; more is harder", 2, 64, {}},
                     {"symbols", Type::kInt, "12", "letters the automaton may use; more is harder", 2, 26, {}}}};
}

TaskList make_regular_language(const Values& values) {
  const int64_t states = values.integer("states"), symbols = values.integer("symbols");
  return {std::make_shared<RegularLanguage>(concat("regular_language/", states, "_", symbols), states, symbols)};
}

}  // namespace fathom::eval
