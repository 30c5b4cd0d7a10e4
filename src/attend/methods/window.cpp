#include <algorithm>

#include "attend/methods.h"
#include "attend/methods/window.h"
#include "base/common_parameters.h"

namespace fathom {
namespace {

/// Selects the first `sink` tokens of the sequence and the newest `window`, the query's own included, at their
/// original positions.
class WindowSelector final : public Selector {
 public:
  WindowSelector(int64_t sink, int64_t window) : sink_(sink), window_(window) {}

  void select(const PageTable& table, const QueryBlock& block, Selection& selection) const override {
    const int64_t last = block.first + block.rows - 1;
    const int64_t window_begin = block.first - window_ + 1;  // of the first row, the earliest of all rows
    const int64_t window_begin_last = last - window_ + 1;  // of the last row; later tokens are in all rows' windows
    const int64_t sink_end = first_token(table) + sink_;
    for (uint32_t s = 0; s < table.size(); ++s) {
      const PageEntry& entry = table[s];
      const uint64_t sinks = page_bits(0, sink_end - entry.first);
      const uint64_t reach = sinks | page_bits(window_begin - entry.first, kPageTokens);
      if ((entry.mask & reach) == 0) continue;
      SelectedPage page{s, entry.position, entry.mask & reach, -1};
      if (entry.first < window_begin_last) {  // some rows' windows begin in this page
        page.row_masks = static_cast<int64_t>(selection.row_masks.size());
        for (int r = 0; r < block.rows; ++r) {
          selection.row_masks.push_back(sinks | page_bits(window_begin + r - entry.first, kPageTokens));
        }
      }
      selection.pages.push_back(page);
    }
  }

 private:
  int64_t sink_, window_;
};

}  // namespace

SelectorEntry window_method() {
  return {{.name = "window",
           .summary = "the first tokens (attention sinks) and a sliding window of the newest tokens",
           .paper = "Efficient Streaming Language Models with Attention Sinks, 2023",
           .needs = "any model",
           .time = "O(sink + window) per token",
           .memory = "O(n): nothing is evicted",
           .parameters = {sink_parameter({.value = "4"}),
                          window_parameter({.value = "1k", .min = 1, .old_names = {"size"}})},
           .capabilities = {.works_with_compacted = true, .works_on_recurrent = true, .works_with_drafts = true}},
          [](const Values& values) { return make_window(values.integer("sink"), values.integer("window")); }};
}

std::unique_ptr<Selector> make_window(int64_t sink, int64_t window) {
  return std::make_unique<WindowSelector>(sink, window);
}

}  // namespace fathom
