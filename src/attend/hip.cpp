// The keys that score highest, found by a tree: groups are halved, each half is judged by the keys at its middle.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attend/lane_keys.h"

namespace fathom {
namespace {

constexpr int kMostRows = 16;  // of a block of prefill that are looked at

struct Group {  // blocks [begin, end)
  int64_t begin, end;
  float score;
};

class Hip final : public Selector {
 public:
  explicit Hip(const Values& values)
      : keys_(values.integer("keys")),
        block_(values.integer("block")),
        window_(values.integer("window")),
        sink_(values.integer("sink")),
        dense_layers_(values.integer("dense_layers")) {}

  void attach(const AttendContext& context) override { store_ = context.store; }

  void select(const Lane& lane, const QueryBlock& block, Selection& selection) const override {
    const int64_t end = block.first + block.rows;
    const int64_t sink_end = first_token(lane) + sink_;
    const int64_t window_begin = std::max<int64_t>(0, block.first + 1 - window_);  // of the first row
    const int64_t blocks = (window_begin - sink_end) / block_;                     // to be searched: whole ones
    const int64_t groups = std::max<int64_t>(1, keys_ / block_);
    TokenChoice choice(lane);
    if (block.layer < dense_layers_ || blocks <= groups) {
      choice.add(0, end);
      return choice.add_to(selection);
    }
    choice.add(0, sink_end);
    choice.add(sink_end + blocks * block_, end);
    LaneKeys keys(lane, *store_, block.rotations);
    for (const Group& group : search(keys, block, sink_end, blocks, groups)) {
      const int64_t begin = sink_end + group.begin * block_;
      choice.add(begin, begin + block_);
    }
    choice.add_to(selection);
  }

 private:
  /// Groups of one block each; block 0 begins at token `begin`.
  std::vector<Group> search(LaneKeys& keys, const QueryBlock& block, int64_t begin, int64_t blocks,
                            int64_t count) const {
    std::vector<Group> groups;
    for (int64_t i = 0; i < count; ++i) groups.push_back({blocks * i / count, blocks * (i + 1) / count, 0});
    const auto whole = [](const Group& group) { return group.end - group.begin > 1; };
    while (std::ranges::any_of(groups, whole)) {
      std::vector<Group> halves;
      for (const Group& group : groups) {
        const int64_t middle = (group.begin + group.end + 1) / 2;
        halves.push_back({group.begin, middle, 0});
        if (middle < group.end) halves.push_back({middle, group.end, 0});
      }
      for (Group& half : halves) half.score = score(keys, block, begin + (half.begin + half.end) / 2 * block_);
      // the newer of two that score the same
      const auto better = [](const Group& a, const Group& b) {
        return a.score != b.score ? a.score > b.score : a.begin > b.begin;
      };
      const auto kept = std::min<int64_t>(count, std::ssize(halves));
      std::ranges::nth_element(halves, halves.begin() + kept - 1, better);
      halves.resize(kept);
      groups = std::move(halves);
    }
    return groups;
  }

  /// The highest score of some of the queries with the keys of the block that begins at token `begin`.
  float score(LaneKeys& keys, const QueryBlock& block, int64_t begin) const {
    const int dim = store_->shape().key_dim, rows = std::min(block.rows, kMostRows);
    float best = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < block_; ++i) {
      const int64_t index = begin + i;
      if (!keys.visible(index)) continue;
      const float* key = keys.key(index);
      for (int r = 1; r <= rows; ++r) {
        const int64_t row = static_cast<int64_t>(r) * block.rows / rows - 1;
        for (int h = 0; h < block.group; ++h)
          best = std::max(best, dot(block.queries + (row * block.group + h) * dim, key, dim));
      }
    }
    return best;
  }

  int64_t keys_, block_, window_, sink_, dense_layers_;
  std::shared_ptr<const PageStore> store_;
};

}  // namespace

MethodInfo hip_info() {
  using Type = Parameter::Type;
  return {.name = "hip",
          .summary = "the keys that score highest, found by halving groups and judging each half by its middle",
          .paper =
              "A Training-free Sub-quadratic Cost Transformer Model Serving Framework With Hierarchically Pruned "
              "Attention, 2025",
          .needs = "any model",
          .time = "O(keys · log n) per block of queries; pages of 64 tokens are read whole",
          .memory = "O(n): nothing is dropped",
          .parameters = {{"keys", Type::kInt, "512", "keys found for a block of queries", 2, 1e9, {}},
                         {"block", Type::kInt, "2", "keys that are taken together", 1, 64, {}},
                         {"window", Type::kInt, "256", "newest tokens, always seen", 1, 1e12, {}},
                         {"sink", Type::kInt, "16", "first tokens, always seen", 0, 1e12, {}},
                         {"dense_layers", Type::kInt, "3", "first layers, which see all", 0, 1e6, {}}}};
}

std::unique_ptr<Selector> make_hip(const Values& values) { return std::make_unique<Hip>(values); }

}  // namespace fathom
