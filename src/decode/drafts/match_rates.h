#pragma once

#include <algorithm>
#include <array>

#include "decode/drafts/acceptance.h"

namespace fathom {

/// How often copied tokens are accepted, by the number of matching tokens before them.
class MatchRates final : public DraftExperience {
 public:
  static constexpr int kLongest = 31;  // longer matches count as this long

  MatchRates() {
    for (int length = 0; length <= kLongest; ++length)
      rates_[length] = AcceptanceRate(static_cast<float>(length + 1) / static_cast<float>(length + 3));
  }
  float estimate(int length) const { return rates_[std::min(length, kLongest)].value(); }
  void add(int length, bool accepted) { rates_[std::min(length, kLongest)].add(accepted); }

 private:
  std::array<AcceptanceRate, kLongest + 1> rates_;
};

}  // namespace fathom
