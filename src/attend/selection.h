#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fathom {

/// A page to be attended to, where it sits for these queries, and which of its tokens count.
struct SelectedPage {
  uint32_t slot = 0;  // index into the lane
  int64_t place =
      0;  // position of its token 0 as the queries shall see it (≥ 0; the lane's own place is the true one)
  uint64_t mask = 0;
  int64_t row_masks = -1;  // index into Selection::row_masks of `rows` words, or −1: all rows see the mask
  // Keys to be read instead of the page's own, in its format; they stay until the layer is planned again. null: its
  // own.
  const std::byte* keys = nullptr;
};

/// What a block of queries attends to. Selectors need regard neither causality nor the model's sliding window: both
/// are applied to their selection.
struct Selection {
  std::vector<SelectedPage> pages;
  std::vector<uint64_t> row_masks;
  void clear() {
    pages.clear();
    row_masks.clear();
  }
};

}  // namespace fathom
