#pragma once

#include <cstdint>

namespace fathom {

/// Independent streams of random numbers of one seed. The tokens that a seed draws depend on the values, which must
/// therefore not change.
enum class RandomStream : uint64_t {
  kToken = 1,     // sampling of the token at a position; index: the token's id
  kAccept = 2,    // test of a drafted token at a position (verify.h); index: of the child among its siblings
  kResidual = 3,  // choice of the token at a position from the residual of the tests (verify.h); index: 0
  kDraft = 16,    // draws of sources that run a model; position: of the drawn token
};

/// Returns 64 random bits that depend on the arguments alone. A draw at a position therefore does not depend on
/// earlier draws, and repeating it returns the same bits.
uint64_t random_bits(uint64_t seed, RandomStream stream, int64_t position, uint64_t index);

/// Returns a number uniform in (0, 1), both ends excluded, from random bits.
double uniform_from(uint64_t bits);

/// Returns a random seed from the operating system, below 2^32 so that every JSON reader represents it exactly.
uint64_t draw_seed();

}  // namespace fathom
