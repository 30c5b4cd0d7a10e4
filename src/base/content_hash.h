#pragma once

#include <cstdint>
#include <string_view>

namespace fathom {

/// A 64-bit hash that detects accidental differences, not deliberate ones. It is the same on all machines with the
/// same byte order. It applies SplitMix64's mixer (Steele, Lea, Flood, 2014) to words of eight bytes.
class ContentHash {
 public:
  /// Adds bytes. The hash also depends on the boundaries between calls.
  void add(std::string_view bytes);
  void add(uint64_t number);
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0x9e3779b97f4a7c15u;
};

/// Returns the ContentHash of `bytes`, added in one call.
uint64_t hash_content(std::string_view bytes);

}  // namespace fathom
