#include "memory/layer_state.h"

#include <algorithm>

namespace fathom {

std::unique_ptr<LayerState> CombinedState::fork() const {
  return std::make_unique<CombinedState>(parts_[0] ? parts_[0]->fork() : nullptr,
                                         parts_[1] ? parts_[1]->fork() : nullptr);
}

void CombinedState::open(const OpenedTokens& tokens) {
  for (auto& part : parts_)
    if (part) part->open(tokens);
}

void CombinedState::commit() noexcept {
  for (auto& part : parts_)
    if (part) part->commit();
}

void CombinedState::accept(int64_t count) {
  for (auto& part : parts_)
    if (part) part->accept(count);
}

int64_t CombinedState::floor(int64_t tokens) const {
  int64_t lowest = tokens;
  for (const auto& part : parts_)
    if (part) lowest = std::min(lowest, part->floor(tokens));
  return lowest;
}

void CombinedState::truncate(int64_t tokens) {
  for (auto& part : parts_)
    if (part) part->truncate(tokens);
}

size_t CombinedState::bytes() const {
  size_t bytes = 0;
  for (const auto& part : parts_)
    if (part) bytes += part->bytes();
  return bytes;
}

}  // namespace fathom
