#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom::eval {

/// Random numbers for samples (SplitMix64): the same on every machine and with every standard library.
class Rng {
 public:
  /// name: the name of the task. Different names, lengths and indices give independent sequences.
  Rng(uint64_t seed, std::string_view name, int64_t length, int64_t index);

  /// Returns 64 random bits.
  uint64_t bits();
  /// Returns a uniform number in [0, n); n ≥ 1.
  int64_t below(int64_t n);
  /// Returns a uniform number in [first, last].
  int64_t between(int64_t first, int64_t last) { return first + below(last - first + 1); }
  /// Returns a uniform number in [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(static_cast<int64_t>(i))]);
  }
  /// Returns a random item of a container that is not empty.
  template <class Items>
  const auto& pick(const Items& items) {
    return items[below(static_cast<int64_t>(std::size(items)))];
  }
  /// Returns k different numbers of [0, n) in random order; k ≤ n.
  std::vector<int64_t> distinct(int64_t n, int64_t k);

 private:
  uint64_t state_;
};

}  // namespace fathom::eval
