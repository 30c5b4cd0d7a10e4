#pragma once

#include <cstdint>
#include <string_view>

namespace fathom {

/// Tells contents apart that differ by accident, not by intent: 64 bits, the same on every machine of this byte
/// order. SplitMix64's mixer (Steele, Lea, Flood, 2014) over words of eight bytes.
class ContentHash {
 public:
  /// Adds bytes; where one call ends and the next begins counts.
  void add(std::string_view bytes);
  void add(uint64_t number);
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0x9e3779b97f4a7c15u;
};

uint64_t hash_content(std::string_view bytes);

}  // namespace fathom
