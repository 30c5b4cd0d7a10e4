#include "attend/token_set.h"

#include <algorithm>

namespace fathom {

uint32_t entry_of(const PageTable& table, int64_t index) {
  const auto after = std::ranges::upper_bound(table, index, {}, &PageEntry::first);
  return static_cast<uint32_t>(std::max<int64_t>(1, after - table.begin())) - 1;
}

void read_rotated(const Kernels& kernels, const PagedKv& kv, const PageEntry& entry, std::vector<float>& keys) {
  const int dim = kv.shape().key_dim, pairs = kv.rotations().pairs();
  keys.resize(static_cast<size_t>(kPageTokens) * dim);
  read_keys(kv.shape().format, dim, kv.store().keys(entry.page), entry.filled, keys.data());
  if (pairs == 0) return;
  std::vector<float> spare(2 * static_cast<size_t>(pairs));
  const PositionRotations::View rotation = kv.rotations().at(entry.position, spare.data());
  for (int t = 0; t < entry.filled; ++t)
    kernels.rotate_pairs(keys.data() + t * dim, rotation.cos, rotation.sin, pairs);
}

float dot(const float* x, const float* y, int n) {
  constexpr int kLanes = 16;
  float sums[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane] * y[i + lane];
  }
  for (; i < n; ++i) sums[i % kLanes] += x[i] * y[i];
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

void TokenSet::add(int64_t begin, int64_t end) {
  if (begin >= end || table_.empty()) return;
  for (uint32_t s = entry_of(table_, std::max<int64_t>(begin, 0)); s < table_.size() && table_[s].first < end; ++s)
    masks_[s] |= page_bits(begin - table_[s].first, end - table_[s].first);
}

void TokenSet::add_to(Selection& selection) const {
  for (uint32_t s = 0; s < table_.size(); ++s) {
    if (const uint64_t mask = masks_[s] & table_[s].mask)
      selection.pages.push_back({s, table_[s].position, mask, -1});
  }
}

}  // namespace fathom
