// A window and the first tokens, whose distance is limited.
#include <algorithm>

#include "attend/methods.h"
#include "attend/methods/window.h"
#include "base/common_parameters.h"

namespace fathom {
namespace {

/// The Λ-shaped mask. Rows within `limit` of a page of first tokens attend to them at their original positions. For
/// other rows the first tokens are moved together, so that the first one is `limit` positions before the last row
/// of the block.
class LmInfinite final : public Selector {
 public:
  LmInfinite(int64_t sink, int64_t window, int64_t limit)
      : sink_(sink), limit_(limit), window_(make_window(sink, window)) {}

  void select(const PageTable& table, const QueryBlock& block, Selection& selection) const override {
    window_->select(table, block, selection);
    const size_t pages = selection.pages.size();
    for (size_t i = 0; i < pages; ++i) {
      const PageEntry& entry = table[selection.pages[i].entry];
      const int64_t offset = entry.first - first_token(table);
      if (offset < sink_) clamp_far_rows(entry, offset, block, i, selection);
    }
  }

 private:
  /// Splits a selected page of first tokens into two: one at its original position for near rows, and one at the
  /// clamped position for far rows. offset: number of tokens before the page.
  void clamp_far_rows(const PageEntry& entry, int64_t offset, const QueryBlock& block, size_t index,
                      Selection& selection) const {
    const int64_t position = block.positions[block.rows - 1] - limit_ + offset;
    const auto far = [&](int r) { return block.positions[r] - entry.position > limit_; };
    if (position <= entry.position || !far(block.rows - 1)) return;
    SelectedPage& page = selection.pages[index];
    const uint64_t sinks = page_bits(0, sink_ - offset);
    if (far(0) && page.row_masks < 0 && (page.mask & ~sinks) == 0) {
      page.position = position;
      return;
    }
    const auto masks = static_cast<int64_t>(selection.row_masks.size());
    const int64_t near_masks = masks, far_masks = masks + block.rows;
    for (int r = 0; r < block.rows; ++r) {
      const uint64_t own = page.row_masks < 0 ? ~uint64_t{0} : selection.row_masks[page.row_masks + r];
      selection.row_masks.push_back(far(r) ? own & ~sinks : own);
    }
    for (int r = 0; r < block.rows; ++r) selection.row_masks.push_back(far(r) ? sinks : 0);
    page.row_masks = near_masks;
    selection.pages.push_back({page.entry, position, page.mask & sinks, far_masks});
  }

  int64_t sink_, limit_;
  std::unique_ptr<Selector> window_;
};

}  // namespace

SelectorEntry lm_infinite_method() {
  using Type = Parameter::Type;
  return {{.name = "lm-infinite",
           .summary = "like window, but the distance to the first tokens is limited",
           .paper = "LM-Infinite: Zero-Shot Extreme Length Generalization for Large Language Models, 2024",
           .needs = "rotary model",
           .time = "O(sink + window) per token",
           .memory = "O(n): nothing is evicted",
           .parameters = {sink_parameter({.value = "10"}),
                          window_parameter({.value = "2k", .min = 1, .old_names = {"size"}}),
                          {"limit",
                           Type::kInt,
                           "0",
                           "maximum distance to the first tokens; keep it within the trained length; 0: window",
                           0,
                           1e12,
                           {}}},
           .capabilities = {.works_with_compacted = true, .works_on_recurrent = true, .works_with_drafts = true}},
          [](const Values& values) {
            const int64_t window = values.integer("window"), limit = values.integer("limit");
            return std::make_unique<LmInfinite>(values.integer("sink"), window, limit > 0 ? limit : window);
          }};
}

}  // namespace fathom
