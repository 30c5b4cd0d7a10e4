#pragma once

#include <cstdint>

#include "train/trainable.h"

namespace fathom::train {

/// Draws all values from [−limit, limit).
void draw_uniform(const Trainable& net, uint64_t seed, double limit);

/// Draws the values of a matrix from N(0, deviation²). The parameter must exist.
void draw_normal(const Trainable& net, const std::string& name, uint64_t seed, double deviation);

}  // namespace fathom::train
