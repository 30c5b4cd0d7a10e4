#include "train/fused_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/aligned.h"
#include "train/fused_products.h"

namespace fathom::train {
namespace {

constexpr int64_t kTokens = 64;      // tokens of a query block, which has all query heads of a key/value head
constexpr int64_t kKeys = 192;       // keys of a step of backward(): a multiple of the tile; scores fit into L2
constexpr int64_t kRowPadding = 16;  // floats; avoids cache conflicts between rows of scores
// backward() is split into at least this many tasks if there are enough query blocks. The tasks of a key/value head
// sum gradients of keys and values separately.
constexpr int64_t kParts = 8;

}  // namespace

/// A query block: the queries of consecutive tokens of a sequence that share a key/value head. Rows are ordered by
/// token, then by head.
struct FusedAttention::Block {
  int64_t sequence, kv_head;
  int64_t first, tokens;  // tokens [first, first + tokens) of the sequence
  int64_t rows;           // tokens · group
};

struct FusedAttention::Scratch {
  AlignedBuffer<float> q, dq;       // [rows, key_dim], q scaled
  AlignedBuffer<float> dy, out;     // [rows, value_dim]
  AlignedBuffer<float> p, dp;       // [rows, keys + padding]
  AlignedBuffer<float> lse;         // [rows]
  AlignedBuffer<float> row_values;  // [rows]; forward: 1 / Σ exp, backward: dy·out of the row
};

FusedAttention::FusedAttention(at::Tensor q_, at::Tensor k_, at::Tensor v_, double scale, int64_t window,
                               Factors factors)
    : q(std::move(q_)),
      k(std::move(k_)),
      v(std::move(v_)),
      factors_(factors),
      scale_(static_cast<float>(scale)),
      window_(window),
      sequences_(q.size(0)),
      length_(q.size(1)),
      heads_(q.size(2)),
      kv_heads_(k.size(2)),
      group_(heads_ / kv_heads_),
      key_dim_(q.size(3)),
      value_dim_(v.size(3)) {}

FusedAttention::Block FusedAttention::block(int64_t sequence, int64_t kv_head, int64_t first) const {
  const int64_t tokens = std::min(kTokens, length_ - first);
  return {sequence, kv_head, first, tokens, tokens * group_};
}

/// Copies the rows of a block from a tensor [sequences, length, heads, dim]; scatter copies them back.
void FusedAttention::gather(const Block& b, const float* from, int64_t dim, float* to) const {
  const int64_t width = group_ * dim;
  from += ((b.sequence * length_ + b.first) * kv_heads_ + b.kv_head) * width;
  for (int64_t i = 0; i < b.tokens; ++i) std::copy_n(from + i * kv_heads_ * width, width, to + i * width);
}
void FusedAttention::scatter(const Block& b, const float* from, int64_t dim, float* to) const {
  const int64_t width = group_ * dim;
  to += ((b.sequence * length_ + b.first) * kv_heads_ + b.kv_head) * width;
  for (int64_t i = 0; i < b.tokens; ++i) std::copy_n(from + i * width, width, to + i * kv_heads_ * width);
}

/// The range of the keys in [from, to) that are visible to a token, relative to `from`.
struct VisibleKeyRange {
  int64_t begin, end;
  VisibleKeyRange(int64_t token, int64_t window, int64_t from, int64_t to)
      : begin(std::clamp(window > 0 ? token + 1 - window : 0, from, to) - from),
        end(std::clamp(token + 1, from, to) - from) {}
};

/// Computes y[row, key − from] = query·key for keys [from, to). y has a row stride of to − from + kRowPadding.
void FusedAttention::scores(const Block& b, int64_t from, int64_t to, const float* queries, float* y) const {
  const int64_t stride = kv_heads_ * key_dim_;
  const float* keys = floats(k) + (b.sequence * length_ + from) * stride + b.kv_head * key_dim_;
  multiply(factors_,
           {b.rows, to - from, key_dim_, queries, key_dim_, false, keys, stride, true, y, to - from + kRowPadding});
}

void FusedAttention::forward(const Block& b, Scratch& s, const Result& result) const {
  const int64_t from = window_ > 0 ? std::max<int64_t>(0, b.first + 1 - window_) : 0, to = b.first + b.tokens;
  const int64_t stride = to - from + kRowPadding;
  s.q.reserve(b.rows * key_dim_);
  s.p.reserve(b.rows * stride);
  s.out.reserve(b.rows * value_dim_);
  s.lse.reserve(b.rows);
  s.row_values.reserve(b.rows);
  gather(b, floats(q), key_dim_, s.q.data());
  kernels().scale(s.q.data(), scale_, b.rows * key_dim_);
  scores(b, from, to, s.q.data(), s.p.data());
  for (int64_t row = 0; row < b.rows; ++row) {
    float* p = s.p.data() + row * stride;
    const VisibleKeyRange visible(b.first + row / group_, window_, from, to);
    std::fill_n(p, visible.begin, 0.0f);
    float sum = 0;
    const float largest = kernels().exponentials(p + visible.begin, visible.end - visible.begin, &sum);
    std::fill(p + visible.end, p + to - from, 0.0f);
    s.lse[row] = largest + std::log(sum);
    s.row_values[row] = 1 / sum;
  }
  const int64_t step = kv_heads_ * value_dim_;
  const float* values = floats(v) + (b.sequence * length_ + from) * step + b.kv_head * value_dim_;
  multiply(factors_, {b.rows, value_dim_, to - from, s.p.data(), stride, false, values, step, false, s.out.data(),
                      value_dim_});
  for (int64_t row = 0; row < b.rows; ++row) {
    kernels().scale(s.out.data() + row * value_dim_, s.row_values[row], value_dim_);
  }
  scatter(b, s.out.data(), value_dim_, floats(result.out));
  scatter(b, s.lse.data(), 1, floats(result.lse));
}

FusedAttention::Result FusedAttention::forward() const {
  const Result result{at::empty({sequences_, length_, heads_, value_dim_}, q.options()),
                      at::empty({sequences_, length_, heads_}, q.options())};
  const int64_t blocks = (length_ + kTokens - 1) / kTokens;
  std::vector<Scratch> scratch(training_pool().threads());
  training_pool().parallel_for(sequences_ * kv_heads_ * blocks, [&](size_t task, int thread) {
    const auto i = static_cast<int64_t>(task);
    // rows with the most keys first, so that the threads finish at about the same time
    const int64_t first = (blocks - 1 - i / (sequences_ * kv_heads_)) * kTokens,
                  head = i % (sequences_ * kv_heads_);
    forward(block(head / kv_heads_, head % kv_heads_, first), scratch[thread], result);
  });
  return result;
}

/// Adds the gradients between a query block and the keys [from, to) to dk, dv and the block's s.dq. dk, dv:
/// [length, dim] of one key/value head.
void FusedAttention::backward_to(const Block& b, int64_t from, int64_t to, Scratch& s, float* dk, float* dv) const {
  const int64_t keys = to - from, stride = keys + kRowPadding;
  const int64_t key_step = kv_heads_ * key_dim_, value_step = kv_heads_ * value_dim_;
  const float* values = floats(v) + (b.sequence * length_ + from) * value_step + b.kv_head * value_dim_;
  const float* own_keys = floats(k) + (b.sequence * length_ + from) * key_step + b.kv_head * key_dim_;
  scores(b, from, to, s.q.data(), s.p.data());
  multiply(factors_, {b.rows, keys, value_dim_, s.dy.data(), value_dim_, false, values, value_step, true,
                      s.dp.data(), stride});
  for (int64_t row = 0; row < b.rows; ++row) {
    float *p = s.p.data() + row * stride, *dp = s.dp.data() + row * stride;
    const VisibleKeyRange visible(b.first + row / group_, window_, from, to);
    for (float* x : {p, dp}) {
      std::fill_n(x, visible.begin, 0.0f);
      std::fill(x + visible.end, x + keys, 0.0f);
    }
    if (visible.begin < visible.end) {
      kernels().softmax_backward(s.lse[row], s.row_values[row], visible.end - visible.begin, p + visible.begin,
                                 dp + visible.begin);
    }
  }
  multiply(factors_, {keys, value_dim_, b.rows, s.p.data(), stride, true, s.dy.data(), value_dim_, false,
                      dv + from * value_dim_, value_dim_, true});
  multiply(factors_, {keys, key_dim_, b.rows, s.dp.data(), stride, true, s.q.data(), key_dim_, false,
                      dk + from * key_dim_, key_dim_, true});
  multiply(factors_, {b.rows, key_dim_, keys, s.dp.data(), stride, false, own_keys, key_step, false, s.dq.data(),
                      key_dim_, true});
}

void FusedAttention::backward(const Block& b, Scratch& s, const Result& result, const float* dy, float* dq,
                              float* dk, float* dv) const {
  for (AlignedBuffer<float>* x : {&s.q, &s.dq}) x->reserve(kTokens * group_ * key_dim_);
  for (AlignedBuffer<float>* x : {&s.dy, &s.out}) x->reserve(kTokens * group_ * value_dim_);
  for (AlignedBuffer<float>* x : {&s.p, &s.dp}) x->reserve(kTokens * group_ * (kKeys + kRowPadding));
  for (AlignedBuffer<float>* x : {&s.lse, &s.row_values}) x->reserve(kTokens * group_);
  gather(b, floats(q), key_dim_, s.q.data());
  kernels().scale(s.q.data(), scale_, b.rows * key_dim_);
  gather(b, dy, value_dim_, s.dy.data());
  gather(b, floats(result.out), value_dim_, s.out.data());
  gather(b, floats(result.lse), 1, s.lse.data());
  for (int64_t row = 0; row < b.rows; ++row) {
    const float *x = s.dy.data() + row * value_dim_, *y = s.out.data() + row * value_dim_;
    float sum = 0;
    for (int64_t i = 0; i < value_dim_; ++i) sum += x[i] * y[i];
    s.row_values[row] = sum;
  }
  std::fill_n(s.dq.data(), b.rows * key_dim_, 0.0f);
  const int64_t oldest = window_ > 0 ? std::max<int64_t>(0, b.first + 1 - window_) : 0, end = b.first + b.tokens;
  for (int64_t from = oldest / kKeys * kKeys; from < end; from += kKeys) {
    backward_to(b, from, std::min(from + kKeys, end), s, dk, dv);
  }
  // s.q has the scaled queries, so dk already includes the scale and dq does not
  kernels().scale(s.dq.data(), scale_, b.rows * key_dim_);
  scatter(b, s.dq.data(), key_dim_, dq);
}

FusedAttention::Gradients FusedAttention::backward(const Result& result, const at::Tensor& dy) const {
  const int64_t kv = sequences_ * kv_heads_, blocks = (length_ + kTokens - 1) / kTokens;
  const int64_t parts = std::min(blocks, (kParts + kv - 1) / kv);
  at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
  const at::Tensor key_parts = at::empty({kv, parts, length_, key_dim_}, q.options());
  const at::Tensor value_parts = at::empty({kv, parts, length_, value_dim_}, q.options());
  std::vector<Scratch> scratch(training_pool().threads());
  training_pool().parallel_for(kv * parts, [&](size_t task, int thread) {
    const auto i = static_cast<int64_t>(task);
    float *keys = floats(key_parts) + i * length_ * key_dim_,
          *values = floats(value_parts) + i * length_ * value_dim_;
    std::fill_n(keys, length_ * key_dim_, 0.0f);
    std::fill_n(values, length_ * value_dim_, 0.0f);
    for (int64_t b = i % parts; b < blocks; b += parts) {
      const int64_t head = i / parts;
      backward(block(head / kv_heads_, head % kv_heads_, b * kTokens), scratch[thread], result, floats(dy),
               floats(dq), keys, values);
    }
  });
  const auto sum = [&](const at::Tensor& from, int64_t dim, const at::Tensor& to) {
    for_rows(kv * length_, [&](int64_t row) {
      const int64_t head = row / length_, token = row % length_;
      float* y = floats(to) + ((head / kv_heads_ * length_ + token) * kv_heads_ + head % kv_heads_) * dim;
      const float* x = floats(from) + (head * parts * length_ + token) * dim;
      std::copy_n(x, dim, y);
      for (int64_t part = 1; part < parts; ++part) kernels().add(y, x + part * length_ * dim, dim);
    });
  };
  sum(key_parts, key_dim_, dk);
  sum(value_parts, value_dim_, dv);
  return {dq, dk, dv};
}

}  // namespace fathom::train
