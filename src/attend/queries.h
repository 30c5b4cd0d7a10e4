#pragma once

#include <cstdint>

#include "memory/memory.h"

namespace fathom {

/// The first tokens of a sequence count from here: a packed lane begins with them.
inline int64_t first_token(const Lane& lane) { return lane.empty() ? 0 : lane.front().first; }

/// The query rows for which pages are to be selected: consecutive tokens of one sequence, one key/value head of one
/// layer.
struct QueryBlock {
  int layer = 0;
  int head = 0;       // key/value head
  int group = 1;      // query heads that share it
  int64_t first = 0;  // sequence index of row 0; row r is token first + r
  int rows = 0;
  int64_t visible_from = 0;            // no row may attend to tokens before this one: pages need not be selected
  const int64_t* positions = nullptr;  // [rows]
  const float* queries =
      nullptr;  // [rows, group, key_dim], rotated by their positions and scaled, rotary pairs side by side
  const PlaceRotations* rotations = nullptr;  // of the sequence
  const Kernels* kernels = nullptr;           // of the attention that runs: what a selector computes with
  SequenceState* state = nullptr;             // the selector's, of the sequence; null if it keeps none
};

/// All queries of one sequence in one layer of a forward pass: its newest tokens, whose keys and values are in
/// memory already.
struct LayerQueries {
  const Memory* memory = nullptr;
  int layer = 0;
  int heads = 0;      // query heads, a multiple of the memory's key/value heads
  int64_t first = 0;  // sequence index of row 0
  int64_t rows = 0;
  const int64_t* positions = nullptr;  // [rows]
  const float* queries = nullptr;  // row i at queries + i·stride: [heads, key_dim], neither rotated nor scaled,
                                   // rotary pairs side by side
  int64_t stride = 0;
  float scale = 1;                            // multiplies scores
  const PlaceRotations* rotations = nullptr;  // of the sequence
  const Kernels* kernels = nullptr;           // of the attention that runs
  SequenceState* state = nullptr;             // the selector's or listener's, of the sequence

  int group() const { return heads / memory->kv_heads(); }
  const float* query(int64_t row, int head) const {
    return queries + row * stride + static_cast<int64_t>(head) * memory->store().shape().key_dim;
  }
};

}  // namespace fathom
