#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fathom {

/// A selected page: its position for these queries and its selected tokens.
struct SelectedPage {
  uint32_t entry = 0;    // index of the page-table entry
  int64_t position = 0;  // position of token 0 for the queries (≥ 0); may differ from the entry's original position
  uint64_t mask = 0;     // selected tokens
  int64_t row_masks = -1;  // index in Selection::row_masks of one word per row, ANDed with the mask; −1: none
  // Keys to read instead of the page's own, in the format of the page; null: the page's own. They must stay valid
  // until the next plan() of the layer. Values that are part of the keys are read from the page's own keys.
  const std::byte* keys = nullptr;
};

/// The pages that a block of queries attends to. The engine applies causality and the model's sliding window
/// afterwards, so selectors may ignore both.
struct Selection {
  std::vector<SelectedPage> pages;
  std::vector<uint64_t> row_masks;
  void clear() {
    pages.clear();
    row_masks.clear();
  }
};

}  // namespace fathom
