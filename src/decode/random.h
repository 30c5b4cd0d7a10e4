#pragma once

#include <cstdint>

namespace fathom {

/// Independent streams of random numbers of one seed. Numbers are never renumbered: same seed, same tokens.
enum class RandomStream : uint64_t {
  kToken = 1,  // choice of the token at a position; index: the token's id
};

/// 64 random bits that depend on nothing but their arguments, so that what is drawn at a position does not depend
/// on how much was drawn before, and a position that is drawn again gives the same.
uint64_t random_bits(uint64_t seed, RandomStream stream, int64_t position, uint64_t index);

/// Uniform in (0, 1), both ends excluded, from random bits.
double uniform_from(uint64_t bits);

/// A seed from the system, below 2^32 so that every reader of JSON keeps it whole.
uint64_t draw_seed();

}  // namespace fathom
