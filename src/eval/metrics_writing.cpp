#include <algorithm>
#include <set>

#include "base/utf8.h"
#include "eval/metrics.h"

namespace fathom::eval {

int64_t count_words(std::string_view text) {
  int64_t count = 0;
  bool in_word = false;
  bool letters = true;  // whether the word so far consists of ASCII letters only
  const auto end_word = [&] {
    if (in_word && letters) ++count;
    in_word = false;
    letters = true;
  };
  for (const std::string_view c : characters(text)) {
    if (!is_word_character(c)) {
      end_word();
      continue;
    }
    in_word = true;
    const char first = c.front();
    letters &= (first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z');
    if (utf8_length(c) != 3) continue;
    const uint32_t point = utf8_code_point(c);
    if (point >= 0x4e00 && point <= 0x9fff) ++count;
  }
  end_word();
  return count;
}

double length_score(double expected, double words) {
  if (expected <= 0 || words <= 0) return 0;
  const double excess = words > expected ? (words / expected - 1) / 3 : (expected / words - 1) / 2;
  return std::max(0.0, 1 - excess);
}

double repetition(std::string_view text) {
  const std::vector<std::string_view> words = split_words(text);
  if (words.size() < 4) return 0;
  std::set<std::vector<std::string_view>> different;
  const size_t grams = words.size() - 3;
  for (size_t i = 0; i < grams; ++i) different.emplace(words.begin() + i, words.begin() + i + 4);
  return 1 - static_cast<double>(different.size()) / static_cast<double>(grams);
}

bool ends_sentence(std::string_view text) {
  static const std::set<std::string_view> kClosing{"\"", "'", ")", "]", "*", "”", "’", "」", "』", "）", "》"};
  static const std::set<std::string_view> kEnds{".", "!", "?", "…", "。", "！", "？"};
  const std::vector<std::string_view> all = characters(trim(text));
  const auto last =
      std::find_if(all.rbegin(), all.rend(), [](std::string_view c) { return !kClosing.contains(c); });
  return last != all.rend() && kEnds.contains(*last);
}

}  // namespace fathom::eval
