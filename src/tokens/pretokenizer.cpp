#include "tokens/pretokenizer.h"

#include "base/utf8.h"

namespace fathom {
namespace {

/// Calls on_word for groups of three characters, counted from the right.
template <class OnWord>
void split_thousands(std::string_view digits, const OnWord& on_word) {
  std::vector<size_t> starts;
  for (size_t at = 0; at < digits.size(); at += utf8_length(digits.substr(at))) starts.push_back(at);
  size_t begin = 0;
  for (size_t i = 1; i <= starts.size(); ++i) {
    if ((starts.size() - i) % 3 != 0) continue;
    const size_t end = i < starts.size() ? starts[i] : digits.size();
    on_word(digits.substr(begin, end - begin));
    begin = end;
  }
}

}  // namespace

Pretokenizer::Pretokenizer(std::span<const SplitStep> steps) {
  for (const SplitStep& step : steps) steps_.push_back({Regex(step.pattern), step.thousands});
}

void Pretokenizer::split(std::string_view text, const OnWord& on_word) const {
  Regex::Matcher matcher;
  while (!text.empty()) {
    const size_t valid = utf8_valid_prefix(text);
    if (valid > 0) split_from(0, text.substr(0, valid), matcher, on_word);
    text.remove_prefix(valid);
    size_t invalid = 0;
    while (invalid < text.size() && utf8_length(text.substr(invalid)) == 0) ++invalid;
    if (invalid > 0) on_word(text.substr(0, invalid));
    text.remove_prefix(invalid);
  }
}

void Pretokenizer::split_from(size_t step, std::string_view text, Regex::Matcher& matcher,
                              const OnWord& on_word) const {
  if (step == steps_.size()) return on_word(text);
  const auto next_step = [&](std::string_view word) { split_from(step + 1, word, matcher, on_word); };
  for (size_t at = 0; at < text.size();) {
    const auto [begin, end] = matcher.find(steps_[step].regex, text, at);
    if (begin > at) next_step(text.substr(at, begin - at));
    const std::string_view match = text.substr(begin, end - begin);
    if (steps_[step].thousands && !match.empty()) {
      split_thousands(match, next_step);
    } else if (!match.empty()) {
      next_step(match);
    }
    at = end;
  }
}

}  // namespace fathom
