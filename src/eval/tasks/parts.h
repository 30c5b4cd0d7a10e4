#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "eval/task.h"

// Building blocks that several tasks share.
namespace fathom::eval {

/// A text that may be too short: its name and advice for the user, for error messages.
struct TextSource {
  std::string name, advice;
};
/// Returns the name of the input's haystack and how to make it longer.
TextSource haystack_source(const TaskInput& input);

/// Returns the largest of the samples build(min_units), …, build(max_units) that fits into `length` tokens with its
/// reserve. Throws Error with the length needed if build(min_units) does not fit. source: the text of which
/// build(max_units) uses everything, if any. Throws Error that names it if build(max_units) leaves more than 5 % of
/// the length unused.
Sample fit_sample(const Task& task, const TaskInput& input, int64_t length, int64_t min_units, int64_t max_units,
                  const std::function<Sample(int64_t units)>& build,
                  const std::optional<TextSource>& source = std::nullopt);

/// Like fit_sample with words of the haystack as units: build receives running text of at least `min_units` words.
/// Throws Error if the haystack is too short for the length.
Sample fit_prose_sample(const Task& task, const TaskInput& input, int64_t length, Rng& rng, int64_t min_units,
                        const std::function<Sample(std::string_view prose)>& build);

/// Cuts `prose` at the given shares of its bytes (in [0, 1], ascending) into shares.size() + 1 pieces without white
/// space around them. Each cut is at the end of the nearest sentence if that is within `slack` (also a share), else
/// at the end of the nearest word.
std::vector<std::string_view> cut_prose(std::string_view prose, const std::vector<double>& shares, double slack);

/// Appends `part` to `text` and returns its span.
TextSpan append_part(std::string& text, std::string_view part);

/// Returns the tokens to reserve for an answer such as `answer`: its tokens plus a margin.
int64_t reserve_for(const TaskInput& input, std::string_view answer);

/// Draws distinct nonsense words. There are 68,600 words of two syllables. Drawing almost all of them is slow,
/// because words that were drawn before are rejected.
class FreshWords {
 public:
  std::string draw(Rng& rng, int syllables);
  std::vector<std::string> draw(Rng& rng, int syllables, int64_t count);

 private:
  std::unordered_set<std::string> taken_;
};

constexpr std::string_view kBlanks = " \t\r\n\f\v";
/// Removes the characters of `around` at both ends.
std::string_view strip(std::string_view text, std::string_view around = kBlanks);
/// Returns the first line of the stripped text, stripped.
std::string_view first_line(std::string_view text);
/// Returns the stripped lines without empty ones.
std::vector<std::string_view> lines_of(std::string_view text);
/// Splits at the separator and strips the parts. An empty text gives one empty part.
std::vector<std::string_view> split(std::string_view text, char separator);
/// Returns the runs of digits as numbers, without those of more than nine digits.
std::vector<int64_t> numbers_in(std::string_view text);
/// Joins the parts with `between`.
template <class Strings>
std::string join(const Strings& parts, std::string_view between) {
  std::string text;
  for (const auto& part : parts) {
    if (&part != &*std::begin(parts)) text += between;
    text += part;
  }
  return text;
}

/// Returns the share of the lines of `reference` that precede the first line in which `answered` differs.
double correct_prefix(const std::vector<std::string_view>& answered,
                      const std::vector<std::string_view>& reference);

}  // namespace fathom::eval
