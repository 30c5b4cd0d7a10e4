#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "eval/task.h"

// What several tasks are made of.
namespace fathom::eval {

/// A text that may be too short, for messages: what it is, and what to do about it.
struct TextSource {
  std::string name, advice;
};
TextSource haystack_source(const TaskInput& input);

/// The largest of the samples build(least), …, build(most) that fits into `length` tokens with its reserve. Throws
/// Error saying what is needed if build(least) does not. source: the text that build(most) uses up, if there is
/// one; Error if that leaves more than 5 % of the length empty.
Sample fit_sample(const Task& task, const TaskInput& input, int64_t length, int64_t least, int64_t most,
                  const std::function<Sample(int64_t units)>& build,
                  const std::optional<TextSource>& source = std::nullopt);

/// The same with words of the haystack for units: build gets running text of `least` words or more. Throws Error
/// for a haystack that ends before the length is reached, too.
Sample fit_prose_sample(const Task& task, const TaskInput& input, int64_t length, Rng& rng, int64_t least,
                        const std::function<Sample(std::string_view prose)>& build);

/// Cuts `prose` at the shares of it (in [0, 1], ascending) into one piece more, blanks around each taken off. A cut
/// is at the end of a sentence if one is no further away than `slack`, a share as well, and else at that of a word.
std::vector<std::string_view> cut_prose(std::string_view prose, const std::vector<double>& shares, double slack);

/// Appends `part` and says where it is.
TextSpan append_part(std::string& text, std::string_view part);

/// Tokens to leave for an answer like `answer`: its own and a few more.
int64_t reserve_for(const TaskInput& input, std::string_view answer);

/// Nonsense words, no two the same. There are 68,600 of two syllables; drawing most of them takes long.
class FreshWords {
 public:
  std::string draw(Rng& rng, int syllables);
  std::vector<std::string> draw(Rng& rng, int syllables, int64_t count);

 private:
  std::unordered_set<std::string> taken_;
};

constexpr std::string_view kBlanks = " \t\r\n\f\v";
/// Without the characters of `around` at both ends.
std::string_view strip(std::string_view text, std::string_view around = kBlanks);
/// Of the text without blanks around it.
std::string_view first_line(std::string_view text);
/// The lines, stripped; none is empty.
std::vector<std::string_view> lines_of(std::string_view text);
/// The parts between the separators, stripped; "" has one, empty.
std::vector<std::string_view> split(std::string_view text, char separator);
/// All runs of digits, as numbers; those over nine digits are left out.
std::vector<int64_t> numbers_in(std::string_view text);
/// The parts with `between` between them.
template <class Strings>
std::string join(const Strings& parts, std::string_view between) {
  std::string text;
  for (const auto& part : parts) {
    if (&part != &*std::begin(parts)) text += between;
    text += part;
  }
  return text;
}

/// The share of the reference that stands before the first line where `given` differs.
double right_prefix(const std::vector<std::string_view>& given, const std::vector<std::string_view>& reference);

}  // namespace fathom::eval
