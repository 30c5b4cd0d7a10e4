#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "memory/sequence.h"

namespace fathom::test {

/// Returns an empty sequence of attention layers that all have the same config.
inline Sequence identical_layers(const PagedKvConfig& config, int layers = 1) {
  std::vector<std::unique_ptr<LayerState>> states;
  for (int i = 0; i < layers; ++i) states.push_back(std::make_unique<PagedKv>(config));
  return Sequence(std::move(states));
}

}  // namespace fathom::test
