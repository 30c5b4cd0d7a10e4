#include <memory>

#include "attend/methods.h"
#include "base/common_parameters.h"

namespace fathom {
namespace {

/// Selects the newest `window` tokens and every `stride`-th page before them, at their own positions.
class Strided final : public Selector {
 public:
  Strided(int64_t window, int64_t stride) : window_(window), stride_(stride) {}

  void select(const PageTable& table, const QueryBlock& block, Selection& selection) const override {
    const int64_t window_begin =
        block.first - window_ + 1;  // of the first row; the windows of later rows begin later
    for (uint32_t e = 0; e < table.size(); ++e) {
      const PageEntry& entry = table[e];
      const bool newest = entry.first + entry.filled > window_begin;
      if (entry.mask != 0 && (newest || e % stride_ == 0))
        selection.pages.push_back({.entry = e, .position = entry.position, .mask = entry.mask});
    }
  }

 private:
  int64_t window_, stride_;
};

}  // namespace

SelectorEntry strided_method() {
  return {{.name = "strided",
           .summary = "a window of the newest tokens and every n-th page before it",
           .paper = "Generating Long Sequences with Sparse Transformers, 2019",
           .needs = "any model",
           .time = "O(window + n / stride) per token",
           .memory = "O(n): nothing is evicted",
           .parameters =
               {window_parameter({.value = "256", .min = 1}),
                {.name = "stride", .default_value = "4", .summary = "every n-th page; more is faster", .min = 1}},
           .capabilities = {.works_with_compacted = true, .works_on_recurrent = true}},
          [](const Values& values) {
            return std::make_unique<Strided>(values.integer("window"), values.integer("stride"));
          }};
}

}  // namespace fathom
