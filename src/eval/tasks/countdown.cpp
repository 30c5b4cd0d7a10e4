// Four numbers and a target: the depth-first search for equations that make it, written step by step.
#include <algorithm>

#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

using CountdownNumbers = std::vector<int64_t>;
constexpr std::string_view kOperations = "+-*/";
constexpr int64_t kResultBound = 2000;  // exclusive bound of all results
constexpr int64_t kMaxDraws = 20000;

/// Returns a op b if it is an integer in [1, kResultBound); requires a ≥ b.
std::optional<int64_t> result_of(int64_t a, char operation, int64_t b) {
  int64_t result = 0;
  if (operation == '+') result = a + b;
  if (operation == '-') result = a - b;
  if (operation == '*') result = a * b;
  if (operation == '/' && b != 0 && a % b == 0) result = a / b;
  return result > 0 && result < kResultBound ? std::optional(result) : std::nullopt;
}

std::string list(const CountdownNumbers& numbers) {
  std::vector<std::string> texts;
  for (const int64_t number : numbers) texts.push_back(std::to_string(number));
  return join(texts, ", ");
}

/// A depth-first search that writes its trace, one line per choice, indented by depth. It tries the pairs in the
/// order of the numbers, for each pair the operations + - * /, the larger number first. The result is placed before
/// the remaining numbers.
class CountdownSearch {
 public:
  CountdownSearch(int64_t target, size_t max_bytes) : target_(target), max_bytes_(max_bytes) {}
  /// Returns whether the target was reached before the trace became too long.
  bool run(const CountdownNumbers& numbers) {
    const std::string indent(2 * equations_.size(), ' ');
    for (size_t i = 0; i < numbers.size(); ++i) {
      for (size_t j = i + 1; j < numbers.size(); ++j) {
        CountdownNumbers remaining = numbers;
        remaining.erase(remaining.begin() + static_cast<int64_t>(j));
        remaining.erase(remaining.begin() + static_cast<int64_t>(i));
        const auto [b, a] = std::minmax(numbers[i], numbers[j]);
        trace +=
            concat(indent, "Pick ", a, " and ", b, ", left: ", remaining.empty() ? "none" : list(remaining), "\n");
        if (try_pair(indent, a, b, remaining)) return true;
        if (trace.size() > max_bytes_) return false;
      }
    }
    return false;
  }
  std::string solution() const { return join(equations_, "\n"); }

  std::string trace;

 private:
  bool try_pair(const std::string& indent, int64_t a, int64_t b, const CountdownNumbers& remaining) {
    for (const char operation : kOperations) {
      const std::optional<int64_t> result = result_of(a, operation, b);
      if (!result) continue;
      equations_.push_back(concat(a, " ", operation, " ", b, " = ", *result));
      const bool reached = remaining.empty() && *result == target_;
      trace += concat(indent, "Try ", equations_.back(),
                      remaining.empty() ? reached ? ", reached" : ", dropped" : "", "\n");
      CountdownNumbers next = {*result};
      next.insert(next.end(), remaining.begin(), remaining.end());
      if (reached || (!remaining.empty() && run(next))) return true;
      equations_.pop_back();
      if (trace.size() > max_bytes_) return false;
    }
    return false;
  }

  int64_t target_;
  size_t max_bytes_;
  std::vector<std::string> equations_;
};

/// Returns whether the equations are correct, use each number once and end at the target.
bool solves(std::string_view text, CountdownNumbers numbers, int64_t target) {
  const std::vector<std::string_view> equations = lines_of(text);
  if (equations.size() + 1 != numbers.size()) return false;
  for (const std::string_view equation : equations) {
    const CountdownNumbers parts = numbers_in(equation);
    const size_t operation = equation.find_first_of(kOperations);
    if (parts.size() != 3 || operation == std::string_view::npos) return false;
    for (const int64_t used : {parts[0], parts[1]}) {
      const auto found = std::ranges::find(numbers, used);
      if (found == numbers.end()) return false;
      numbers.erase(found);
    }
    if (concat(parts[0], " ", equation[operation], " ", parts[1], " = ", parts[2]) != equation) return false;
    if (result_of(parts[0], equation[operation], parts[1]) != parts[2]) return false;
    numbers.push_back(parts[2]);
  }
  return numbers == CountdownNumbers{target};
}

struct CountdownProblem {
  CountdownNumbers numbers;
  int64_t target;
  std::string answer;  // trace and solution
};

class Countdown final : public Task {
 public:
  Countdown(std::string name, int64_t tier) : Task(std::move(name)), tier_(tier) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    const CountdownProblem problem = draw_problem(input, rng(input, length, index));
    return fit_sample(*this, input, length, 0, 0, [&](int64_t) { return build(problem); });
  }

  /// Scores 1 if the equations of the solution are correct. partial: the share of the trace before its first wrong
  /// line.
  Score score(const Sample& sample, const Answer& answer) const override {
    const auto [trace, solution] = parts_of(answer.text);
    const bool correct = solves(solution, sample.details["numbers"].get<CountdownNumbers>(),
                                sample.details["target"].get<int64_t>());
    const double partial = correct_prefix(lines_of(trace), lines_of(parts_of(sample.references[0]).first));
    return {correct ? 1.0 : 0.0, {{"partial", partial}}};
  }

 private:
  /// Returns the texts before <Solution> and after it.
  static std::pair<std::string_view, std::string_view> parts_of(std::string_view text) {
    constexpr std::string_view kTag = "<Solution>";
    const size_t tag = text.find(kTag);
    if (tag == std::string_view::npos) return {text, {}};
    const std::string_view solution = text.substr(tag + kTag.size());
    return {text.substr(0, tag), solution.substr(0, solution.find("</Solution>"))};
  }

  /// Draws problems until the answer has between half of `tier` tokens and all of them.
  CountdownProblem draw_problem(const TaskInput& input, Rng rng) const {
    for (int64_t draw = 0; draw < kMaxDraws; ++draw) {
      CountdownProblem problem;
      for (const int64_t number : rng.distinct(49, 4)) problem.numbers.push_back(number + 1);
      problem.target = rng.between(10, 50);
      CountdownSearch search(problem.target, 8 * tier_);
      if (!search.run(problem.numbers)) continue;
      problem.answer = concat("\n", search.trace, "<Solution>\n", search.solution(), "\n");
      if (std::ssize(problem.answer) < tier_ / 2) continue;  // a token has at least one byte
      const int64_t tokens = input.count(problem.answer + "</Solution>");
      if (tokens >= tier_ / 2 && tokens <= tier_) return problem;
    }
    fail("task ", name(), ": none of ", kMaxDraws, " random problems has an answer of ", tier_ / 2, " to ", tier_,
         " tokens");
  }

  Sample build(const CountdownProblem& problem) const {
    Sample sample;
    sample.context = concat(
        "Make a target of four numbers with + - * /, using each number once. All results are whole numbers above 0 "
        "and "
        "below ",
        kResultBound,
        ".\nSearch like this. Pick two of the numbers, in the order in which they stand, and write which "
        "are left. Try + - * / on the two, the larger first, passing over results that are not allowed; put the "
        "result "
        "before the numbers that are left and go on with them, indented by two blanks more. When no number is "
        "left, write "
        "whether the target is reached or the try is dropped. The lines look like this:\n\n"
        "Pick 9 and 4, left: 2, 7\nTry 9 + 4 = 13\n  Pick 13 and 2, left: 7\n  Try 13 + 2 = 15\n    Pick 15 and 7, "
        "left: none\n"
        "    Try 15 + 7 = 22, dropped\n\nAt the target, stop and write the three equations between <Solution> and "
        "</Solution>, a line each.\n\n");
    sample.question = concat("Numbers: ", list(problem.numbers), "\nTarget: ", problem.target, "\n");
    sample.lead = "Search:";
    sample.references = {problem.answer};
    sample.reserve = tier_ + 8;
    sample.evidence = {{sample.context.size(), sample.context.size() + sample.question.size() - 1}};
    sample.stop = {"</Solution>"};
    sample.details["numbers"] = problem.numbers;
    sample.details["target"] = problem.target;
    return sample;
  }

  int64_t tier_;
};

}  // namespace

MethodInfo countdown_info() {
  return {.name = "countdown",
          .summary =
              "write a search for a target number from four numbers; the answer is long; --lengths only limits it",
          .paper = "LongProc: Benchmarking Long-Context Language Models on Long Procedural Generation, 2025",
          .needs = "any model",
          .parameters = {{"tier",
                          Parameter::Type::kInt,
                          "512",
                          "maximum number of tokens of the answer; more is harder",
                          256,
                          8192,
                          {}}}};
}

TaskList make_countdown(const Values& values) {
  const int64_t tier = values.integer("tier");
  return {std::make_shared<Countdown>("countdown/" + std::to_string(tier), tier)};
}

}  // namespace fathom::eval
