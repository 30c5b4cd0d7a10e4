#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/registry.h"
#include "memory/memory.h"

namespace fathom {

/// The query rows for which pages are to be selected: consecutive tokens of one sequence, one key/value head of one
/// layer.
struct QueryBlock {
  int layer = 0;
  int head = 0;       // key/value head
  int group = 1;      // query heads that share it
  int64_t first = 0;  // sequence index of row 0; row r is token first + r
  int rows = 0;
  const int64_t* positions = nullptr;  // [rows]
  const float* queries =
      nullptr;  // [rows, group, key_dim], rotated by their positions and scaled, rotary pairs side by side
  const PlaceRotations* rotations = nullptr;  // of the sequence
};

/// The model and the memory that a selector will work with.
struct AttendContext {
  std::shared_ptr<const PageStore> store;
  int layers = 0;
};

/// A page to be attended to, where it sits for these queries, and which of its tokens count.
struct SelectedPage {
  uint32_t slot = 0;  // index into the lane
  int64_t place =
      0;  // position of its token 0 as the queries shall see it (≥ 0; the lane's own place is the true one)
  uint64_t mask = 0;
  int64_t row_masks = -1;  // index into Selection::row_masks of `rows` words, or −1: all rows see the mask
};

/// What a block of queries attends to. Causality is no concern of selectors: what lies after a row is taken away
/// from it later.
struct Selection {
  std::vector<SelectedPage> pages;
  std::vector<uint64_t> row_masks;
  void clear() {
    pages.clear();
    row_masks.clear();
  }
};

/// Chooses which pages of a lane a block of queries sees. Thread-safe; the same pages and queries give the same
/// selection, whatever was selected before.
class Selector {
 public:
  virtual ~Selector() = default;
  /// Called once, before the first selection. Throws Error (usage) for what does not suit the model.
  virtual void attach(const AttendContext& context) { static_cast<void>(context); }
  /// Fills `selection` (empty on entry).
  virtual void select(const Lane& lane, const QueryBlock& block, Selection& selection) const = 0;
};

using SelectorMethod = std::unique_ptr<Selector>(const Values&);
/// The `--attend` methods.
const MethodTable<SelectorMethod>& attend_methods();

MethodInfo dense_info();
std::unique_ptr<Selector> make_dense(const Values& values);
MethodInfo hip_info();
std::unique_ptr<Selector> make_hip(const Values& values);
MethodInfo layers_info();
std::unique_ptr<Selector> make_layers(const Values& values);
MethodInfo lm_infinite_info();
std::unique_ptr<Selector> make_lm_infinite(const Values& values);
MethodInfo quest_info();
std::unique_ptr<Selector> make_quest(const Values& values);
MethodInfo window_info();
std::unique_ptr<Selector> make_window(const Values& values);
/// The sliding window of a model file: the newest `size` tokens, itself included.
std::unique_ptr<Selector> make_window(int64_t sink, int64_t size);

}  // namespace fathom
