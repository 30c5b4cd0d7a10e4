#include <algorithm>
#include <map>
#include <set>

#include "eval/metrics.h"

namespace fathom::eval {
namespace {

using WordViews = std::vector<std::string_view>;

/// Returns the length of the longest common subsequence; keeps two rows of the table.
int64_t common_length(const WordViews& a, const WordViews& b) {
  std::vector<int64_t> above(b.size() + 1, 0);
  std::vector<int64_t> row(b.size() + 1, 0);
  for (const std::string_view word : a) {
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = word == b[j - 1] ? above[j - 1] + 1 : std::max(above[j], row[j - 1]);
    }
    std::swap(above, row);
  }
  return above.back();
}

/// Positions of a matching word in two texts.
struct WordMatch {
  size_t a, b;
};

/// Returns the matches of one longest common subsequence, from the last to the first. If there are several, the
/// search from the end prefers to skip words of b, as the published packages do.
std::vector<WordMatch> common_matches(const WordViews& a, const WordViews& b) {
  std::vector<bool> skip_in_a(
      a.size() * b.size());  // true if skipping word i of a leaves a longer subsequence than skipping word j of b
  std::vector<int64_t> above(b.size() + 1, 0);  // lengths for the words of a so far
  std::vector<int64_t> row(b.size() + 1, 0);
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) {
      skip_in_a[i * b.size() + j] = above[j + 1] > row[j];
      row[j + 1] = a[i] == b[j] ? above[j] + 1 : std::max(above[j + 1], row[j]);
    }
    std::swap(above, row);
  }
  std::vector<WordMatch> matches;
  for (size_t i = a.size(), j = b.size(); i > 0 && j > 0;) {
    if (a[i - 1] == b[j - 1]) {
      matches.push_back({--i, --j});
    } else if (skip_in_a[(i - 1) * b.size() + j - 1]) {
      --i;
    } else {
      --j;
    }
  }
  return matches;
}

/// Splits `text` at `separator` and returns the words of the parts that have any.
std::vector<WordViews> sentences_of(std::string_view text, char separator, bool chinese) {
  std::vector<WordViews> sentences;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    WordViews words = split_words(text.substr(begin, end - begin));
    if (chinese) {
      WordViews single_characters;
      for (const std::string_view word : words)
        std::ranges::copy(characters(word), std::back_inserter(single_characters));
      words = std::move(single_characters);
    }
    if (!words.empty()) sentences.push_back(std::move(words));
    begin = end + 1;
  }
  return sentences;
}

std::set<std::string_view> all_words(const std::vector<WordViews>& sentences) {
  std::set<std::string_view> all;
  for (const WordViews& words : sentences) all.insert(words.begin(), words.end());
  return all;
}

std::map<std::string_view, int64_t> count_all(const std::vector<WordViews>& sentences) {
  std::map<std::string_view, int64_t> counts;
  for (const WordViews& words : sentences) {
    for (const std::string_view word : words) ++counts[word];
  }
  return counts;
}

/// Converts to lower case and replaces everything but ASCII letters, digits and line ends by spaces.
std::string plain_lines(std::string_view text) {
  std::string plain = lower_case(text);
  for (char& c : plain) {
    const bool kept = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '\n';
    if (!kept) c = ' ';
  }
  return plain;
}

}  // namespace

Overlap rouge_n(std::string_view answer, std::string_view reference, int n) {
  using Counts = std::map<std::vector<std::string_view>, int64_t>;
  const auto count = [n](std::string_view text) {
    const WordViews words = split_words(text);
    Counts counts;
    for (size_t i = 0; i + n <= words.size(); ++i) ++counts[WordViews(words.begin() + i, words.begin() + i + n)];
    return counts;
  };
  const Counts a = count(answer);
  const Counts b = count(reference);
  int64_t matched = 0, answered = 0, expected = 0;
  for (const auto& [gram, times] : a) {
    answered += times;
    const auto found = b.find(gram);
    if (found != b.end()) matched += std::min(times, found->second);
  }
  for (const auto& [gram, times] : b) expected += times;
  return overlap(static_cast<double>(matched), static_cast<double>(answered), static_cast<double>(expected));
}

Overlap rouge_l(std::string_view answer, std::string_view reference) {
  const WordViews a = split_words(answer);
  const WordViews b = split_words(reference);
  return overlap(static_cast<double>(common_length(a, b)), static_cast<double>(a.size()),
                 static_cast<double>(b.size()));
}

Overlap rouge_l_sentences(std::string_view answer, std::string_view reference, bool chinese) {
  const std::vector<WordViews> a = sentences_of(answer, '.', chinese);
  const std::vector<WordViews> b = sentences_of(reference, '.', chinese);
  std::set<std::string_view> united;
  for (const WordViews& expected : b) {
    for (const WordViews& answered : a) {
      for (const WordMatch& match : common_matches(expected, answered)) united.insert(expected[match.a]);
    }
  }
  return overlap(static_cast<double>(united.size()), static_cast<double>(all_words(a).size()),
                 static_cast<double>(all_words(b).size()));
}

Overlap rouge_l_lines(std::string_view answer, std::string_view reference) {
  const std::string answer_text = plain_lines(answer);
  const std::string reference_text = plain_lines(reference);
  const std::vector<WordViews> a = sentences_of(answer_text, '\n', false);
  const std::vector<WordViews> b = sentences_of(reference_text, '\n', false);
  std::map<std::string_view, int64_t> a_remaining = count_all(a);
  std::map<std::string_view, int64_t> b_remaining = count_all(b);
  double hits = 0, answered = 0, expected = 0;
  for (const WordViews& words : a) answered += static_cast<double>(words.size());
  for (const WordViews& words : b) {
    expected += static_cast<double>(words.size());
    std::set<size_t> positions;
    for (const WordViews& other : a) {
      for (const WordMatch& match : common_matches(other, words)) positions.insert(match.b);
    }
    for (const size_t position : positions) {
      const auto found = a_remaining.find(words[position]);
      if (found == a_remaining.end() || found->second == 0 || b_remaining[words[position]] == 0) continue;
      --found->second;
      --b_remaining[words[position]];
      ++hits;
    }
  }
  return overlap(hits, answered, expected);
}

}  // namespace fathom::eval
