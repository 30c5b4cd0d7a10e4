#include "decode/random.h"

#include <random>

namespace fathom {
namespace {

/// A bijection in which every input bit changes about half of the output bits (the finaliser of SplitMix64).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// 2^64 divided by the golden ratio: spreads small numbers over all bits.
constexpr uint64_t kStep = 0x9e3779b97f4a7c15;

}  // namespace

uint64_t random_bits(uint64_t seed, RandomStream stream, int64_t position, uint64_t index) {
  uint64_t state = mix(seed + kStep * static_cast<uint64_t>(stream));
  state = mix(state + kStep * static_cast<uint64_t>(position));
  return mix(state + kStep * (index + 1));
}

double uniform_from(uint64_t bits) {
  // 52 bits plus one half: exact in a double, and never 0 or 1.
  return (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52;
}

uint64_t draw_seed() { return std::random_device{}(); }

}  // namespace fathom
