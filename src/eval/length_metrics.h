#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "tokens/tokenizer.h"

namespace fathom::eval {

/// Word counts above `above` and up to `up_to`.
struct LengthRange {
  int64_t above = 0, up_to = std::numeric_limits<int64_t>::max();
  bool contains(int64_t words) const { return words > above && words <= up_to; }
};

/// A target length of answers. Source: "Ruler: A Model-Agnostic Method to Control Generated Length for Large
/// Language Models", 2024.
struct LengthTarget {
  std::string_view name;   // "10", …, "700", ">800": words
  std::string_view token;  // the meta length token, "[MLT:10]"
  int level = 0;           // 0: up to 80 words, 1: 150 to 500, 2: 700 and more
  LengthRange precise;     // word counts of a precise match
  LengthRange flexible;    // word counts of a flexible match
};
inline constexpr int kLengthLevels = 3;

/// Returns the nine targets, the shortest first. Their flexible ranges are adjacent and cover all lengths from 1.
std::span<const LengthTarget> length_targets();
/// Returns the target whose flexible range contains this number of words. Throws Error (usage) for words < 1.
const LengthTarget& length_target(int64_t words);

/// Returns the number of maximal runs of letters, digits and underscores (is_word_character).
int64_t count_word_runs(std::string_view text);

/// Counts answers that match their target lengths.
class LengthMatches {
 public:
  struct Counts {
    int64_t answers = 0, precise = 0, flexible = 0;
    /// Return the share of answers that match; 0 without answers.
    double precise_match() const { return share(precise); }
    double flexible_match() const { return share(flexible); }

   private:
    double share(int64_t n) const {
      return answers > 0 ? static_cast<double>(n) / static_cast<double>(answers) : 0;
    }
  };

  void add(const LengthTarget& target, std::string_view answer);
  /// level: 0 to kLengthLevels − 1.
  const Counts& of_level(int level) const { return levels_[level]; }
  Counts all() const;

 private:
  std::array<Counts, kLengthLevels> levels_{};
};

/// Returns the tokens with which an answer of about this many words begins: the meta length token of its target.
/// Throws Error (usage) for words < 1 and for a vocabulary without the token, whose model was not trained for
/// length control.
std::vector<int32_t> length_prefix(const Tokenizer& tokenizer, int64_t words);

}  // namespace fathom::eval
