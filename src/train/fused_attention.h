#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "train/factors.h"

namespace fathom::train {

/// Causal grouped-query self-attention of f32 sequences, computed block by block: memory grows linearly with the
/// length.
class FusedAttention {
 public:
  /// q: [sequences, length, heads, key_dim], k: [sequences, length, kv_heads, key_dim], v: [sequences, length,
  /// kv_heads, value_dim]; all contiguous. window: number of newest tokens that a row attends to, itself included;
  /// 0 = all.
  FusedAttention(at::Tensor q_, at::Tensor k_, at::Tensor v_, double scale, int64_t window, Factors factors);

  struct Result {
    at::Tensor out;  // [sequences, length, heads, value_dim]
    at::Tensor lse;  // [sequences, length, heads], the log-sum-exp of the scores
  };
  /// Returns the attention of all rows.
  Result forward() const;
  struct Gradients {
    at::Tensor q, k, v;
  };
  /// Returns the gradients of q, k and v. dy: gradient of the result's `out`, contiguous.
  Gradients backward(const Result& result, const at::Tensor& dy) const;

  const at::Tensor q, k, v;

 private:
  struct Block;
  struct Scratch;
  Block block(int64_t sequence, int64_t kv_head, int64_t first) const;
  void gather(const Block& block, const float* from, int64_t dim, float* to) const;
  void scatter(const Block& block, const float* from, int64_t dim, float* to) const;
  void scores(const Block& block, int64_t from, int64_t to, const float* queries, float* y) const;
  void forward(const Block& block, Scratch& scratch, const Result& result) const;
  void backward(const Block& block, Scratch& scratch, const Result& result, const float* dy, float* dq, float* dk,
                float* dv) const;
  void backward_to(const Block& block, int64_t from, int64_t to, Scratch& scratch, float* dk, float* dv) const;

  Factors factors_;
  float scale_;
  int64_t window_, sequences_, length_, heads_, kv_heads_, group_, key_dim_, value_dim_;
};

}  // namespace fathom::train
