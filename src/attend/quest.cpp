// Pages by an upper bound of what their keys can score: the least and the largest of each dimension.
#include <algorithm>
#include <limits>
#include <vector>

#include "attend/lane_keys.h"
#include "attend/page_choice.h"
#include "memory/page_notes.h"

namespace fathom {
namespace {

constexpr int kMostRows = 16;  // of a block of prefill that are looked at

class Quest final : public Selector {
 public:
  explicit Quest(const Values& values)
      : budget_(read_budget(values)), dense_layers_(values.integer("dense_layers")) {}

  void attach(const AttendContext& context) override {
    notes_ = std::make_unique<PageNotes>(context.store, 2 * sizeof(float) * context.store->shape().key_dim);
  }

  void select(const Lane& lane, const QueryBlock& block, Selection& selection) const override {
    PageBudget budget = budget_;
    if (block.layer < dense_layers_) budget.share = 1;
    const int dim = notes_->store().shape().key_dim;
    PageQueries queries(block, dim, kMostRows);
    std::vector<float> parts(2 * static_cast<size_t>(dim));
    const auto score = [&](uint32_t s) {
      return bound(bounds(lane[s].page), queries.at(lane[s].place), queries.count(), parts);
    };
    choose_pages(lane, block, budget, score, selection);
  }

 private:
  /// The largest that a query can score with any key between the bounds: what is negative of it times the least,
  /// what is positive times the largest. parts: [2, key_dim], working memory.
  static float bound(const float* bounds, const float* queries, int count, std::vector<float>& parts) {
    const int dim = static_cast<int>(std::ssize(parts) / 2);
    float best = -std::numeric_limits<float>::infinity();
    for (int q = 0; q < count; ++q, queries += dim) {
      for (int d = 0; d < dim; ++d) {
        parts[d] = std::min(queries[d], 0.0f);
        parts[dim + d] = std::max(queries[d], 0.0f);
      }
      best = std::max(best, dot(parts.data(), bounds, 2 * dim));
    }
    return best;
  }

  /// [2, key_dim]: the least and the largest of each dimension of the keys as they lie in a full page.
  const float* bounds(PageId page) const {
    const PageStore& store = notes_->store();
    const int dim = store.shape().key_dim;
    return reinterpret_cast<const float*>(notes_->get(page, [&](std::byte* note) {
      std::vector<float> keys(static_cast<size_t>(kPageTokens) * dim);
      read_keys(store.shape().format, dim, store.keys(page), kPageTokens, keys.data());
      auto* least = reinterpret_cast<float*>(note);
      float* largest = least + dim;
      std::copy_n(keys.data(), dim, least);
      std::copy_n(keys.data(), dim, largest);
      for (int t = 1; t < kPageTokens; ++t) {
        for (int d = 0; d < dim; ++d) {
          least[d] = std::min(least[d], keys[static_cast<size_t>(t) * dim + d]);
          largest[d] = std::max(largest[d], keys[static_cast<size_t>(t) * dim + d]);
        }
      }
    }));
  }

  PageBudget budget_;
  int64_t dense_layers_;
  std::unique_ptr<PageNotes> notes_;
};

}  // namespace

MethodInfo quest_info() {
  std::vector<Parameter> parameters = budget_parameters({.tokens = 2048, .sink = 0, .local = 64});
  parameters.push_back({"dense_layers", Parameter::Type::kInt, "2", "first layers, which see all", 0, 1e6, {}});
  return {.name = "quest",
          .summary = "the pages whose keys could score highest, by the least and largest of each dimension",
          .paper = "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference, 2024",
          .needs = "any model",
          .time = "O(n / 64 + budget) per token",
          .memory = "O(n): nothing is dropped; 1/32 more for the bounds",
          .parameters = std::move(parameters)};
}

std::unique_ptr<Selector> make_quest(const Values& values) { return std::make_unique<Quest>(values); }

}  // namespace fathom
