#include "eval/tasks/parts.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "eval/fit.h"
#include "eval/metrics.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

/// Returns a number of units, at most `max_units`, whose size exceeds `length` if possible. Extrapolates from the
/// sizes of a few units. size(0): the size of the smallest sample.
int64_t overfilling(int64_t max_units, int64_t length, const std::function<int64_t(int64_t)>& size) {
  constexpr int64_t kProbe = 48;  // units; enough to estimate their mean size to about a tenth
  int64_t units = std::min(max_units, kProbe), before = 0;
  while (units < max_units && size(units) <= length) {
    const double each =
        std::max(0.1, static_cast<double>(size(units) - size(before)) / static_cast<double>(units - before));
    const double missing = static_cast<double>(length - size(units)) / each;
    before = units;
    units = std::min(max_units, units + static_cast<int64_t>(missing * 1.05) + 8);
  }
  return units;
}

int64_t size_of(const TaskInput& input, const Sample& sample) { return input.measure(sample) + sample.reserve; }

/// Returns the element of the ascending `ends` nearest to `target`.
size_t nearest(const std::vector<size_t>& ends, size_t target) {
  const auto above = std::ranges::lower_bound(ends, target);
  if (above == ends.end()) return ends.empty() ? 0 : ends.back();
  if (above == ends.begin() || *above - target < target - *(above - 1)) return *above;
  return *(above - 1);
}

}  // namespace

Sample fit_sample(const Task& task, const TaskInput& input, int64_t length, int64_t min_units, int64_t max_units,
                  const std::function<Sample(int64_t)>& build, const std::optional<TextSource>& source) {
  std::map<int64_t, int64_t> sizes;
  const std::function<int64_t(int64_t)> size = [&](int64_t units) {
    const auto [known, added] = sizes.try_emplace(units, 0);
    if (added) known->second = size_of(input, build(min_units + units));
    return known->second;
  };
  if (size(0) > length) fail_too_short(task.name(), length, size(0));
  const int64_t units = largest_fit(overfilling(max_units - min_units, length, size), length, size);
  if (source && units == max_units - min_units && size(units) < length - length / 20) {
    fail(source->name, ": too short: the whole text gives ", size(units), " tokens of task ", task.name(),
         ", expected ", length, source->advice);
  }
  return build(min_units + units);
}

TextSource haystack_source(const TaskInput& input) {
  return {"haystack " + input.haystack->name(),
          "; use a longer file or a folder of files, repeat it with --repeat-haystack, or leave out --haystack for "
          "generated prose"};
}

Sample fit_prose_sample(const Task& task, const TaskInput& input, int64_t length, Rng& rng, int64_t min_units,
                        const std::function<Sample(std::string_view)>& build) {
  const std::string prose = input.haystack->text(rng, std::max(length, min_units));
  const std::vector<size_t> ends = word_ends(prose);
  const auto words = static_cast<int64_t>(ends.size());
  const TextSource source = haystack_source(input);
  if (words < min_units)
    fail(source.name, ": has ", words, " words, task ", task.name(), " needs at least ", min_units, source.advice);
  const auto build_of = [&](int64_t units) {
    return build(std::string_view(prose).substr(0, units == 0 ? 0 : ends[units - 1]));
  };
  return fit_sample(task, input, length, min_units, words, build_of, source);
}

std::vector<std::string_view> cut_prose(std::string_view prose, const std::vector<double>& shares, double slack) {
  std::vector<size_t> sentences;
  for (const std::string_view sentence : split_sentences(prose)) {
    sentences.push_back(static_cast<size_t>(sentence.data() + sentence.size() - prose.data()));
  }
  const std::vector<size_t> words = word_ends(prose);
  const auto max_distance = static_cast<size_t>(slack * static_cast<double>(prose.size()));
  std::vector<std::string_view> pieces;
  size_t begin = 0;
  for (const double share : shares) {
    const auto target = static_cast<size_t>(share * static_cast<double>(prose.size()));
    size_t end = nearest(sentences, target);
    if (std::max(end, target) - std::min(end, target) > max_distance) end = nearest(words, target);
    end = std::max(end, begin);
    pieces.push_back(strip(prose.substr(begin, end - begin)));
    begin = end;
  }
  pieces.push_back(strip(prose.substr(begin)));
  return pieces;
}

TextSpan append_part(std::string& text, std::string_view part) {
  const size_t begin = text.size();
  text += part;
  return {begin, text.size()};
}

int64_t reserve_for(const TaskInput& input, std::string_view answer) {
  const int64_t tokens = input.count(answer);
  return tokens + tokens / 50 + 8;
}

std::string FreshWords::draw(Rng& rng, int syllables) {
  while (true) {
    std::string word = nonsense_word(rng, syllables);
    if (taken_.insert(word).second) return word;
  }
}

std::vector<std::string> FreshWords::draw(Rng& rng, int syllables, int64_t count) {
  std::vector<std::string> words;
  while (static_cast<int64_t>(words.size()) < count) words.push_back(draw(rng, syllables));
  return words;
}

std::string_view strip(std::string_view text, std::string_view around) {
  const size_t begin = text.find_first_not_of(around);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(around) + 1 - begin);
}

std::string_view first_line(std::string_view text) {
  text = strip(text);
  return strip(text.substr(0, text.find('\n')));
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(strip(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return parts;
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines = split(text, '\n');
  std::erase_if(lines, [](std::string_view line) { return line.empty(); });
  return lines;
}

std::vector<int64_t> numbers_in(std::string_view text) {
  std::vector<int64_t> numbers;
  for (const std::string_view digits : digit_runs(text)) {
    if (digits.size() <= 9) numbers.push_back(std::stoll(std::string(digits)));
  }
  return numbers;
}

double correct_prefix(const std::vector<std::string_view>& answered,
                      const std::vector<std::string_view>& reference) {
  const auto correct = std::ranges::mismatch(answered, reference).in2 - reference.begin();
  return static_cast<double>(correct) / static_cast<double>(reference.size());
}

}  // namespace fathom::eval
