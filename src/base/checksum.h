#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace fathom {

/// Returns the XXH3 64-bit checksum of the bytes (xxHash). It detects accidental changes, not deliberate ones, at
/// the speed of memory.
uint64_t checksum(std::span<const std::byte> bytes);

/// Computes checksum() of bytes that are added in parts.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  void add(std::span<const std::byte> bytes);
  uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fathom
