// Blocks of tokens by an upper bound of what their keys can score: the least and the largest of each dimension.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "attend/lane_keys.h"
#include "attend/page_choice.h"
#include "kernels/kernels.h"
#include "memory/page_notes.h"

namespace fathom {
namespace {

constexpr int kMostRows = 16;   // of a block of prefill that are looked at
constexpr uint32_t kAhead = 8;  // pages whose notes are asked for before they are read

/// The nearest bfloat16 that is not above x, and not below.
uint16_t rounded_down(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const bool cut = (bits & 0xffff) != 0 && std::isfinite(x);
  return static_cast<uint16_t>((bits >> 16) + (cut && std::signbit(x) ? 1 : 0));
}
uint16_t rounded_up(float x) { return static_cast<uint16_t>(rounded_down(-x) ^ 0x8000); }

/// The least and the largest of each dimension of the keys of a full page's blocks, rotated to this place.
struct Bounds {
  int64_t place;
  const uint32_t* words;  // as BoundTask has them: dimensions one after the other, the blocks of each side by side
};

/// Queries as BoundTask has them: each number as often as a page has blocks.
struct SpreadQueries {
  std::vector<float> below, above;  // [count, n]
  SpreadQueries(const std::vector<float>& queries, int64_t dim, int blocks, int64_t n)
      : below(queries.size() / dim * n), above(below.size()) {
    for (int64_t i = 0; i < std::ssize(queries); ++i) {
      const int64_t at = i / dim * n + i % dim * blocks;
      std::fill_n(below.begin() + at, blocks, std::min(queries[i], 0.0f));
      std::fill_n(above.begin() + at, blocks, std::max(queries[i], 0.0f));
    }
  }
};

class Quest final : public Selector {
 public:
  explicit Quest(const Values& values)
      : budget_(read_budget(values)),
        block_(read_part("quest", values, "block", 16)),
        dense_layers_(values.integer("dense_layers")) {}

  void attach(const AttendContext& context) override {
    const int64_t words = static_cast<int64_t>(context.store->shape().key_dim) * blocks();
    words_ = (words + kBoundWords - 1) / kBoundWords * kBoundWords;
    notes_ = std::make_unique<PageNotes>(context.store, note_bytes());
  }

  void select(const Lane& lane, const QueryBlock& block, Selection& selection) const override {
    PageBudget budget = budget_;
    if (block.layer < dense_layers_) budget.share = 1;
    const int dim = notes_->store().shape().key_dim;
    const SpreadQueries queries(drawn_queries(block, dim, kMostRows), dim, blocks(), words_);
    const auto count = static_cast<int>(std::ssize(queries.below) / words_);
    std::vector<std::byte> moved;  // the note of a page that sits elsewhere than when it was noted
    const auto score = [&](uint32_t s, float* scores) {
      if (s + kAhead < lane.size()) notes_->fetch(lane[s + kAhead].page);
      Bounds bounds =
          read(notes_->get(lane[s].page, [&](std::byte* note) { make_note(lane[s], block.rotations, note); }));
      if (bounds.place != lane[s].place) {
        moved.resize(note_bytes());
        make_note(lane[s], block.rotations, moved.data());
        bounds = read(moved.data());
      }
      kernels().largest_bounds(
          {bounds.words, queries.below.data(), queries.above.data(), words_, count, blocks(), scores});
    };
    choose_parts(lane, block, budget, block_, score, selection);
  }

 private:
  int blocks() const { return kPageTokens / block_; }
  size_t note_bytes() const { return sizeof(int64_t) + sizeof(uint32_t) * words_; }
  static Bounds read(const std::byte* note) {
    return {*reinterpret_cast<const int64_t*>(note), reinterpret_cast<const uint32_t*>(note + sizeof(int64_t))};
  }

  void make_note(const PageSlot& slot, const PlaceRotations* rotations, std::byte* note) const {
    const PageStore& store = notes_->store();
    const int64_t dim = store.shape().key_dim;
    std::vector<float> keys, least(dim), largest(dim);
    read_rotated(store, slot, rotations, keys);
    std::memcpy(note, &slot.place, sizeof(slot.place));
    auto* words = reinterpret_cast<uint32_t*>(note + sizeof(int64_t));
    std::fill_n(words, words_, 0u);
    for (int b = 0; b < blocks(); ++b) {
      const float* key = keys.data() + b * block_ * dim;
      std::copy_n(key, dim, least.begin());
      std::copy_n(key, dim, largest.begin());
      for (int t = 1; t < block_; ++t) {
        key += dim;
        for (int64_t d = 0; d < dim; ++d) {
          least[d] = std::min(least[d], key[d]);
          largest[d] = std::max(largest[d], key[d]);
        }
      }
      for (int64_t d = 0; d < dim; ++d)
        words[d * blocks() + b] = rounded_down(least[d]) | static_cast<uint32_t>(rounded_up(largest[d])) << 16;
    }
  }

  PageBudget budget_;
  int block_;
  int64_t dense_layers_;
  int64_t words_ = 0;  // of a page's bounds
  std::unique_ptr<PageNotes> notes_;
};

}  // namespace

MethodInfo quest_info() {
  using Type = Parameter::Type;
  std::vector<Parameter> parameters = budget_parameters({.tokens = 2048, .sink = 0, .local = 64});
  parameters.push_back({"block", Type::kInt, "16", "tokens that are chosen together: 16, 32 or 64", 16, 64, {}});
  parameters.push_back({"dense_layers", Type::kInt, "2", "first layers, which see all", 0, 1e6, {}});
  return {
      .name = "quest",
      .summary = "the blocks of tokens whose keys could score highest, by the least and largest of each dimension",
      .paper = "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference, 2024",
      .needs = "any model",
      .time = "O(n / block + budget) per token",
      .memory = "O(n): nothing is dropped; 1/block more for the bounds",
      .parameters = std::move(parameters)};
}

std::unique_ptr<Selector> make_quest(const Values& values) { return std::make_unique<Quest>(values); }

}  // namespace fathom
