#include "train/cartridge_training.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "train/masked_attention.h"
#include "train/optimizer.h"

namespace fathom::train {
namespace {

constexpr int64_t kPartOfBatch = 16;  // conversations of a forward pass: bounds the memory of attention scores

/// Returns the net, whose attention must be that of a prefix cache: softmax over all tokens.
Net& checked_base(Net& net) {
  const ModelConfig& c = net.config().model;
  if (c.softplus || c.landmarks || c.sliding_window > 0) {
    fail_usage("a cartridge cannot be trained for a model with ",
               c.softplus    ? "softplus attention"
               : c.landmarks ? "landmarks"
                             : "a sliding window",
               "; expected softmax attention to all tokens");
  }
  return net;
}

at::Tensor slot_tokens(std::span<const int32_t> tokens, int64_t vocabulary) {
  if (tokens.empty()) fail_usage("a cartridge needs 1 slot or more, found no tokens to start from");
  const at::Tensor ids = at::empty({1, std::ssize(tokens)}, at::kLong);
  for (int64_t i = 0; i < std::ssize(tokens); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocabulary)
      fail_usage("token ", tokens[i], " is not in the model's vocabulary of ", vocabulary, " tokens");
    ids.data_ptr<int64_t>()[i] = tokens[i];
  }
  return ids;
}

/// Returns x, of [slots, heads, dimensions], in the order of Cartridge::Layer.
std::vector<float> heads_first(const at::Tensor& x) {
  const at::Tensor ordered = x.detach().permute({1, 0, 2}).contiguous().cpu();
  return {ordered.data_ptr<float>(), ordered.data_ptr<float>() + ordered.numel()};
}

/// Conversations as tensors.
struct ConversationRows {
  at::Tensor tokens;  // [conversations, length] int64: without the last token, padded with 0
  at::Tensor rows;    // [answer tokens] int64, the row that predicts each of them among conversations · length
  at::Tensor ids;     // [answer tokens, top] int64
  at::Tensor shares;  // [answer tokens, top] f32; 0 where there are fewer tokens
};

ConversationRows conversation_rows(std::span<const Conversation* const> conversations) {
  int64_t length = 1, answers = 0, top = 1;
  for (const Conversation* c : conversations) {
    length = std::max(length, std::ssize(c->tokens) - 1);
    answers += std::ssize(c->shares);
    for (const auto& shares : c->shares) top = std::max(top, std::ssize(shares));
  }
  ConversationRows rows{at::zeros({std::ssize(conversations), length}, at::kLong), at::empty({answers}, at::kLong),
                        at::zeros({answers, top}, at::kLong), at::zeros({answers, top}, at::kFloat)};
  int64_t answer = 0, first_row = 0;
  for (const Conversation* c : conversations) {
    std::copy(c->tokens.begin(), c->tokens.end() - 1, rows.tokens.data_ptr<int64_t>() + first_row);
    for (int64_t i = 0; i < std::ssize(c->shares); ++i, ++answer) {
      rows.rows.data_ptr<int64_t>()[answer] = first_row + c->answer - 1 + i;
      for (int64_t j = 0; j < std::ssize(c->shares[i]); ++j) {
        rows.ids.data_ptr<int64_t>()[answer * top + j] = c->shares[i][j].token;
        rows.shares.data_ptr<float>()[answer * top + j] = c->shares[i][j].share;
      }
    }
    first_row += length;
  }
  return rows;
}

int64_t answer_tokens(std::span<const Conversation* const> conversations) {
  return std::accumulate(conversations.begin(), conversations.end(), int64_t{0},
                         [](int64_t sum, const Conversation* c) { return sum + std::ssize(c->shares); });
}

std::span<float> span_of_values(const at::Tensor& flat) {
  return {flat.data_ptr<float>(), static_cast<size_t>(flat.numel())};
}

}  // namespace

CartridgeNet::CartridgeNet(Net& net, std::span<const int32_t> first)
    : net_(checked_base(net)), weights_(net.frozen_weights(at::kFloat)), slots_(std::ssize(first)) {
  const at::Tensor tokens = slot_tokens(first, net.vocabulary());
  allocate();
  initialise(tokens);
}

void CartridgeNet::allocate() {
  const ModelConfig& c = net_.config().model;
  const int64_t keys = slots_ * c.kv_heads * c.key_dim, values = slots_ * c.kv_heads * c.value_dim;
  values_ = at::zeros({c.layers * (keys + values)}, at::kFloat);
  gradients_ = at::zeros_like(values_);
  int64_t offset = 0;
  const auto leaf = [&](int64_t count, int64_t dimensions) {
    const std::vector<int64_t> shape{slots_, c.kv_heads, dimensions};
    at::Tensor x = values_.narrow(0, offset, count).view(shape).detach().requires_grad_(true);
    x.mutable_grad() = gradients_.narrow(0, offset, count).view(shape);
    offset += count;
    return x;
  };
  for (int i = 0; i < c.layers; ++i) {
    const at::Tensor k = leaf(keys, c.key_dim);
    layers_.push_back({k, leaf(values, c.value_dim)});
  }
}

void CartridgeNet::initialise(const at::Tensor& tokens) {
  const at::NoGradGuard no_gradients;
  at::Tensor x = Net::embeddings(weights_, tokens);
  for (int i = 0; i < net_.config().model.layers; ++i) {
    const Net::AttentionRows unrotated = net_.attention_rows(weights_, i, x, {});
    layers_[i].k.copy_(unrotated.k[0]);
    layers_[i].v.copy_(unrotated.v[0]);
    x = net_.run_layers(weights_, x, i, i + 1);
  }
}

at::Tensor CartridgeNet::read(const at::Tensor& tokens) const {
  const int64_t sequences = tokens.size(0), length = tokens.size(1);
  const Angles of_slots = net_.angles().range(0, slots_), of_rows = net_.angles().range(slots_, length);
  const at::Tensor masked = at::ones({1, length, slots_ + length}, at::kBool).triu(slots_ + 1);
  const auto before = [&](const at::Tensor& slots, const at::Tensor& rows) {
    return at::cat({slots.expand({sequences, -1, -1, -1}), rows}, 1);
  };
  const auto trained = [&](const at::Tensor& x) {  // without gradients of the first slot
    return at::cat({x.narrow(0, 0, 1).detach(), x.narrow(0, 1, slots_ - 1)}).unsqueeze(0);
  };
  at::Tensor x = Net::embeddings(weights_, tokens);
  for (int i = 0; i < net_.config().model.layers; ++i) {
    const Net::AttentionRows rows = net_.attention_rows(weights_, i, x, of_rows);
    at::Tensor k = trained(layers_[i].k);
    if (of_slots.cos.defined()) k = net_.ops().rotary(k, of_slots.cos, of_slots.sin);
    const at::Tensor attended = masked_attention(rows.q, before(k, rows.k), before(trained(layers_[i].v), rows.v),
                                                 net_.score_scale(), masked);
    x = net_.finish_layer(weights_, i, x, attended);
  }
  return net_.normed_output(weights_, x);
}

at::Tensor CartridgeNet::loss(std::span<const Conversation* const> conversations) const {
  const ConversationRows rows = conversation_rows(conversations);
  const at::Tensor y = read(rows.tokens).flatten(0, 1).index_select(0, rows.rows);
  const at::Tensor logs = at::log_softmax(net_.ops().linear(y, weights_.output), -1);
  return -(logs.gather(1, rows.ids) * rows.shares).sum() / static_cast<double>(rows.rows.numel());
}

Cartridge CartridgeNet::cartridge() const {
  const ModelConfig& c = net_.config().model;
  Cartridge made{.base = c.name, .slots = slots_, .kv_heads = c.kv_heads};
  for (const Slots& s : layers_) made.layers.push_back({heads_first(s.k), heads_first(s.v)});
  return made;
}

void train_cartridge(CartridgeNet& net, std::span<const Conversation> conversations, const CartridgeSteps& options,
                     const std::function<void(int64_t step, double loss)>& report) {
  if (conversations.empty()) fail_usage("a cartridge cannot be trained without conversations");
  if (options.steps < 0 || options.batch < 1 || !(options.rate >= 0 && std::isfinite(options.rate)))
    fail_usage("training a cartridge: expected steps of 0 or more, a batch of 1 or more and a rate of 0 or more");
  std::vector<const Conversation*> order;
  AdamW adam(net.values().numel(), 0, {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0});
  for (int64_t step = 0, epoch = 0; step < options.steps; ++step) {
    if (order.empty()) {
      for (const Conversation& c : conversations) order.push_back(&c);
      eval::Rng(options.seed, "cartridge", 0, epoch++).shuffle(order);
    }
    const int64_t count = std::min(options.batch, std::ssize(order));
    const std::vector<const Conversation*> batch(order.end() - count, order.end());
    order.resize(order.size() - count);
    net.gradients().zero_();
    double sum = 0;
    const auto all = static_cast<double>(answer_tokens(batch));
    for (int64_t begin = 0; begin < count; begin += kPartOfBatch) {
      const std::span part = std::span(batch).subspan(begin, std::min(kPartOfBatch, count - begin));
      const at::Tensor loss = net.loss(part) * (static_cast<double>(answer_tokens(part)) / all);
      loss.backward();
      sum += loss.item<double>();
    }
    if (!std::isfinite(sum)) fail("step ", step + 1, ": the loss is ", sum, "; expected a smaller learning rate");
    const double left = 1 - static_cast<double>(step) / static_cast<double>(options.steps);
    adam.step(span_of_values(net.values()), span_of_values(net.gradients()), options.rate * left);
    if (report) report(step + 1, sum);
  }
}

}  // namespace fathom::train
