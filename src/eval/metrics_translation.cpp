#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "base/utf8.h"
#include "eval/metrics.h"

namespace fathom::eval {
namespace {

using TokenTexts = std::vector<std::string>;
using GramCounts = std::map<std::string, int64_t>;  // counts of n-grams; each token of the key ends with byte 0xff

GramCounts count_grams(const TokenTexts& tokens, size_t n) {
  GramCounts counts;
  for (size_t i = 0; i + n <= tokens.size(); ++i) {
    std::string gram;
    for (size_t k = 0; k < n; ++k) gram += tokens[i + k] + '\xff';
    ++counts[gram];
  }
  return counts;
}

int64_t sum(const GramCounts& counts) {
  int64_t total = 0;
  for (const auto& [gram, times] : counts) total += times;
  return total;
}

int64_t shared(const GramCounts& a, const GramCounts& b) {
  int64_t count = 0;
  for (const auto& [gram, times] : a) {
    const auto found = b.find(gram);
    if (found != b.end()) count += std::min(times, found->second);
  }
  return count;
}

/// Returns the largest count of each n-gram in any reference.
GramCounts largest_counts(const std::vector<TokenTexts>& references, size_t n) {
  GramCounts largest;
  for (const TokenTexts& reference : references) {
    for (const auto& [gram, times] : count_grams(reference, n)) largest[gram] = std::max(largest[gram], times);
  }
  return largest;
}

/// Returns the length of the reference nearest in length; of two equally near ones the shorter.
double nearest_length(const std::vector<TokenTexts>& references, int64_t length) {
  int64_t nearest = 0;
  int64_t best_distance = -1;
  for (const TokenTexts& reference : references) {
    const auto size = static_cast<int64_t>(reference.size());
    const int64_t distance = std::abs(size - length);
    if (best_distance < 0 || distance < best_distance || (distance == best_distance && size < nearest)) {
      best_distance = distance;
      nearest = size;
    }
  }
  return static_cast<double>(nearest);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_punctuation(std::string_view character) {
  const char c = character.front();
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

bool is_cjk(std::string_view character) {
  if (utf8_length(character) < 3) return false;
  const uint32_t c = utf8_code_point(character);
  return (c >= 0x2e80 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0xfe10 && c <= 0xfe4f) ||
         (c >= 0xff00 && c <= 0xffef) || (c >= 0x20000 && c <= 0x2fa1f);
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

/// Splits one punctuation mark off the end, or else off the beginning, of each word, as chrF++ does.
TokenTexts chrf_words(std::string_view text) {
  TokenTexts words;
  for (const std::string_view word : split_words(text)) {
    const std::vector<std::string_view> word_characters = characters(word);
    if (word_characters.size() > 1 && is_punctuation(word_characters.back())) {
      words.emplace_back(word.substr(0, word.size() - word_characters.back().size()));
      words.emplace_back(word_characters.back());
    } else if (word_characters.size() > 1 && is_punctuation(word_characters.front())) {
      words.emplace_back(word_characters.front());
      words.emplace_back(word.substr(word_characters.front().size()));
    } else {
      words.emplace_back(word);
    }
  }
  return words;
}

TokenTexts chrf_characters(std::string_view text) {
  TokenTexts word_characters;
  for (const std::string_view word : split_words(text)) {
    for (const std::string_view character : characters(word)) word_characters.emplace_back(character);
  }
  return word_characters;
}

/// Sums of the precisions and recalls over the n-gram orders that both texts have.
struct ChrfSums {
  double precision = 0, recall = 0;
  int orders = 0;

  void add(const TokenTexts& answer, const TokenTexts& reference, int max_order) {
    for (int n = 1; n <= max_order; ++n) {
      const GramCounts a = count_grams(answer, n);
      const GramCounts b = count_grams(reference, n);
      if (a.empty() || b.empty()) continue;
      const auto common = static_cast<double>(shared(a, b));
      precision += common / static_cast<double>(sum(a));
      recall += common / static_cast<double>(sum(b));
      ++orders;
    }
  }
};

}  // namespace

TokenTexts plain_tokens(std::string_view text) {
  TokenTexts tokens;
  for (const std::string_view word : split_words(text)) tokens.emplace_back(word);
  return tokens;
}

TokenTexts translation_tokens(std::string_view text, bool chinese) {
  std::string line(text);
  replace_all(line, "<skipped>", "");
  replace_all(line, "-\n", "");
  replace_all(line, "&quot;", "\"");
  replace_all(line, "&amp;", "&");
  replace_all(line, "&lt;", "<");
  replace_all(line, "&gt;", ">");
  const std::vector<std::string_view> all = characters(line);
  std::string spaced;
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string_view c = all[i];
    const bool after_digit = i > 0 && is_digit(all[i - 1].front());
    const bool before_digit = i + 1 < all.size() && is_digit(all[i + 1].front());
    bool separate = is_punctuation(c) && c != "'" && c != "-";
    if (c == "." || c == ",") separate = !(after_digit && before_digit);
    if (c == "-") separate = after_digit;
    if (chinese && is_cjk(c)) separate = true;
    if (separate) spaced += ' ';
    spaced += c;
    if (separate) spaced += ' ';
  }
  return plain_tokens(spaced);
}

double bleu(const TokenTexts& answer, const std::vector<TokenTexts>& references, std::span<const double> weights) {
  if (answer.empty() || references.empty()) return 0;
  double log_sum = 0;
  double weight_sum = 0;
  for (size_t n = 1; n <= weights.size(); ++n) {
    const GramCounts grams = count_grams(answer, n);
    const GramCounts expected = largest_counts(references, n);
    if (weights[n - 1] == 0 || (grams.empty() && expected.empty())) continue;
    const int64_t matched = shared(grams, expected);
    if (matched == 0) return 0;
    log_sum += weights[n - 1] * std::log(static_cast<double>(matched) / static_cast<double>(sum(grams)));
    weight_sum += weights[n - 1];
  }
  if (weight_sum == 0) return 0;
  const auto length = static_cast<double>(answer.size());
  const double reference_length = nearest_length(references, static_cast<int64_t>(answer.size()));
  const double brevity = length >= reference_length ? 0 : 1 - reference_length / length;
  return std::exp(log_sum / weight_sum + brevity);
}

double chrf(std::string_view answer, std::string_view reference, int word_order) {
  constexpr int kLetterOrder = 6;
  constexpr double kBetaSquared = 4;
  ChrfSums sums;
  sums.add(chrf_characters(answer), chrf_characters(reference), kLetterOrder);
  sums.add(chrf_words(answer), chrf_words(reference), word_order);
  if (sums.orders == 0 || sums.precision + sums.recall == 0) return 0;
  const double precision = sums.precision / sums.orders;
  const double recall = sums.recall / sums.orders;
  return (1 + kBetaSquared) * precision * recall / (kBetaSquared * precision + recall);
}

}  // namespace fathom::eval
