#pragma once

#include <cstdint>

namespace fathom::test {

/// Returns `number` by default, and another seed for each value of --gtest_random_seed, so that a property can be
/// tried on other random input. Each failed test prints the value to repeat it with.
uint32_t seed(uint32_t number);

}  // namespace fathom::test
