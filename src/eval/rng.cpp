#include "eval/rng.h"

#include <cassert>
#include <numeric>
#include <unordered_map>

namespace fathom::eval {
namespace {

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;

}  // namespace

Rng::Rng(uint64_t seed, std::string_view name, int64_t length, int64_t index) : state_(mix(seed + kStep)) {
  for (const char c : name) state_ = mix(state_ ^ static_cast<unsigned char>(c));
  state_ = mix(state_ ^ static_cast<uint64_t>(length));
  state_ = mix(state_ ^ static_cast<uint64_t>(index));
}

uint64_t Rng::bits() { return mix(state_ += kStep); }

int64_t Rng::below(int64_t n) {
  assert(n >= 1);
  const auto range = static_cast<uint64_t>(n);
  const uint64_t rejected =
      -range % range;  // the lowest 2^64 mod n values are drawn again, so that the result is uniform
  uint64_t drawn = bits();
  while (drawn < rejected) drawn = bits();
  return static_cast<int64_t>(drawn % range);
}

std::vector<int64_t> Rng::distinct(int64_t n, int64_t k) {
  assert(k <= n);
  std::unordered_map<int64_t, int64_t>
      moved;  // a sparse Fisher-Yates shuffle of [0, n) that stores only moved entries
  const auto at = [&](int64_t i) {
    const auto found = moved.find(i);
    return found == moved.end() ? i : found->second;
  };
  std::vector<int64_t> drawn;
  drawn.reserve(k);
  for (int64_t i = 0; i < k; ++i) {
    const int64_t other = between(i, n - 1);
    drawn.push_back(at(other));
    moved[other] = at(i);
  }
  return drawn;
}

}  // namespace fathom::eval
