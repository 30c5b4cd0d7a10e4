#include "attend/lane_keys.h"
#include "attend/methods.h"

namespace fathom {
namespace {

/// Every token sees every token before it.
class Dense final : public Selector {
 public:
  void select(const Lane& lane, const QueryBlock& block, Selection& selection) const override {
    for (uint32_t s = slot_of(lane, block.visible_from); s < lane.size(); ++s)
      selection.pages.push_back({s, lane[s].place, lane[s].mask});
  }
};

}  // namespace

SelectorEntry dense_method() {
  return {{"",
           "dense",
           "every token sees every token before it",
           "Attention Is All You Need, 2017",
           true,
           "any model",
           "O(n) per token",
           "O(n)",
           {}},
          [](const Values&) { return std::make_unique<Dense>(); }};
}

}  // namespace fathom
