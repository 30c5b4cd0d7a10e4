// Attention of a model with landmarks: past blocks have their shares by their landmarks, and a softmax each.
#include <algorithm>
#include <limits>

#include "attend/attention.h"

namespace fathom {

/// The softmax over the landmarks of pages [begin, end), blocks that are past, for all queries: scratch.shares
/// becomes [queries, end − begin], lse the log Σ exp of the scores.
void Attention::share_by_landmarks(const AttentionInput& input, const Prepared& prepared, int64_t begin,
                                   int64_t end, float* lse, Scratch& scratch) const {
  const PageShape& shape = input.memory->store().shape();
  const int64_t blocks = end - begin, queries = static_cast<int64_t>(prepared.block.rows) * input.group();
  scratch.landmark_keys.resize(blocks * shape.key_dim);
  for (int64_t b = 0; b < blocks; ++b) {
    const PageRead& read = prepared.reads[begin + b];
    float* key = scratch.landmark_keys.data() + b * shape.key_dim;
    read_key(shape.format, shape.key_dim, read.keys, static_cast<int>(input.landmarks.tokens), key);
    if (read.cos) kernels_.rotate_pairs(key, read.cos, read.sin, input.rotations->pairs());
  }
  scratch.shares.resize(queries * blocks);
  FloatProduct scores;
  scores.rows = queries, scores.cols = blocks, scores.depth = shape.key_dim;
  scores.a = prepared.queries.data(), scores.a_stride = shape.key_dim;
  scores.b = scratch.landmark_keys.data(), scores.b_stride = shape.key_dim, scores.b_turned = true;
  scores.y = scratch.shares.data(), scores.y_stride = blocks;
  scratch.floats.reserve(kMultiplyScratch);
  kernels_.multiply(scores, scratch.floats.data());
  for (int64_t q = 0; q < queries; ++q) lse[q] = kernels_.softmax(scratch.shares.data() + q * blocks, blocks);
}

/// Each past block is attended to on its own, and counts by the share of its landmark; what the rows see of their
/// own block joins the landmarks' softmax. The landmarks' values are never read.
void Attention::attend_blocks(const AttentionInput& input, const Prepared& prepared, int64_t begin, int64_t end,
                              float* out, float* lse, Scratch& scratch) const {
  const int dim = input.memory->store().shape().value_dim;
  const int64_t queries = static_cast<int64_t>(prepared.block.rows) * input.group();
  const bool own = prepared.own_block && end == std::ssize(prepared.reads) && end > begin;
  const int64_t past = end - begin - (own ? 1 : 0);
  scratch.block_out.resize(queries * dim);
  scratch.block_lse.resize(queries);
  const auto attend = [&](int64_t page) {
    attend_plainly(input, prepared, page, page + 1, scratch.block_out.data(), scratch.block_lse.data(), scratch);
  };
  std::fill_n(out, queries * dim, 0.0f);
  std::fill_n(lse, queries, -std::numeric_limits<float>::infinity());
  if (past > 0) share_by_landmarks(input, prepared, begin, begin + past, lse, scratch);
  for (int64_t b = 0; b < past; ++b) {
    attend(begin + b);
    for (int64_t q = 0; q < queries; ++q) {
      const float share = scratch.shares[q * past + b];
      const float* from = scratch.block_out.data() + q * dim;
      float* to = out + q * dim;
      for (int d = 0; d < dim; ++d) to[d] += share * from[d];
    }
  }
  if (!own) return;
  attend(end - 1);
  for (int64_t q = 0; q < queries; ++q)
    merge_attention(out + q * dim, lse[q], scratch.block_out.data() + q * dim, scratch.block_lse[q], dim);
}

}  // namespace fathom
