#pragma once

#include <ATen/core/Tensor.h>

#include "position/rotary.h"

namespace fathom::train {

/// Cosines and sines of the rotary angles of rows, [rows, pairs] f32; undefined without rotary positions.
struct Angles {
  at::Tensor cos, sin;
};

/// The rotary angles of all positions up to the highest one used so far.
class AngleTable {
 public:
  /// context: as for Rotary.
  AngleTable(RotaryConfig config, int64_t context, at::Device device);
  /// Returns the angles of positions [first, first + count).
  Angles range(int64_t first, int64_t count);
  /// Returns the angles of the positions of rows. positions: [rows] int64.
  Angles of(const at::Tensor& positions);

 private:
  void reserve(int64_t positions);

  RotaryConfig config_;
  int64_t context_;
  at::Device device_;
  Angles table_;
};

}  // namespace fathom::train
