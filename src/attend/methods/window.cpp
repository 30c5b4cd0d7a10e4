#include <algorithm>

#include "attend/methods.h"
#include "attend/methods/window.h"

namespace fathom {
namespace {

/// The first `sink` tokens of the sequence and the newest `size`, the query's own included; positions stay true.
class Window final : public Selector {
 public:
  Window(int64_t sink, int64_t size) : sink_(sink), size_(size) {}

  void select(const Lane& lane, const QueryBlock& block, Selection& selection) const override {
    const int64_t last = block.first + block.rows - 1;
    const int64_t window_begin =
        block.first - size_ + 1;  // of the first row: the earliest token any row's window holds
    const int64_t window_begin_last = last - size_ + 1;  // of the last row: from here on all rows' windows agree
    const int64_t sink_end = first_token(lane) + sink_;
    for (uint32_t s = 0; s < lane.size(); ++s) {
      const PageSlot& slot = lane[s];
      const uint64_t sinks = page_bits(0, sink_end - slot.first);
      const uint64_t reach = sinks | page_bits(window_begin - slot.first, kPageTokens);
      if ((slot.mask & reach) == 0) continue;
      SelectedPage page{s, slot.place, slot.mask & reach, -1};
      if (slot.first < window_begin_last) {  // the window's edge crosses this page, row by row
        page.row_masks = static_cast<int64_t>(selection.row_masks.size());
        for (int r = 0; r < block.rows; ++r) {
          selection.row_masks.push_back(sinks | page_bits(window_begin + r - slot.first, kPageTokens));
        }
      }
      selection.pages.push_back(page);
    }
  }

 private:
  int64_t sink_, size_;
};

}  // namespace

SelectorEntry window_method() {
  return {{"",
           "window",
           "the first tokens (sinks) and a sliding window of the newest",
           "Efficient Streaming Language Models with Attention Sinks, 2023",
           false,
           "any model",
           "O(sink + size) per token",
           "O(n): nothing is dropped",
           {{"sink", Parameter::Type::kInt, "4", "first tokens of the sequence that stay visible", 0, 1e12, {}},
            {"size",
             Parameter::Type::kInt,
             "1k",
             "newest tokens that are visible, the query's own included",
             1,
             1e12,
             {}}}},
          [](const Values& values) { return make_window(values.integer("sink"), values.integer("size")); }};
}

std::unique_ptr<Selector> make_window(int64_t sink, int64_t size) { return std::make_unique<Window>(sink, size); }

}  // namespace fathom
