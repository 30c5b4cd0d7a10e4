#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom {

/// A part of a sequence a, [a, a_end), that differs from the part [b, b_end) of a sequence b.
struct DiffBox {
  int64_t a = 0, a_end = 0, b = 0, b_end = 0;
};

/// Returns the parts in which two sequences of words, given as numbers, differ, in order and not touching each
/// other. The number of removed and inserted words is the least possible if it is at most 512, else nearly so. Time
/// O(words · min(differences, 512)), memory O(words). Source: Myers, 1986, the variant in linear space.
std::vector<DiffBox> diff_words(std::span<const int32_t> a, std::span<const int32_t> b);

}  // namespace fathom
