// Four consecutive segments of a text in random order, to be sorted.
#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

using SegmentOrder = std::vector<int64_t>;
constexpr int64_t kSegments = 4;
constexpr int64_t kMinSortedWords = 100;  // about seven sentences

SegmentOrder identity() { return {1, 2, 3, 4}; }

bool is_order(SegmentOrder order) {
  std::ranges::sort(order);
  return order == identity();
}

/// Returns the only permutation that is a subsequence of `digits`; empty if there is none or more than one.
SegmentOrder only_subsequence(const std::string& digits) {
  SegmentOrder found, order = identity();
  do {
    size_t at = 0;
    for (const char digit : digits) at += at < order.size() && digit - '0' == order[at];
    if (at < order.size()) continue;
    if (!found.empty()) return {};
    found = order;
  } while (std::next_permutation(order.begin(), order.end()));
  return found;
}

/// Returns the list in square brackets (the opening bracket may be missing) or, without one, the only permutation
/// in the text's digits.
SegmentOrder read_order(std::string_view text) {
  const size_t begin = text.find('['), end = text.find(']');
  if (end != std::string_view::npos) {
    const size_t from = begin == std::string_view::npos || begin > end ? 0 : begin + 1;
    const SegmentOrder listed = numbers_in(text.substr(from, end - from));
    if (is_order(listed)) return listed;
  }
  std::string digits;
  std::ranges::copy_if(text, std::back_inserter(digits), [](char c) { return c >= '1' && c <= '4'; });
  return only_subsequence(digits);
}

class TextSort final : public Task {
 public:
  using Task::Task;

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    std::vector<size_t> shown = {0, 1, 2, 3};
    rng.shuffle(shown);
    return fit_prose_sample(*this, input, length, rng, kMinSortedWords,
                            [&](std::string_view prose) { return build(input, prose, shown); });
  }

  /// Scores 1 for the correct order. in_place: the share of the segments at their position.
  Score score(const Sample& sample, const Answer& answer) const override {
    const SegmentOrder answered = read_order(answer.text), expected = sample.details["order"].get<SegmentOrder>();
    Score score{answered == expected ? 1.0 : 0.0};
    int64_t in_place = 0;
    for (size_t i = 0; i < answered.size(); ++i) in_place += answered[i] == expected[i];
    score.details["in_place"] = static_cast<double>(in_place) / kSegments;
    return score;
  }

 private:
  /// shown[i]: the segment with number i + 1.
  static Sample build(const TaskInput& input, std::string_view prose, const std::vector<size_t>& shown) {
    const std::vector<std::string_view> pieces = cut_prose(prose, {0.1, 0.3, 0.5, 0.7, 0.9}, 0.05);
    Sample sample;
    sample.context = concat(
        "Below are four segments of a text, which follow each other in the text but are given here "
        "in a random order, and what stands before and behind them.\n\nBefore:\n",
        pieces.front(), "\n\n");
    SegmentOrder expected(kSegments);
    for (size_t i = 0; i < shown.size(); ++i) {
      expected[shown[i]] = static_cast<int64_t>(i + 1);
      sample.evidence.push_back(
          append_part(sample.context, concat("Segment ", i + 1, ":\n", pieces[shown[i] + 1])));
      sample.context += "\n\n";
    }
    sample.context += concat("After:\n", pieces.back(), "\n\n");
    sample.question =
        "Question: In which order do the segments stand in the text? Give the four numbers as a list, such as "
        "[1, 2, 3, 4].\n";
    sample.lead = "Answer:";
    sample.references = {Json(expected).dump()};
    sample.reserve = reserve_for(input, sample.references[0]) + kSegments;  // spaces between the numbers
    sample.stop = {"\n"};
    sample.details["order"] = expected;
    return sample;
  }
};

}  // namespace

MethodInfo text_sort_info() {
  return {
      .name = "text_sort",
      .summary = "put four shuffled segments in order; use a book as --haystack, generated prose gives few clues",
      .paper = "Ada-LEval: Evaluating long-context LLMs with length-adaptable benchmarks, 2024",
      .needs = "any model"};
}

TaskList make_text_sort(const Values&) { return {std::make_shared<TextSort>("text_sort")}; }

}  // namespace fathom::eval
