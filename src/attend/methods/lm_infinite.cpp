// A window and the first tokens, which never seem farther away than a limit.
#include <algorithm>

#include "attend/methods.h"
#include "attend/methods/window.h"
#include "base/common_parameters.h"

namespace fathom {
namespace {

/// The Λ-shaped mask. A row whose window reaches the first tokens sees them where they are; for other rows they
/// move along, in their order, so that the very first is `limit` before the block's last row.
class LmInfinite final : public Selector {
 public:
  LmInfinite(int64_t sink, int64_t window, int64_t limit)
      : sink_(sink), limit_(limit), window_(make_window(sink, window)) {}

  void select(const PageTable& table, const QueryBlock& block, Selection& selection) const override {
    window_->select(table, block, selection);
    const size_t pages = selection.pages.size();
    for (size_t i = 0; i < pages; ++i) {
      const PageEntry& entry = table[selection.pages[i].entry];
      const int64_t number = entry.first - first_token(table);
      if (number < sink_) move_far_rows(entry, number, block, i, selection);
    }
  }

 private:
  /// Parts a page with first tokens, `number` and those that follow, between the rows to which it is near and those
  /// to which it is far.
  void move_far_rows(const PageEntry& entry, int64_t number, const QueryBlock& block, size_t index,
                     Selection& selection) const {
    const int64_t place = block.positions[block.rows - 1] - limit_ + number;
    const auto far = [&](int r) { return block.positions[r] - entry.position > limit_; };
    if (place <= entry.position || !far(block.rows - 1)) return;
    SelectedPage& page = selection.pages[index];
    const uint64_t sinks = page_bits(0, sink_ - number);
    if (far(0) && page.row_masks < 0 && (page.mask & ~sinks) == 0) {
      page.position = place;
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
    selection.pages.push_back({page.entry, place, page.mask & sinks, far_masks});
  }

  int64_t sink_, limit_;
  std::unique_ptr<Selector> window_;
};

}  // namespace

SelectorEntry lm_infinite_method() {
  using Type = Parameter::Type;
  return {
      {.name = "lm-infinite",
       .summary = "a sliding window and the first tokens, which seem at most `limit` away, as in training",
       .paper = "LM-Infinite: Zero-Shot Extreme Length Generalization for Large Language Models, 2024",
       .needs = "rotary model",
       .time = "O(sink + window) per token",
       .memory = "O(n): nothing is dropped",
       .parameters = {sink_parameter({.value = "10"}),
                      window_parameter({.value = "2k", .min = 1, .old_names = {"size"}}),
                      {"limit", Type::kInt, "0", "largest distance of the first tokens; 0: window", 0, 1e12, {}}},
       .capabilities = {.works_with_compacted = true, .works_on_recurrent = true}},
      [](const Values& values) {
        const int64_t window = values.integer("window"), limit = values.integer("limit");
        return std::make_unique<LmInfinite>(values.integer("sink"), window, limit > 0 ? limit : window);
      }};
}

}  // namespace fathom
