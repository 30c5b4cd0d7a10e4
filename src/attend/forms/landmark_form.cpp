#include "attend/forms/landmark_form.h"

#include <algorithm>

namespace fathom {

void LandmarkForm::count(AttentionBlock& block) const {
  const int64_t past = std::ssize(block.reads) - (reads_own_page(block) ? 1 : 0);
  block.count.attended += past * block.queries_count();
}

/// Computes the softmax over the landmarks of the past pages [begin, end) for all queries. Sets scratch.shares to
/// [queries, end − begin] and lse to the log-sum-exp of the scores.
void LandmarkForm::share_by_landmarks(const Kernels& kernels, const AttentionBlock& block, int64_t begin,
                                      int64_t end, float* lse, AttentionScratch& scratch) const {
  const PageShape& shape = block.kv->shape();
  const int64_t blocks = end - begin, queries = block.queries_count();
  scratch.landmark_keys.resize(blocks * shape.key_dim);
  for (int64_t b = 0; b < blocks; ++b) {
    const PageRead& read = block.reads[begin + b];
    float* key = scratch.landmark_keys.data() + b * shape.key_dim;
    read_key(shape.format, shape.key_dim, read.keys, static_cast<int>(landmarks_.tokens), key);
    if (read.cos) kernels.rotate_pairs(key, read.cos, read.sin, block.kv->rotations().pairs());
  }
  scratch.shares.resize(queries * blocks);
  FloatProduct scores;
  scores.rows = queries, scores.cols = blocks, scores.depth = shape.key_dim;
  scores.a = block.queries.data(), scores.a_stride = shape.key_dim;
  scores.b = scratch.landmark_keys.data(), scores.b_stride = shape.key_dim, scores.b_transposed = true;
  scores.y = scratch.shares.data(), scores.y_stride = blocks;
  scratch.floats.reserve(kMultiplyScratch);
  kernels.multiply(scores, scratch.floats.data());
  for (int64_t q = 0; q < queries; ++q) lse[q] = kernels.softmax(scratch.shares.data() + q * blocks, blocks);
}

void LandmarkForm::attend(const Kernels& kernels, const AttentionBlock& block, int64_t begin, int64_t end,
                          float* out, float* lse, AttentionScratch& scratch) const {
  const int dim = block.kv->shape().value_dim;
  const int64_t queries = block.queries_count();
  const bool own = reads_own_page(block) && end == std::ssize(block.reads) && end > begin;
  const int64_t past = end - begin - (own ? 1 : 0);
  scratch.block_out.resize(queries * dim);
  scratch.block_lse.resize(queries);
  const auto attend_page = [&](int64_t page) {
    AttentionForm::attend(kernels, block, page, page + 1, scratch.block_out.data(), scratch.block_lse.data(),
                          scratch);
  };
  std::fill_n(out, queries * dim, 0.0f);
  std::fill_n(lse, queries, -std::numeric_limits<float>::infinity());
  if (past > 0) share_by_landmarks(kernels, block, begin, begin + past, lse, scratch);
  for (int64_t b = 0; b < past; ++b) {
    attend_page(begin + b);
    for (int64_t q = 0; q < queries; ++q) {
      const float share = scratch.shares[q * past + b];
      const float* from = scratch.block_out.data() + q * dim;
      float* to = out + q * dim;
      for (int d = 0; d < dim; ++d) to[d] += share * from[d];
    }
  }
  if (!own) return;
  attend_page(end - 1);
  for (int64_t q = 0; q < queries; ++q)
    merge_attention(out + q * dim, lse[q], scratch.block_out.data() + q * dim, scratch.block_lse[q], dim);
}

}  // namespace fathom
