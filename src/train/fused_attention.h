#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace fathom {

/// Causal grouped-query attention of f32 sequences to themselves, block by block: memory grows with the length, not
/// with its square.
class FusedAttention {
 public:
  /// q: [sequences, length, heads, key_dim], k: [sequences, length, kv_heads, key_dim], v: [sequences, length,
  /// kv_heads, value_dim]; all contiguous. window: newest tokens that a row sees, itself included; 0 = all.
  FusedAttention(at::Tensor q_, at::Tensor k_, at::Tensor v_, double scale, int64_t window);

  /// [sequences, length, heads, value_dim]
  at::Tensor forward() const;
  struct Gradients {
    at::Tensor q, k, v;
  };
  /// dy: of forward()'s result, contiguous.
  Gradients backward(const at::Tensor& dy) const;

  const at::Tensor q, k, v;

 private:
  struct Head;
  struct Scratch;
  template <class F>
  void for_heads(const F& f) const;
  void gather(const Head& head, Scratch& scratch) const;
  void shares(const Head& head, int64_t first, int64_t rows, Scratch& scratch) const;
  void forward(const Head& head, Scratch& scratch, float* out) const;
  void backward(const Head& head, Scratch& scratch, const float* dy, const Gradients& gradients) const;

  float scale_;
  int64_t window_, sequences_, length_, heads_, kv_heads_, key_dim_, value_dim_;
};

}  // namespace fathom
