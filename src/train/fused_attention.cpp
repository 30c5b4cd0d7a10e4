#include "train/fused_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "base/aligned.h"
#include "kernels/kernels.h"
#include "train/fused_products.h"

namespace fathom {
namespace {

constexpr int64_t kRows = 64;  // queries of a block: its scores of 2,048 keys are half a megabyte, which L2 holds

/// y = a·bᵀ on this thread. a: [n, k], b: [m, k], y: [n, m].
class SmallProduct {
 public:
  void run(const float* a, int64_t n, const float* b, int64_t m, int64_t k, float* y) {
    const Kernels& table = kernels();
    ActivationRows rows{.rows = n, .cols = k, .f32 = a};
    if (table.pack_activations) pack(table, rows);
    const Matrix weights{WeightType::kF32, reinterpret_cast<const std::byte*>(b), m, k};
    table.matmul(weights, 0, m, rows, y, m);
  }

 private:
  void pack(const Kernels& table, ActivationRows& rows) {
    const int64_t elements = tile_elements(rows.rows, rows.cols), block = tile_elements(kTileTokens, rows.cols);
    high_.reserve(elements);
    low_.reserve(elements);
    for (int64_t i = 0; i * kTileTokens < rows.rows; ++i) {
      const int64_t count = std::min(kTileTokens, rows.rows - i * kTileTokens);
      table.pack_activations(rows.f32 + i * kTileTokens * rows.cols, count, rows.cols, high_.data() + i * block,
                             low_.data() + i * block);
    }
    rows.tiles = high_.data();
    rows.tiles_low = low_.data();
  }
  AlignedBuffer<uint16_t> high_, low_;
};

/// y[j, i] = x[i, j]; x: [rows, cols]. In blocks whose lines all fit into L1.
void turn(const float* x, int64_t rows, int64_t cols, float* y) {
  constexpr int64_t kBlock = 16;
  for (int64_t i = 0; i < rows; i += kBlock) {
    for (int64_t j = 0; j < cols; j += kBlock) {
      for (int64_t c = j; c < std::min(j + kBlock, cols); ++c) {
        for (int64_t r = i; r < std::min(i + kBlock, rows); ++r) y[c * rows + r] = x[r * cols + c];
      }
    }
  }
}

/// `rows` rows of `width` floats that lie `stride` apart, one after the other, and back.
void gather_rows(const float* from, int64_t stride, int64_t rows, int64_t width, float* to) {
  for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * stride, width, to + i * width);
}
void scatter_rows(const float* from, int64_t rows, int64_t width, float* to, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * width, width, to + i * stride);
}

}  // namespace

/// A query head of one sequence.
struct FusedAttention::Head {
  int64_t sequence, head, kv_head;
};

struct FusedAttention::Scratch {
  AlignedBuffer<float> k, v;                 // [length, dim] of the head
  AlignedBuffer<float> q, dy, out;           // [kRows, dim] of the block
  AlignedBuffer<float> p, dp;                // [kRows, length]
  AlignedBuffer<float> across, turned, sum;  // transposed operands, and a product before it is added
  SmallProduct product;
};

FusedAttention::FusedAttention(at::Tensor q_, at::Tensor k_, at::Tensor v_, double scale, int64_t window)
    : q(std::move(q_)),
      k(std::move(k_)),
      v(std::move(v_)),
      scale_(static_cast<float>(scale)),
      window_(window),
      sequences_(q.size(0)),
      length_(q.size(1)),
      heads_(q.size(2)),
      kv_heads_(k.size(2)),
      key_dim_(q.size(3)),
      value_dim_(v.size(3)) {}

/// Calls f(head, scratch) for each query head of each sequence, on all threads.
template <class F>
void FusedAttention::for_heads(const F& f) const {
  std::vector<Scratch> scratch(training_pool().threads());
  training_pool().parallel_for(sequences_ * heads_, [&](size_t i, int thread) {
    const int64_t head = static_cast<int64_t>(i) % heads_;
    f(Head{static_cast<int64_t>(i) / heads_, head, head * kv_heads_ / heads_}, scratch[thread]);
  });
}

void FusedAttention::gather(const Head& head, Scratch& s) const {
  s.k.reserve(length_ * key_dim_);
  s.v.reserve(length_ * value_dim_);
  s.q.reserve(kRows * key_dim_);
  s.p.reserve(kRows * length_);
  s.across.reserve(std::max(length_, kRows) * std::max(key_dim_, value_dim_));
  const int64_t row = head.sequence * length_ * kv_heads_ + head.kv_head;
  gather_rows(floats(k) + row * key_dim_, kv_heads_ * key_dim_, length_, key_dim_, s.k.data());
  gather_rows(floats(v) + row * value_dim_, kv_heads_ * value_dim_, length_, value_dim_, s.v.data());
}

/// The softmax of rows [first, first + rows) over the keys before their end, in s.p: [rows, first + rows].
void FusedAttention::shares(const Head& head, int64_t first, int64_t rows, Scratch& s) const {
  const int64_t end = first + rows;
  const int64_t row = (head.sequence * length_ + first) * heads_ + head.head;
  gather_rows(floats(q) + row * key_dim_, heads_ * key_dim_, rows, key_dim_, s.q.data());
  for (int64_t i = 0; i < rows * key_dim_; ++i) s.q.data()[i] *= scale_;
  s.product.run(s.q.data(), rows, s.k.data(), end, key_dim_, s.p.data());
  for (int64_t i = 0; i < rows; ++i) {
    float* p = s.p.data() + i * end;
    const int64_t from = window_ > 0 ? std::max<int64_t>(0, first + i + 1 - window_) : 0;
    std::fill_n(p, from, 0.0f);
    kernels().softmax(p + from, first + i + 1 - from);
    std::fill(p + first + i + 1, p + end, 0.0f);
  }
}

void FusedAttention::forward(const Head& head, Scratch& s, float* out) const {
  gather(head, s);
  s.out.reserve(kRows * value_dim_);
  for (int64_t first = 0; first < length_; first += kRows) {
    const int64_t rows = std::min(kRows, length_ - first), end = first + rows;
    shares(head, first, rows, s);
    turn(s.v.data(), end, value_dim_, s.across.data());
    s.product.run(s.p.data(), rows, s.across.data(), value_dim_, end, s.out.data());
    const int64_t row = (head.sequence * length_ + first) * heads_ + head.head;
    scatter_rows(s.out.data(), rows, value_dim_, out + row * value_dim_, heads_ * value_dim_);
  }
}

at::Tensor FusedAttention::forward() const {
  at::Tensor out = at::empty({sequences_, length_, heads_, value_dim_}, q.options());
  for_heads([&](const Head& head, Scratch& scratch) { forward(head, scratch, floats(out)); });
  return out;
}

/// gradients.k, gradients.v: [sequences, heads, length, dim], zero at first: of this query head alone.
void FusedAttention::backward(const Head& head, Scratch& s, const float* dy, const Gradients& gradients) const {
  gather(head, s);
  s.dy.reserve(kRows * value_dim_);
  s.out.reserve(kRows * key_dim_);
  s.dp.reserve(kRows * length_);
  s.turned.reserve(kRows * length_);
  s.sum.reserve(length_ * std::max(key_dim_, value_dim_));
  const int64_t own = (head.sequence * heads_ + head.head) * length_;
  /// into += xᵀ·y: x: [rows, end], y: [rows, dim], into: [end, dim]
  const auto add_product = [&](const float* x, const float* y, int64_t rows, int64_t end, int64_t dim,
                               float* into) {
    turn(x, rows, end, s.turned.data());
    turn(y, rows, dim, s.across.data());
    s.product.run(s.turned.data(), end, s.across.data(), dim, rows, s.sum.data());
    kernels().add(into, s.sum.data(), end * dim);
  };
  for (int64_t first = 0; first < length_; first += kRows) {
    const int64_t rows = std::min(kRows, length_ - first), end = first + rows;
    const int64_t row = (head.sequence * length_ + first) * heads_ + head.head;
    shares(head, first, rows, s);
    gather_rows(dy + row * value_dim_, heads_ * value_dim_, rows, value_dim_, s.dy.data());
    add_product(s.p.data(), s.dy.data(), rows, end, value_dim_, floats(gradients.v) + own * value_dim_);
    s.product.run(s.dy.data(), rows, s.v.data(), end, value_dim_, s.dp.data());
    // s.q holds the scaled queries, so that what comes back to them still lacks the scale, and to the keys does not
    for (int64_t i = 0; i < rows; ++i)
      kernels().softmax_backward(s.p.data() + i * end, 1, end, s.dp.data() + i * end);
    add_product(s.dp.data(), s.q.data(), rows, end, key_dim_, floats(gradients.k) + own * key_dim_);
    turn(s.k.data(), end, key_dim_, s.across.data());
    s.product.run(s.dp.data(), rows, s.across.data(), key_dim_, end, s.out.data());
    for (int64_t i = 0; i < rows * key_dim_; ++i) s.out.data()[i] *= scale_;
    scatter_rows(s.out.data(), rows, key_dim_, floats(gradients.q) + row * key_dim_, heads_ * key_dim_);
  }
}

FusedAttention::Gradients FusedAttention::backward(const at::Tensor& dy) const {
  const Gradients own{at::empty_like(q), at::zeros({sequences_, heads_, length_, key_dim_}, q.options()),
                      at::zeros({sequences_, heads_, length_, value_dim_}, q.options())};
  for_heads([&](const Head& head, Scratch& scratch) { backward(head, scratch, floats(dy), own); });
  // of the query heads that share a key head the sum
  const auto shared = [&](const at::Tensor& x) {
    return x.unflatten(1, {kv_heads_, heads_ / kv_heads_}).sum(2).transpose(1, 2).contiguous();
  };
  return {own.q, shared(own.k), shared(own.v)};
}

}  // namespace fathom
