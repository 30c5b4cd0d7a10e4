#include "decode/drafts/long_drafter.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace fathom {
namespace {

constexpr int64_t kMaxWidth = 1 << 20;   // of a layer's parts
constexpr int64_t kMaxWindow = 1 << 16;  // bounds the memory
constexpr int64_t kChunk = 256;          // tokens whose keys and values are computed together

float dot_product(const float* x, const float* y, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

RotaryConfig rotary_config(int64_t dims, double base) {
  RotaryConfig config;
  config.dims = static_cast<int>(dims);
  config.base = base;
  return config;
}

/// Returns the last layer with attention. Throws Error (usage) if there is none.
int last_attention_layer(const Session& session) {
  for (int layer = session.sequence().layers() - 1; layer >= 0; --layer)
    if (session.sequence().paged(layer)) return layer;
  fail_usage("--draft longspec: the model has no layer with attention, expected another model");
}

}  // namespace

LongDrafter::LongDrafter(DraftFile file, Session& session)
    : file_(std::move(file)),
      session_(session),
      width_(session.model().config().width),
      kv_heads_(file_.integer("kv_heads", 1, kMaxWidth)),
      heads_(file_.multiple("heads", kv_heads_, kMaxWidth)),
      head_dim_(file_.multiple("head_dim", 2, kMaxWidth)),
      window_(file_.integer_or("window", 1, kMaxWindow, 512)),
      ffn_width_(file_.integer("ffn_width", 1, kMaxWidth)),
      eps_(static_cast<float>(file_.number("norm_eps", 0, 1))),
      rotary_(rotary_config(head_dim_, file_.number("rope_base", 2, 1e12)), 0),
      layer_(last_attention_layer(session)),
      cross_(session.model().network().attention()[layer_]) {
  const ModelConfig& model = session.model().config();
  const int rotary = model.layer(layer_).rotary;
  half_split_ = rotary != kNoRotary && model.rotaries()[rotary].pairing == RotaryConfig::Pairing::kHalfSplit;
  rotary_dims_ = 2 * session.sequence().kv(layer_).rotations().pairs();
  attn_norm_ = file_.vector("attn_norm.weight", width_);
  q_ = file_.matrix("attn_q.weight", heads_ * head_dim_, width_);
  k_ = file_.matrix("attn_k.weight", kv_heads_ * head_dim_, width_);
  v_ = file_.matrix("attn_v.weight", kv_heads_ * head_dim_, width_);
  out_ = file_.matrix("attn_output.weight", width_, heads_ * head_dim_);
  cross_norm_ = file_.vector("cross_norm.weight", width_);
  cross_q_ = file_.matrix("cross_q.weight", int64_t{cross_.heads} * cross_.shape.key_dim, width_);
  cross_out_ = file_.matrix("cross_output.weight", width_, int64_t{cross_.heads} * cross_.shape.value_dim);
  ffn_norm_ = file_.vector("ffn_norm.weight", width_);
  gate_ = file_.matrix("ffn_gate.weight", ffn_width_, width_);
  up_ = file_.matrix("ffn_up.weight", ffn_width_, width_);
  down_ = file_.matrix("ffn_down.weight", width_, ffn_width_);
  output_norm_ = file_.vector("output_norm.weight", width_);
  keys_.resize(window_ * kv_heads_ * head_dim_);
  values_.resize(keys_.size());
}

/// Sets the residual stream to the embeddings of tokens, and normed_ to the input of self-attention.
void LongDrafter::read_embeddings(std::span<const int32_t> tokens) {
  x_.resize(tokens.size() * width_);
  session_.model().network().embeddings(work(), tokens, x_.data());
  normalise(attn_norm_);
}

void LongDrafter::normalise(const std::vector<float>& norm) {
  const int64_t rows = std::ssize(x_) / width_;
  normed_.resize(rows, width_);
  for (int64_t r = 0; r < rows; ++r)
    work().kernels.rms_norm(x_.data() + r * width_, norm.data(), eps_, width_, normed_.row(r));
}

/// Adds weights · x to the residual stream.
void LongDrafter::add_product(ActivationBuffer& x, const Matrix& weights) {
  update_.resize(x_.size());
  const Product products[] = {{&weights, update_.data()}};
  matmul(work().pool, work().kernels, x, products);
  work().kernels.add(x_.data(), update_.data(), std::ssize(x_));
}

void LongDrafter::rotate(float* heads, int count, int64_t position) const {
  std::vector<float> cos(rotary_.pairs()), sin(rotary_.pairs());
  rotary_.angles(static_cast<double>(position), cos.data(), sin.data());
  for (int h = 0; h < count; ++h)
    work().kernels.rotate_pairs(heads + h * head_dim_, cos.data(), sin.data(), rotary_.pairs());
}

void LongDrafter::begin(std::span<const int32_t> text, int32_t pending) {
  const int64_t shift = session_.sequence().next_position() - std::ssize(text);
  if (shift != shift_ || std::ssize(text) < read_) read_ = 0;
  shift_ = shift;
  read_ = std::max(read_, std::ssize(text) - window_);
  while (read_ < std::ssize(text)) extend_window(text.subspan(read_, std::min(kChunk, std::ssize(text) - read_)));
  pending_ = pending;
  nodes_.clear();
}

/// Adds the keys and values of the next tokens. They depend on the token and its position only, because they are
/// those of the first layer.
void LongDrafter::extend_window(std::span<const int32_t> text) {
  const int64_t size = kv_heads_ * head_dim_;
  read_embeddings(text);
  k_rows_.resize(text.size() * size);
  v_rows_.resize(text.size() * size);
  const Product products[] = {{&k_, k_rows_.data()}, {&v_, v_rows_.data()}};
  matmul(work().pool, work().kernels, normed_, products);
  for (int64_t r = 0; r < std::ssize(text); ++r, ++read_) {
    float* key = k_rows_.data() + r * size;
    rotate(key, static_cast<int>(kv_heads_), read_ + shift_);
    std::copy_n(key, size, keys_.data() + read_ % window_ * size);
    std::copy_n(v_rows_.data() + r * size, size, values_.data() + read_ % window_ * size);
  }
}

/// Attends with one head to the window before a node, to its ancestors and to itself. query, out: [head_dim].
void LongDrafter::attend_head(int node, int head, const float* query, float* out) const {
  const int64_t kv_head = head / (heads_ / kv_heads_), size = kv_heads_ * head_dim_, at = kv_head * head_dim_;
  const int64_t first = std::max<int64_t>(0, nodes_[node].index + 1 - window_);
  std::vector<const float*> values;
  std::vector<float> weights;
  const auto add = [&](const float* key, const float* value) {
    weights.push_back(dot_product(query, key + at, head_dim_) / std::sqrt(static_cast<float>(head_dim_)));
    values.push_back(value + at);
  };
  for (int64_t i = first; i < read_; ++i)
    add(keys_.data() + i % window_ * size, values_.data() + i % window_ * size);
  for (int n = node; n >= 0 && nodes_[n].index >= first; n = nodes_[n].parent)
    add(nodes_[n].keys.data(), nodes_[n].values.data());
  work().kernels.softmax(weights.data(), std::ssize(weights));
  std::fill_n(out, head_dim_, 0.0f);
  for (size_t i = 0; i < weights.size(); ++i)
    for (int64_t d = 0; d < head_dim_; ++d) out[d] += weights[i] * values[i][d];
}

/// Adds self-attention. Stores the keys and values of the rows, which are nodes.
void LongDrafter::attend_window(std::span<const int> rows) {
  const int64_t count = std::ssize(rows), q_size = heads_ * head_dim_, kv_size = kv_heads_ * head_dim_;
  q_rows_.resize(count * q_size);
  k_rows_.resize(count * kv_size);
  v_rows_.resize(count * kv_size);
  const Product products[] = {{&q_, q_rows_.data()}, {&k_, k_rows_.data()}, {&v_, v_rows_.data()}};
  matmul(work().pool, work().kernels, normed_, products);
  for (int64_t r = 0; r < count; ++r) {
    Node& node = nodes_[rows[r]];
    float *key = k_rows_.data() + r * kv_size, *value = v_rows_.data() + r * kv_size;
    rotate(q_rows_.data() + r * q_size, static_cast<int>(heads_), node.index + shift_);
    rotate(key, static_cast<int>(kv_heads_), node.index + shift_);
    node.keys.assign(key, key + kv_size);
    node.values.assign(value, value + kv_size);
  }
  attended_.resize(count, q_size);
  work().pool.parallel_for(count * heads_, [&](size_t i, int) {
    const int64_t row = static_cast<int64_t>(i) / heads_, head = static_cast<int64_t>(i) % heads_;
    const int64_t at = head * head_dim_;
    attend_head(rows[row], static_cast<int>(head), q_rows_.data() + row * q_size + at, attended_.row(row) + at);
  });
  add_product(attended_, out_);
}

/// Adds attention to the keys and values of the model.
void LongDrafter::attend_model(std::span<const int> rows) {
  const int64_t count = std::ssize(rows), key_dim = cross_.shape.key_dim, size = cross_.heads * key_dim;
  normalise(cross_norm_);
  q_rows_.resize(count * size);
  const Product products[] = {{&cross_q_, q_rows_.data()}};
  matmul(work().pool, work().kernels, normed_, products);
  std::vector<float> spare(rotary_dims_);
  for (int64_t h = 0; half_split_ && h < count * cross_.heads; ++h) {
    float* head = q_rows_.data() + h * key_dim;
    std::copy_n(head, rotary_dims_, spare.data());
    for (int i = 0; i < rotary_dims_; ++i) head[i] = spare[i / 2 + i % 2 * (rotary_dims_ / 2)];
  }
  std::vector<int64_t> positions;
  for (const int row : rows) positions.push_back(nodes_[row].index + shift_);
  attended_.resize(count, int64_t{cross_.heads} * cross_.shape.value_dim);
  session_.attend(layer_, positions, q_rows_.data(), attended_.data());
  add_product(attended_, cross_out_);
}

void LongDrafter::feed_forward() {
  const int64_t rows = std::ssize(x_) / width_;
  normalise(ffn_norm_);
  inner_.resize(rows, ffn_width_);
  up_rows_.resize(rows * ffn_width_);
  const Product products[] = {{&gate_, inner_.data()}, {&up_, up_rows_.data()}};
  matmul(work().pool, work().kernels, normed_, products);
  work().kernels.swiglu(inner_.data(), up_rows_.data(), rows * ffn_width_);
  add_product(inner_, down_);
}

std::span<const float> LongDrafter::logits(const Draft& draft, std::span<const int> nodes) {
  nodes_.resize(std::max<size_t>(nodes_.size(), 1 + draft.size()));
  std::vector<int> rows;
  std::vector<int32_t> tokens;
  for (const int node : nodes) {
    Node& own = nodes_[node + 1];
    own.index = read_ + (node < 0 ? 0 : draft.tree.depth(node) + 1);
    own.parent = node < 0 ? -1 : draft.tree.parent(node) + 1;
    rows.push_back(node + 1);
    tokens.push_back(node < 0 ? pending_ : draft.tokens[node]);
  }
  read_embeddings(tokens);
  attend_window(rows);
  attend_model(rows);
  feed_forward();
  normalise(output_norm_);
  logits_.resize(nodes.size() * session_.model().config().vocabulary);
  work().adapted_rows.clear();
  session_.model().network().logits(work(), normed_, logits_.data());
  return logits_;
}

}  // namespace fathom
