#include "attend/methods.h"
#include "attend/token_set.h"

namespace fathom {
namespace {

class DenseSelector final : public Selector {
 public:
  bool selects_all() const override { return true; }
  void select(const PageTable& table, const QueryBlock& block, Selection& selection) const override {
    for (uint32_t s = entry_of(table, block.visible_from); s < table.size(); ++s)
      selection.pages.push_back({s, table[s].position, table[s].mask});
  }
};

}  // namespace

SelectorEntry dense_method() {
  return {{.name = "dense",
           .summary = "every token attends to all tokens before it",
           .paper = "Attention Is All You Need, 2017",
           .exact = true,
           .needs = "any model",
           .time = "O(n) per token",
           .memory = "O(n)",
           .capabilities = {.works_with_compacted = true,
                            .works_with_landmarks = true,
                            .works_on_recurrent = true,
                            .works_with_drafts = true}},
          [](const Values&) { return std::make_unique<DenseSelector>(); }};
}

}  // namespace fathom
