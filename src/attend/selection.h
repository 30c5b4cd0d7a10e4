#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fathom {

/// A page to be attended to, its position for these queries, and which of its tokens count.
struct SelectedPage {
  uint32_t entry = 0;     // index of the page-table entry
  int64_t position = 0;  // of its token 0 for the queries (≥ 0); the entry's own is the true one
  uint64_t mask = 0;
  int64_t row_masks = -1;  // index into Selection::row_masks of `rows` words, or −1: all rows see the mask
  // Keys to be read instead of the page's own, in its format; they stay until the layer is planned again. null: its
  // own. Values that are part of the keys are read from the page's own.
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
