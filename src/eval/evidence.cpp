#include "eval/evidence.h"

#include <cmath>
#include <set>
#include <string>

#include "eval/metrics.h"

namespace fathom::eval {
namespace {

std::set<std::string> words_of(std::string_view text) {
  const std::string plain = normalize_english(text);
  std::set<std::string> words;
  for (const std::string_view word : split_words(plain)) words.emplace(word);
  return words;
}

}  // namespace

Json evidence_axes(const Sample& sample) {
  auto axes = Json::object();
  if (sample.evidence.empty()) return axes;
  const std::string prompt = sample.prompt();
  const auto size = static_cast<double>(prompt.size());
  double bytes = 0, sum = 0, squares = 0;
  std::set<std::string> evidence;
  for (const TextSpan& span : sample.evidence) {
    bytes += static_cast<double>(span.end - span.begin);
    const double at = static_cast<double>(span.begin) / size;
    sum += at, squares += at * at;
    evidence.merge(words_of(std::string_view(prompt).substr(span.begin, span.end - span.begin)));
  }
  const auto count = static_cast<double>(sample.evidence.size());
  axes["scope"] = bytes / size;
  axes["spans"] = count;
  axes["spread"] = std::sqrt(std::max(0.0, squares / count - sum / count * (sum / count)));
  const std::set<std::string> question = words_of(sample.question);
  double found = 0;
  for (const std::string& word : question) found += static_cast<double>(evidence.count(word));
  axes["overlap"] = question.empty() ? 0 : found / static_cast<double>(question.size());
  return axes;
}

}  // namespace fathom::eval
