// Four numbers and a target: the search for a way to make it, written down step by step.
#include <algorithm>

#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

using Numbers = std::vector<int64_t>;
constexpr std::string_view kOperations = "+-*/";
constexpr int64_t kBelow = 2000;  // all results
constexpr int64_t kMostDraws = 20000;

/// Empty unless a op b is a whole number from 1 up to kBelow; a ≥ b.
std::optional<int64_t> result_of(int64_t a, char operation, int64_t b) {
  int64_t result = 0;
  if (operation == '+') result = a + b;
  if (operation == '-') result = a - b;
  if (operation == '*') result = a * b;
  if (operation == '/' && b != 0 && a % b == 0) result = a / b;
  return result > 0 && result < kBelow ? std::optional(result) : std::nullopt;
}

std::string list(const Numbers& numbers) {
  std::vector<std::string> texts;
  for (const int64_t number : numbers) texts.push_back(std::to_string(number));
  return join(texts, ", ");
}

/// Depth first: pairs in the order in which they stand, the operations + - * /, the larger number first, the result
/// before the numbers that are left; a line for each choice, indented by its depth.
class Search {
 public:
  Search(int64_t target, size_t most_bytes) : target_(target), most_bytes_(most_bytes) {}
  /// Whether the target was reached before the trace was too long.
  bool run(const Numbers& numbers) {
    const std::string indent(2 * equations_.size(), ' ');
    for (size_t i = 0; i < numbers.size(); ++i) {
      for (size_t j = i + 1; j < numbers.size(); ++j) {
        Numbers left = numbers;
        left.erase(left.begin() + static_cast<int64_t>(j));
        left.erase(left.begin() + static_cast<int64_t>(i));
        const auto [b, a] = std::minmax(numbers[i], numbers[j]);
        trace += concat(indent, "Pick ", a, " and ", b, ", left: ", left.empty() ? "none" : list(left), "\n");
        if (try_pair(indent, a, b, left)) return true;
        if (trace.size() > most_bytes_) return false;
      }
    }
    return false;
  }
  std::string solution() const { return join(equations_, "\n"); }

  std::string trace;

 private:
  bool try_pair(const std::string& indent, int64_t a, int64_t b, const Numbers& left) {
    for (const char operation : kOperations) {
      const std::optional<int64_t> result = result_of(a, operation, b);
      if (!result) continue;
      equations_.push_back(concat(a, " ", operation, " ", b, " = ", *result));
      const bool reached = left.empty() && *result == target_;
      trace +=
          concat(indent, "Try ", equations_.back(), left.empty() ? reached ? ", reached" : ", dropped" : "", "\n");
      Numbers next = {*result};
      next.insert(next.end(), left.begin(), left.end());
      if (reached || (!left.empty() && run(next))) return true;
      equations_.pop_back();
      if (trace.size() > most_bytes_) return false;
    }
    return false;
  }

  int64_t target_;
  size_t most_bytes_;
  std::vector<std::string> equations_;
};

/// Whether the three equations are right, use each number once and end at the target.
bool solves(std::string_view text, Numbers numbers, int64_t target) {
  const std::vector<std::string_view> equations = lines_of(text);
  if (equations.size() + 1 != numbers.size()) return false;
  for (const std::string_view equation : equations) {
    const Numbers parts = numbers_in(equation);
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
  return numbers == Numbers{target};
}

struct Problem {
  Numbers numbers;
  int64_t target;
  std::string answer;  // trace and solution
};

class Countdown final : public Task {
 public:
  Countdown(std::string name, int64_t tier) : Task(std::move(name)), tier_(tier) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    const Problem problem = draw_problem(input, rng(input, length, index));
    return fit_sample(*this, input, length, 0, 0, [&](int64_t) { return build(problem); });
  }

  /// 1 if the equations of the solution are right. partial: the share of the trace before its first wrong line.
  Score score(const Sample& sample, const Answer& answer) const override {
    const auto [trace, solution] = parts_of(answer.text);
    const bool right =
        solves(solution, sample.details["numbers"].get<Numbers>(), sample.details["target"].get<int64_t>());
    const double partial = right_prefix(lines_of(trace), lines_of(parts_of(sample.references[0]).first));
    return {right ? 1.0 : 0.0, {{"partial", partial}}};
  }

 private:
  /// What stands before <Solution>, and behind it.
  static std::pair<std::string_view, std::string_view> parts_of(std::string_view text) {
    constexpr std::string_view kTag = "<Solution>";
    const size_t tag = text.find(kTag);
    if (tag == std::string_view::npos) return {text, {}};
    const std::string_view solution = text.substr(tag + kTag.size());
    return {text.substr(0, tag), solution.substr(0, solution.find("</Solution>"))};
  }

  /// By rejection: one whose answer has between half of `tier` tokens and all of them.
  Problem draw_problem(const TaskInput& input, Rng rng) const {
    for (int64_t draw = 0; draw < kMostDraws; ++draw) {
      Problem problem;
      for (const int64_t number : rng.distinct(49, 4)) problem.numbers.push_back(number + 1);
      problem.target = rng.between(10, 50);
      Search search(problem.target, 8 * tier_);
      if (!search.run(problem.numbers)) continue;
      problem.answer = concat("\n", search.trace, "<Solution>\n", search.solution(), "\n");
      if (std::ssize(problem.answer) < tier_ / 2) continue;  // a token has a byte or more
      const int64_t tokens = input.count(problem.answer + "</Solution>");
      if (tokens >= tier_ / 2 && tokens <= tier_) return problem;
    }
    fail("task ", name(), ": none of ", kMostDraws, " problems has an answer of ", tier_ / 2, " to ", tier_,
         " tokens");
  }

  Sample build(const Problem& problem) const {
    Sample sample;
    sample.context = concat(
        "Make a target of four numbers with + - * /, using each number once. All results are whole numbers above 0 "
        "and "
        "below ",
        kBelow,
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
  return {
      .name = "countdown",
      .summary = "the search for a way to make a number of four others; the prompt is short, length only bounds it",
      .paper = "LongProc: Benchmarking Long-Context Language Models on Long Procedural Generation, 2025",
      .needs = "any model",
      .parameters = {{"tier", Parameter::Type::kInt, "512", "most tokens of the answer", 256, 8192, {}}}};
}

TaskList make_countdown(const Values& values) {
  const int64_t tier = values.integer("tier");
  return {std::make_shared<Countdown>("countdown/" + std::to_string(tier), tier)};
}

}  // namespace fathom::eval
