#include <algorithm>
#include <numeric>

#include "base/json.h"
#include "eval/metrics.h"

namespace fathom::eval {
namespace {

/// Returns the highest number of 1 … count that occurs in `text` directly after `prefix`, or 0.
int64_t highest(std::string_view text, std::string_view prefix, int64_t count) {
  for (int64_t i = count; i >= 1; --i) {
    if (text.find(std::string(prefix) + std::to_string(i)) != std::string_view::npos) return i;
  }
  return 0;
}

bool is_subsequence(const std::vector<int64_t>& digits, std::string_view text) {
  size_t from = 0;
  for (const int64_t digit : digits) {
    const size_t at = text.find(static_cast<char>('0' + digit), from);
    if (at == std::string_view::npos) return false;
    from = at + 1;
  }
  return true;
}

/// Parses `text` as a JSON list. Returns an empty list unless it is a permutation of 1 … count.
std::vector<int64_t> as_json(std::string_view text, int64_t count) {
  const auto list = Json::parse_or_null(text);
  if (!list.is_array() || static_cast<int64_t>(list.size()) != count) return {};
  std::vector<int64_t> order;
  for (const auto& item : list.items()) {
    if (!item.is_number_integer()) return {};
    order.push_back(item.get<int64_t>());
  }
  std::vector<int64_t> sorted = order;
  std::ranges::sort(sorted);
  for (int64_t i = 0; i < count; ++i) {
    if (sorted[i] != i + 1) return {};
  }
  return order;
}

}  // namespace

double number_score(std::string_view answer, std::string_view expected) {
  const std::vector<std::string_view> numbers = digit_runs(answer);
  if (numbers.empty()) return 0;
  return static_cast<double>(std::ranges::count(numbers, expected)) / static_cast<double>(numbers.size());
}

double class_score(std::string_view answer, const std::vector<std::string>& classes, const std::string& gold) {
  const auto counts = [&](const std::string& name) {
    const bool part_of_gold = name != gold && gold.find(name) != std::string::npos;
    return !name.empty() && !part_of_gold && answer.find(name) != std::string_view::npos;
  };
  if (gold.empty() || std::ranges::find(classes, gold) == classes.end() || !counts(gold)) return 0;
  return 1.0 / static_cast<double>(std::ranges::count_if(classes, counts));
}

char choice_letter(std::string_view answer) {
  constexpr std::string_view kBefore = "correct answer is ";
  const auto is_choice = [](char c) { return c >= 'A' && c <= 'D'; };
  std::string plain(answer);
  std::erase(plain, '*');
  char bare = ' ';
  for (size_t at = plain.find(kBefore); at != std::string::npos; at = plain.find(kBefore, at + 1)) {
    const std::string_view after = std::string_view(plain).substr(at + kBefore.size());
    if (after.size() >= 3 && after[0] == '(' && is_choice(after[1]) && after[2] == ')') return after[1];
    if (bare == ' ' && !after.empty() && is_choice(after[0])) bare = after[0];
  }
  return bare;
}

int64_t best_answer_label(std::string_view answer, int64_t count) {
  const int64_t label = highest(answer, "A", count);
  return label > 0 ? label : highest(answer, "", count);
}

std::vector<int64_t> answered_permutation(std::string_view answer, int64_t count) {
  constexpr std::string_view kMark = "Answer:";
  if (const size_t mark = answer.find(kMark); mark != std::string_view::npos) {
    answer.remove_prefix(mark + kMark.size());
    answer = trim(answer.substr(0, answer.find(kMark)));
  }
  if (std::vector<int64_t> order = as_json(answer, count); !order.empty()) return order;
  std::vector<int64_t> digits(count);
  std::iota(digits.begin(), digits.end(), 1);
  std::vector<int64_t> found;
  do {
    if (!is_subsequence(digits, answer)) continue;
    if (!found.empty()) return {};
    found = digits;
  } while (std::ranges::next_permutation(digits).found);
  return found;
}

}  // namespace fathom::eval
