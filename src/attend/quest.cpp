// Pages by an upper bound of what their keys can score: the least and the largest of each dimension.
#include <algorithm>
#include <cstring>
#include <vector>

#include "attend/lane_keys.h"
#include "attend/page_choice.h"
#include "kernels/kernels.h"
#include "memory/page_notes.h"

namespace fathom {
namespace {

constexpr int kMostRows = 16;  // of a block of prefill that are looked at

/// The least and the largest of each dimension of the keys of a full page, rotated to this place.
struct Bounds {
  int64_t place;
  const float* sides;  // [2, key_dim]
};

class Quest final : public Selector {
 public:
  explicit Quest(const Values& values)
      : budget_(read_budget(values)), dense_layers_(values.integer("dense_layers")) {}

  void attach(const AttendContext& context) override {
    notes_ = std::make_unique<PageNotes>(context.store, note_bytes(context.store->shape().key_dim));
  }

  void select(const Lane& lane, const QueryBlock& block, Selection& selection) const override {
    PageBudget budget = budget_;
    if (block.layer < dense_layers_) budget.share = 1;
    const int dim = notes_->store().shape().key_dim;
    const std::vector<float> parts = parts_of(drawn_queries(block, dim, kMostRows), dim);
    std::vector<std::byte> moved;  // the note of a page that sits elsewhere than when it was noted
    const auto score = [&](uint32_t s) {
      Bounds bounds = read(note_of(lane[s], block.rotations));
      if (bounds.place != lane[s].place) {
        moved.resize(note_bytes(dim));
        make_note(lane[s], block.rotations, moved.data());
        bounds = read(moved.data());
      }
      return kernels().largest_dot(bounds.sides, parts.data(), std::ssize(parts) / (2 * dim), 2 * dim);
    };
    choose_pages(lane, block, budget, score, selection);
  }

 private:
  static size_t note_bytes(int dim) { return sizeof(int64_t) + 2 * sizeof(float) * dim; }
  static Bounds read(const std::byte* note) {
    return {*reinterpret_cast<const int64_t*>(note), reinterpret_cast<const float*>(note + sizeof(int64_t))};
  }

  /// The largest that a query can score with any key between the bounds is what is negative of it times the least
  /// and what is positive times the largest: [count, 2, key_dim].
  static std::vector<float> parts_of(const std::vector<float>& queries, int64_t dim) {
    std::vector<float> parts(2 * queries.size());
    for (int64_t i = 0; i < std::ssize(queries); ++i) {
      const int64_t least = i / dim * 2 * dim + i % dim;
      parts[least] = std::min(queries[i], 0.0f);
      parts[least + dim] = std::max(queries[i], 0.0f);
    }
    return parts;
  }

  const std::byte* note_of(const PageSlot& slot, const PlaceRotations* rotations) const {
    return notes_->get(slot.page, [&](std::byte* note) { make_note(slot, rotations, note); });
  }

  void make_note(const PageSlot& slot, const PlaceRotations* rotations, std::byte* note) const {
    const PageStore& store = notes_->store();
    const int dim = store.shape().key_dim;
    std::vector<float> keys;
    read_rotated(store, slot, rotations, keys);
    std::memcpy(note, &slot.place, sizeof(slot.place));
    auto* least = reinterpret_cast<float*>(note + sizeof(int64_t));
    float* largest = least + dim;
    std::copy_n(keys.data(), dim, least);
    std::copy_n(keys.data(), dim, largest);
    for (int t = 1; t < kPageTokens; ++t) {
      for (int d = 0; d < dim; ++d) {
        least[d] = std::min(least[d], keys[static_cast<size_t>(t) * dim + d]);
        largest[d] = std::max(largest[d], keys[static_cast<size_t>(t) * dim + d]);
      }
    }
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
