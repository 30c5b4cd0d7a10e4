#include "train/angle_table.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace fathom::train {

AngleTable::AngleTable(RotaryConfig config, int64_t context, at::Device device)
    : config_(std::move(config)), context_(context), device_(device) {}

Angles AngleTable::range(int64_t first, int64_t count) {
  if (config_.dims == 0) return {};
  reserve(first + count);
  return {table_.cos.narrow(0, first, count), table_.sin.narrow(0, first, count)};
}

Angles AngleTable::of(const at::Tensor& positions) {
  if (config_.dims == 0) return {};
  reserve(positions.max().item<int64_t>() + 1);
  return {table_.cos.index_select(0, positions), table_.sin.index_select(0, positions)};
}

void AngleTable::reserve(int64_t positions) {
  if (table_.cos.defined()) {
    if (table_.cos.size(0) >= positions) return;
    positions = std::max(positions, 2 * table_.cos.size(0));
  }
  const Rotary rotary(config_, context_);
  const at::Tensor cos = at::empty({positions, rotary.pairs()}, at::kFloat), sin = at::empty_like(cos);
  for (int64_t m = 0; m < positions; ++m) {
    rotary.angles(static_cast<double>(m), cos.data_ptr<float>() + m * rotary.pairs(),
                  sin.data_ptr<float>() + m * rotary.pairs());
  }
  table_ = {cos.to(device_), sin.to(device_)};
}

}  // namespace fathom::train
