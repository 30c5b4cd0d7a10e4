#include "eval/tasks/hiding.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/metrics.h"

namespace fathom::eval {

const std::string_view kNoiseLine =
    "We walk up the hill. We walk down the lane. The wind blows on. The river runs by. Home again we come.";

std::string hide_in_prose(std::string_view text, const HiddenPieces& hidden) {
  const std::vector<std::string_view> sentences = split_sentences(text);
  std::string result;
  size_t next = 0, consumed = 0;
  for (size_t i = 0; i < hidden.texts.size(); ++i) {
    const double target = hidden.depths[i] * static_cast<double>(text.size());
    // advance to the sentence boundary nearest to the target
    for (; next < sentences.size() && consumed + sentences[next].size() / 2.0 < target; ++next) {
      consumed += sentences[next].size();
      result += sentences[next];
    }
    if (!result.empty() && result.back() != '\n' && result.back() != ' ') result += ' ';
    result += hidden.texts[i];
    if (next < sentences.size()) result += ' ';
  }
  while (next < sentences.size()) result += sentences[next++];
  return result;
}

std::string hide_in_noise(int64_t lines, const HiddenPieces& hidden) {
  std::string result;
  size_t next = 0;
  for (int64_t line = 0; line <= lines; ++line) {
    const double depth = lines > 0 ? static_cast<double>(line) / static_cast<double>(lines) : 1;
    for (; next < hidden.texts.size() && (hidden.depths[next] <= depth || line == lines); ++next)
      result += hidden.texts[next] + "\n";
    if (line < lines) result += concat(kNoiseLine, "\n");
  }
  return result;
}

void add_evidence(Sample& sample, std::string_view piece) {
  const size_t begin = sample.context.find(piece);
  sample.evidence.push_back({begin, begin + piece.size()});
}

Score recall_score(const Sample& sample, const Answer& answer) {
  return {find_metric("substr_all").score(answer.text, sample),
          {{"answer_words", static_cast<double>(split_words(answer.text).size())}}};
}

double grid_depth(int64_t index, int64_t depths, bool logistic) {
  if (depths == 1) return 0.5;
  const double linear = static_cast<double>(index % depths) / static_cast<double>(depths - 1);
  if (!logistic || linear == 0 || linear == 1) return linear;
  return 1 / (1 + std::exp(-8 * (linear - 0.5)));  // denser near both ends
}

}  // namespace fathom::eval
