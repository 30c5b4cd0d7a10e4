// A table of tri-grams, updated with the newest tokens, is searched for likely continuations.
#include <algorithm>
#include <array>
#include <memory>

#include "base/error.h"
#include "decode/draft.h"
#include "decode/drafts/acceptance.h"
#include "decode/drafts/draft_texts.h"
#include "decode/drafts/merge.h"
#include "decode/drafts/trigram_search.h"
#include "decode/drafts/trigram_table.h"

namespace fathom {
namespace {

class TrigramSource final : public DraftSource {
 public:
  TrigramSource(const Values& values, const std::vector<std::vector<int32_t>>& texts)
      : table_(values.integer("size")),
        visits_(values.integer("visits")),
        rate_(static_cast<float>(values.number("rate"))) {
    for (const std::vector<int32_t>& text : texts) add(text, 1, 1e9f);
    table_.normalise();
  }

  void start(std::span<const int32_t> prompt) override {
    add(prompt, rate_, kMaxWeight);
    read_ = prompt.size();
  }

  Draft propose(const DraftContext& context, int nodes) override {
    const std::span<const int32_t> tokens = context.tokens;
    if (tokens.size() > read_) {
      // The tri-grams of the last kRecent tokens, and all that are new.
      const size_t length = std::min(tokens.size(), std::max(kRecent, tokens.size() - read_ + 2));
      add(tokens.last(length), rate_, kMaxWeight);
      read_ = tokens.size();
    }
    Draft draft = tokens.size() < 2 ? Draft{} : search(tokens[tokens.size() - 2], tokens.back());
    proposed_.set(draft, tokens.size());
    for (int i = 0; i < draft.size(); ++i)
      draft.estimates[i] = std::max(1e-6f, calibrations_[draft.tree.depth(i)].apply(draft.estimates[i]));
    return unite({&draft, 1}, nodes);
  }

  void observe(const DraftOutcome& outcome) override {
    const Draft& draft = proposed_.draft();
    proposed_.compare(outcome, [&](int parent, int child) {
      float predicted = 0;
      for (int i = parent + 1; i < draft.size(); ++i)
        if (draft.tree.parent(i) == parent) predicted += draft.estimates[i];
      calibrations_[parent < 0 ? 0 : draft.tree.depth(parent) + 1].add(child >= 0, predicted);
    });
  }

 private:
  static constexpr size_t kRecent = 16;
  static constexpr float kMaxWeight = 3;
  static constexpr int kPaths = 24;  // nodes with the most visits; each is extended by its most likely successor

  void add(std::span<const int32_t> text, float amount, float cap) {
    for (size_t i = 2; i < text.size(); ++i) table_.add(text[i - 2], text[i - 1], text[i], amount, cap);
  }

  Draft search(int32_t a, int32_t b) {
    const auto found = search_.run(table_, a, b, visits_, read_);
    order_.clear();
    for (int i = 1; i < std::ssize(found); ++i)
      if (found[i].visits > 0) order_.push_back(i);
    // A parent has at least the visits of its child and a lower number, so it precedes the child.
    const auto more = [&](int x, int y) {
      return found[x].visits != found[y].visits ? found[x].visits > found[y].visits : x < y;
    };
    const auto end = order_.begin() + std::min<ptrdiff_t>(kPaths, std::ssize(order_));
    std::partial_sort(order_.begin(), end, order_.end(), more);
    numbers_.assign(found.size(), -1);
    Draft draft;
    for (auto it = order_.begin(); it != end; ++it) {
      const auto& node = found[*it];
      numbers_[*it] = draft.add(numbers_[node.parent], node.token, node.probability);
    }
    for (auto it = order_.begin(); it != end; ++it) {
      const auto& node = found[*it];
      table_.find(found[node.parent].token, node.token, successors_);
      if (successors_.empty() || draft.find_child(numbers_[*it], successors_[0].token) >= 0) continue;
      draft.add(numbers_[*it], successors_[0].token, successors_[0].probability);
    }
    return draft;
  }

  TrigramTable table_;
  int64_t visits_;
  float rate_;
  size_t read_ = 0;  // number of tokens of the text that were added
  TrigramSearch search_;
  std::vector<int> order_, numbers_;
  std::vector<TrigramTable::Successor> successors_;
  ProposedDraft proposed_;
  std::array<Calibration, TrigramSearch::kDepth + 1> calibrations_;  // by depth
};

}  // namespace

DraftEntry trigram_method() {
  using Type = Parameter::Type;
  return {
      {.name = "trigram",
       .summary = "a tree search over a table of tri-grams, which is updated with the newest tokens",
       .paper = "Adaptive Draft-Verification for Efficient Large Language Model Decoding, 2024",
       .exact = true,
       .needs = "any model",
       .time = "O(visits) per draft",
       .memory = "up to 60 bytes per tri-gram, size of them at most",
       .parameters =
           {draft_file_parameter("text files that fill the table, joined by '+'; default: none"),
            {"visits", Type::kInt, "150", "visits of the tree search; more finds likelier paths", 1, 1e6, {}},
            {"rate",
             Type::kFloat,
             "0.04",
             "weight added to a recent tri-gram; more adapts faster; 0: never",
             0,
             3,
             {}},
            {"size", Type::kInt, "1m", "largest number of tri-grams; more remembers longer", 1024, 1 << 28, {}}}},
      [](const Values& values, const DraftSetup& setup) -> std::unique_ptr<DraftSource> {
        return std::make_unique<TrigramSource>(values, read_draft_files("trigram", values, setup));
      }};
}

}  // namespace fathom
