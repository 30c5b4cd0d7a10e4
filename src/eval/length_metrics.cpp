#include "eval/length_metrics.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/format.h"
#include "eval/metrics.h"

namespace fathom::eval {
namespace {

constexpr LengthTarget kTargets[] = {
    {"10", "[MLT:10]", 0, {0, 20}, {0, 20}},
    {"30", "[MLT:30]", 0, {20, 40}, {20, 40}},
    {"50", "[MLT:50]", 0, {40, 60}, {40, 60}},
    {"80", "[MLT:80]", 0, {70, 90}, {60, 100}},
    {"150", "[MLT:150]", 1, {130, 170}, {100, 200}},
    {"300", "[MLT:300]", 1, {280, 320}, {200, 400}},
    {"500", "[MLT:500]", 1, {450, 550}, {400, 600}},
    {"700", "[MLT:700]", 2, {630, 770}, {600, 800}},
    {">800", "[MLT:>800]", 2, {.above = 800}, {.above = 800}},
};

}  // namespace

std::span<const LengthTarget> length_targets() { return kTargets; }

const LengthTarget& length_target(int64_t words) {
  if (words < 1) fail_usage("length: expected at least 1 word, found ", words);
  return *std::ranges::find_if(kTargets, [&](const LengthTarget& t) { return t.flexible.contains(words); });
}

int64_t count_word_runs(std::string_view text) {
  int64_t runs = 0;
  bool in_word = false;
  for (const std::string_view character : characters(text)) {
    const bool word = is_word_character(character);
    runs += word && !in_word ? 1 : 0;
    in_word = word;
  }
  return runs;
}

void LengthMatches::add(const LengthTarget& target, std::string_view answer) {
  const int64_t words = count_word_runs(answer);
  Counts& counts = levels_[target.level];
  ++counts.answers;
  counts.precise += target.precise.contains(words) ? 1 : 0;
  counts.flexible += target.flexible.contains(words) ? 1 : 0;
}

LengthMatches::Counts LengthMatches::all() const {
  Counts all;
  for (const Counts& level : levels_) {
    all.answers += level.answers;
    all.precise += level.precise;
    all.flexible += level.flexible;
  }
  return all;
}

std::vector<int32_t> length_prefix(const Tokenizer& tokenizer, int64_t words) {
  const LengthTarget& target = length_target(words);
  const std::vector<std::string>& pieces = tokenizer.vocabulary().pieces;
  const auto found = std::ranges::find(pieces, target.token);
  if (found != pieces.end()) return {static_cast<int32_t>(found - pieces.begin())};
  std::vector<std::string_view> present;
  for (const LengthTarget& other : kTargets)
    if (std::ranges::find(pieces, other.token) != pieces.end()) present.push_back(other.token);
  fail_usage("length: expected a model trained with the meta length token ", target.token, ", found a vocabulary ",
             present.empty() ? "without meta length tokens" : concat("with ", comma_list(present), " only"));
}

}  // namespace fathom::eval
