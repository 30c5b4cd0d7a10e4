#include <algorithm>
#include <array>
#include <charconv>

#include "eval/metrics.h"

namespace fathom::eval {
namespace {

/// Replaces each of `marks` by a space.
std::string without(std::string_view text, std::string_view marks) {
  std::string plain(text);
  for (char& c : plain) {
    if (marks.find(c) != std::string_view::npos) c = ' ';
  }
  return plain;
}

/// Replaces runs of spaces by one space.
std::string single_spaced(std::string text) {
  const auto end = std::ranges::unique(text, [](char a, char b) { return a == ' ' && b == ' '; }).begin();
  text.erase(end, text.end());
  return text;
}

/// Returns the text after the first of `prefixes` that occurs in `text` and one more character. has_prefix: set to
/// whether a prefix occurs.
std::string_view text_after_prefix(std::string_view text, std::span<const std::string_view> prefixes,
                                   bool& has_prefix) {
  has_prefix = false;
  for (const std::string_view prefix : prefixes) {
    const size_t at = text.find(prefix);
    if (at == std::string_view::npos) continue;
    has_prefix = true;
    return text.substr(std::min(text.size(), at + prefix.size() + 1));
  }
  return {};
}

std::string_view without_leading_zeros(std::string_view digits) {
  return digits.substr(std::min(digits.find_first_not_of('0'), digits.size()));
}

/// Returns whether `word` is an integer with the value of `reference`.
bool same_integer(std::string_view word, std::string_view reference) {
  const auto negative = [](std::string_view& number) {
    const bool minus = number.starts_with('-');
    if (minus || number.starts_with('+')) number.remove_prefix(1);
    return minus;
  };
  const bool a = negative(word);
  const bool b = negative(reference);
  if (word.empty() || word.find_first_not_of("0123456789") != std::string_view::npos) return false;
  const std::string_view digits = without_leading_zeros(word);
  return digits == without_leading_zeros(reference) && (a == b || digits.empty());
}

constexpr std::string_view kMarks = "\n:\"'.,?!{}";

}  // namespace

bool infinite_first_integer(std::string_view answer, std::string_view reference) {
  const std::vector<std::string_view> numbers = digit_runs(answer);
  return !numbers.empty() && numbers.front() == reference;
}

bool infinite_word(std::string_view answer, std::string_view reference, bool any_case) {
  const std::string plain = without(answer, kMarks);
  const std::string expected = any_case ? lower_case(reference) : std::string(reference);
  return std::ranges::any_of(split_words(plain), [&](std::string_view word) {
    return any_case ? lower_case(word) == expected : word == expected;
  });
}

bool infinite_last_integer(std::string_view answer, std::string_view reference) {
  const std::string plain = without(answer, "\n.`'\":");
  const std::vector<std::string_view> words = split_words(plain);
  return !words.empty() && same_integer(words.back(), reference);
}

bool infinite_first_number(std::string_view answer, double reference) {
  const size_t begin = answer.find_first_of("0123456789");
  if (begin == std::string_view::npos) return false;
  double number = 0;
  const auto read =
      std::from_chars(answer.data() + begin, answer.data() + answer.size(), number, std::chars_format::fixed);
  return read.ec == std::errc() && number == reference;
}

double infinite_prefix(std::string_view answer, const std::vector<std::string>& expected) {
  if (expected.empty()) return 0;
  const std::vector<std::string_view> numbers = digit_runs(answer);
  size_t correct = 0;
  while (correct < expected.size() && correct < numbers.size() && same_integer(numbers[correct], expected[correct]))
    ++correct;
  return static_cast<double>(correct) / static_cast<double>(expected.size());
}

bool infinite_choice(std::string_view answer, char letter, std::string_view option) {
  const auto is_letter = [](std::string_view word) { return word.size() == 1 && word[0] >= 'A' && word[0] <= 'D'; };
  const std::string_view trimmed = trim(answer);
  if (trimmed.empty()) return false;
  if (is_letter(trimmed.substr(0, 1))) return trimmed[0] == letter;
  if (trimmed == option) return true;
  const std::string plain = single_spaced(without(trimmed, "\n\"'.,?!{}"));
  constexpr std::array<std::string_view, 4> kPrefixes{"answer is:", "answer:", "answer is", "option is"};
  bool has_prefix = false;
  const std::string_view after = text_after_prefix(plain, kPrefixes, has_prefix);
  if (has_prefix) return after.starts_with(letter) || (!option.empty() && after.starts_with(option));
  const std::vector<std::string_view> words = split_words(plain);
  const auto first = std::ranges::find_if(words, is_letter);
  return first != words.end() && (*first)[0] == letter;
}

bool infinite_debug(std::string_view answer, char letter, std::string_view function) {
  const std::string_view trimmed = trim(answer);
  if (trimmed == std::string_view(&letter, 1)) return true;
  if (trimmed.starts_with(std::string{letter, '.'}) || trimmed.starts_with(std::string{letter, ':'})) return true;
  std::string plain = without(trimmed, "\n`'\"-*");
  for (const std::string_view word : {"Option", "option"}) {
    for (size_t at = plain.find(word); at != std::string::npos; at = plain.find(word, at)) {
      plain.replace(at, word.size(), " ");
    }
  }
  plain = single_spaced(plain);
  constexpr std::array<std::string_view, 4> kPrefixes{"answer is:", "is:", "answer:", "correct option is:"};
  bool has_prefix = false;
  const std::string_view after = text_after_prefix(plain, kPrefixes, has_prefix);
  return has_prefix && (after.starts_with(letter) || (!function.empty() && after.starts_with(function)));
}

}  // namespace fathom::eval
