// A tree of fixed shape, filled from the latest known successors of each token. Every row that the model reads,
// rejected ones included, updates the successors of its token.
#include <algorithm>
#include <array>
#include <memory>
#include <numeric>

#include "base/error.h"
#include "decode/draft.h"
#include "decode/drafts/acceptance.h"
#include "decode/drafts/recycle_table.h"

namespace fathom {
namespace {

constexpr int kLevels = 6;

struct RecycleExperience final : DraftExperience {
  explicit RecycleExperience(int64_t vocabulary) : table(vocabulary) {}
  RecycleTable table;
  std::array<std::array<AcceptanceRate, RecycleTable::kSuccessors>, kLevels> rates;  // by depth and rank
};

class RecycleSource final : public DraftSource {
 public:
  explicit RecycleSource(int64_t vocabulary) : learned_(vocabulary) {
    for (auto& ranks : learned_.rates)
      for (int rank = 0; rank < RecycleTable::kSuccessors; ++rank)
        ranks[rank] = AcceptanceRate(0.5f / static_cast<float>((rank + 1) * (rank + 1)));
  }

  DraftNeeds needs() const override { return {.top_k = RecycleTable::kSuccessors}; }

  void start(std::span<const int32_t> prompt) override {
    for (size_t i = 1; i < prompt.size(); ++i) learned_.table.add(prompt[i - 1], prompt[i]);
  }

  Draft propose(const DraftContext& context, int nodes) override {
    const std::span<const RecycleNode> shape = recycle_template();
    std::array<int32_t, kNodes> tokens;
    std::array<float, kNodes> reach, estimates;
    std::array<int, kNodes> order;
    int count = 0;
    for (int i = 0; i < kNodes; ++i) {
      const RecycleNode& node = shape[i];
      const int32_t parent = node.parent < 0 ? context.tokens.back() : tokens[node.parent];
      tokens[i] = parent < 0 ? RecycleTable::kAbsent : learned_.table.after(parent)[node.rank];
      estimates[i] = learned_.rates[node.depth][node.rank].value();
      reach[i] = estimates[i] * (node.parent < 0 ? 1 : reach[node.parent]);
      if (tokens[i] != RecycleTable::kAbsent) order[count++] = i;
    }
    // The reach of a child is less than that of its parent, which therefore precedes it.
    const auto end = order.begin() + count;
    std::stable_sort(order.begin(), end, [&](int a, int b) { return reach[a] > reach[b]; });
    std::array<int, kNodes> numbers;
    Draft draft;
    for (auto it = order.begin(); it != end && draft.size() < nodes; ++it) {
      const int parent = shape[*it].parent;
      numbers[*it] = draft.add(parent < 0 ? -1 : numbers[parent], tokens[*it], estimates[*it]);
    }
    return draft;
  }

  void observe(const DraftOutcome& outcome) override {
    learn_rates(outcome);
    if (outcome.top_k <= 0 || outcome.top.empty()) {
      int32_t last = outcome.root;
      for (const int32_t token : outcome.emitted) {
        learned_.table.add(last, token);
        last = token;
      }
      return;
    }
    const auto row = [&](int node) { return outcome.top.subspan((node + 1) * outcome.top_k, outcome.top_k); };
    const int size = outcome.draft ? outcome.draft->size() : 0;
    // Rows of the text come last, the deepest at the end, so that they replace rejected rows of the same token.
    for (int node = 0; node < size; ++node)
      if (std::ranges::find(outcome.accepted, node) == outcome.accepted.end())
        learned_.table.add(outcome.draft->tokens[node], row(node));
    learned_.table.add(outcome.root, row(-1));
    for (const int node : outcome.accepted) learned_.table.add(outcome.draft->tokens[node], row(node));
  }

  std::shared_ptr<const DraftExperience> experience() const override {
    return std::make_shared<RecycleExperience>(learned_);
  }
  void adopt(const DraftExperience& experience) override {
    learned_ = dynamic_cast<const RecycleExperience&>(experience);
  }

 private:
  static constexpr int kNodes = 80;

  /// Compares the emitted tokens with the successors that drafts used.
  void learn_rates(const DraftOutcome& outcome) {
    int32_t last = outcome.root;
    for (int depth = 0; depth < std::ssize(outcome.emitted); ++depth) {
      const int32_t token = outcome.emitted[depth];
      const RecycleTable::Successors& successors = learned_.table.after(last);
      for (int rank = 0; rank < RecycleTable::kSuccessors && successors[rank] != RecycleTable::kAbsent; ++rank)
        learned_.rates[std::min(depth, kLevels - 1)][rank].add(successors[rank] == token);
      last = token;
    }
  }

  RecycleExperience learned_;
};

}  // namespace

DraftEntry recycle_method() {
  return {{.name = "recycle",
           .summary = "a fixed tree of the 8 latest known successors of each token, from all rows that were read",
           .paper = "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token "
                    "Recycling, 2024",
           .exact = true,
           .needs = "any model",
           .time = "O(1) per draft",
           .memory = "32 bytes per token of the vocabulary"},
          [](const Values&, const DraftSetup& setup) -> std::unique_ptr<DraftSource> {
            if (!setup.model) fail("draft method recycle: expected a model, found none");
            return std::make_unique<RecycleSource>(setup.model->config().vocabulary);
          }};
}

}  // namespace fathom
