#include <algorithm>
#include <map>
#include <set>

#include "eval/metrics.h"

namespace fathom::eval {
namespace {

using Words = std::vector<std::string_view>;

/// Length of the longest common subsequence; memory for two rows.
int64_t common_length(const Words& a, const Words& b) {
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

/// A place in each of two texts.
struct Match {
  size_t a, b;
};

/// The matches of one longest common subsequence, from the last to the first; where several are as long, the one
/// that steps back in b first, which is what the published packages do.
std::vector<Match> common_matches(const Words& a, const Words& b) {
  std::vector<bool> back_in_a(a.size() * b.size());  // where leaving out a's word keeps more than leaving out b's
  std::vector<int64_t> above(b.size() + 1, 0);       // lengths for the words of a so far
  std::vector<int64_t> row(b.size() + 1, 0);
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) {
      back_in_a[i * b.size() + j] = above[j + 1] > row[j];
      row[j + 1] = a[i] == b[j] ? above[j] + 1 : std::max(above[j + 1], row[j]);
    }
    std::swap(above, row);
  }
  std::vector<Match> matches;
  for (size_t i = a.size(), j = b.size(); i > 0 && j > 0;) {
    if (a[i - 1] == b[j - 1]) {
      matches.push_back({--i, --j});
    } else if (back_in_a[(i - 1) * b.size() + j - 1]) {
      --i;
    } else {
      --j;
    }
  }
  return matches;
}

/// The pieces of `text` between `separator`s that have words, as words.
std::vector<Words> sentences_of(std::string_view text, char separator, bool chinese) {
  std::vector<Words> sentences;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    Words words = split_words(text.substr(begin, end - begin));
    if (chinese) {
      Words single;
      for (const std::string_view word : words) std::ranges::copy(characters(word), std::back_inserter(single));
      words = std::move(single);
    }
    if (!words.empty()) sentences.push_back(std::move(words));
    begin = end + 1;
  }
  return sentences;
}

std::set<std::string_view> all_words(const std::vector<Words>& sentences) {
  std::set<std::string_view> all;
  for (const Words& words : sentences) all.insert(words.begin(), words.end());
  return all;
}

std::map<std::string_view, int64_t> count_all(const std::vector<Words>& sentences) {
  std::map<std::string_view, int64_t> counts;
  for (const Words& words : sentences) {
    for (const std::string_view word : words) ++counts[word];
  }
  return counts;
}

/// Lower case, what is no ASCII letter or digit a space; line ends stay.
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
    const Words words = split_words(text);
    Counts counts;
    for (size_t i = 0; i + n <= words.size(); ++i) ++counts[Words(words.begin() + i, words.begin() + i + n)];
    return counts;
  };
  const Counts a = count(answer);
  const Counts b = count(reference);
  int64_t matched = 0, answered = 0, wanted = 0;
  for (const auto& [gram, times] : a) {
    answered += times;
    const auto found = b.find(gram);
    if (found != b.end()) matched += std::min(times, found->second);
  }
  for (const auto& [gram, times] : b) wanted += times;
  return overlap(static_cast<double>(matched), static_cast<double>(answered), static_cast<double>(wanted));
}

Overlap rouge_l(std::string_view answer, std::string_view reference) {
  const Words a = split_words(answer);
  const Words b = split_words(reference);
  return overlap(static_cast<double>(common_length(a, b)), static_cast<double>(a.size()),
                 static_cast<double>(b.size()));
}

Overlap rouge_l_sentences(std::string_view answer, std::string_view reference, bool chinese) {
  const std::vector<Words> a = sentences_of(answer, '.', chinese);
  const std::vector<Words> b = sentences_of(reference, '.', chinese);
  std::set<std::string_view> united;
  for (const Words& wanted : b) {
    for (const Words& answered : a) {
      for (const Match& match : common_matches(wanted, answered)) united.insert(wanted[match.a]);
    }
  }
  return overlap(static_cast<double>(united.size()), static_cast<double>(all_words(a).size()),
                 static_cast<double>(all_words(b).size()));
}

Overlap rouge_l_lines(std::string_view answer, std::string_view reference) {
  const std::string answer_text = plain_lines(answer);
  const std::string reference_text = plain_lines(reference);
  const std::vector<Words> a = sentences_of(answer_text, '\n', false);
  const std::vector<Words> b = sentences_of(reference_text, '\n', false);
  std::map<std::string_view, int64_t> a_left = count_all(a);
  std::map<std::string_view, int64_t> b_left = count_all(b);
  double hits = 0, answered = 0, wanted = 0;
  for (const Words& words : a) answered += static_cast<double>(words.size());
  for (const Words& words : b) {
    wanted += static_cast<double>(words.size());
    std::set<size_t> places;
    for (const Words& other : a) {
      for (const Match& match : common_matches(other, words)) places.insert(match.b);
    }
    for (const size_t place : places) {
      const auto found = a_left.find(words[place]);
      if (found == a_left.end() || found->second == 0 || b_left[words[place]] == 0) continue;
      --found->second;
      --b_left[words[place]];
      ++hits;
    }
  }
  return overlap(hits, answered, wanted);
}

}  // namespace fathom::eval
