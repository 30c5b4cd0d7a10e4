#pragma once

#include <cstdint>

#include "memory/sequence.h"

namespace fathom {

/// Returns the sequence index of the first token of a page table. It may be above 0 in a compacted table.
inline int64_t first_token(const PageTable& table) { return table.empty() ? 0 : table.front().first; }

/// The query rows for which pages are selected: consecutive tokens of one sequence, for one key/value head of one
/// layer.
struct QueryBlock {
  int layer = 0;
  int head = 0;       // key/value head
  int group = 1;      // query heads that share it
  int64_t first = 0;  // sequence index of row 0; row r is token first + r
  int rows = 0;
  int64_t visible_from = 0;            // no row may attend to earlier tokens, so their pages need not be selected
  const int64_t* positions = nullptr;  // [rows]
  /// [rows, group, key_dim], rotated by their positions and scaled, rotary pairs adjacent.
  const float* queries = nullptr;
  const PagedKv* kv = nullptr;       // of the layer
  const Kernels* kernels = nullptr;  // kernels of the running attention, for selectors
  SequenceState* state = nullptr;    // the selector's state of the sequence; null if it has none
};

/// All queries of one sequence in one layer of a forward pass. The rows are the newest tokens of the sequence,
/// whose keys and values have been written to their pages.
struct LayerQueries {
  const Sequence* sequence = nullptr;
  const PagedKv* kv = nullptr;  // of the layer
  int layer = 0;
  int heads = 0;      // query heads, a multiple of the key/value heads
  int64_t first = 0;  // sequence index of row 0
  int64_t rows = 0;
  const int64_t* positions = nullptr;  // [rows]
  const float* queries = nullptr;  // row i at queries + i·stride: [heads, key_dim], neither rotated nor scaled,
                                   // rotary pairs adjacent
  int64_t stride = 0;
  float scale = 1;                   // multiplies scores
  const Kernels* kernels = nullptr;  // kernels of the running attention
  SequenceState* state = nullptr;    // the selector's or listener's state of the sequence

  int group() const { return heads / kv->heads(); }
  const float* query(int64_t row, int head) const {
    return queries + row * stride + static_cast<int64_t>(head) * kv->shape().key_dim;
  }
};

}  // namespace fathom
