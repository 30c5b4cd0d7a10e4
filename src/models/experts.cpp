#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/expert_matmul.h"
#include "mixers/projection.h"
#include "models/feed_forward.h"

namespace fathom {
namespace {

// Lower bound of the sum that weights are divided by: the smallest normal number of float16.
constexpr float kMinWeightSum = 6.103515625e-5f;

/// Sets the scores of all experts outside the best groups to −∞. The score of a group is the sum of its two best
/// scores.
void keep_best_groups(const Routing& routing, std::span<float> selection_scores) {
  const size_t size = selection_scores.size() / routing.groups;
  std::vector<std::pair<float, int>> groups(routing.groups);
  for (int g = 0; g < routing.groups; ++g) {
    float best = -INFINITY, second = -INFINITY;
    for (const float score : selection_scores.subspan(g * size, size)) {
      second = std::max(second, std::min(best, score));
      best = std::max(best, score);
    }
    groups[g] = {size > 1 ? best + second : best, g};
  }
  std::ranges::stable_sort(groups, [](const auto& a, const auto& b) { return a.first > b.first; });
  for (size_t i = routing.groups_used; i < groups.size(); ++i)
    std::ranges::fill(selection_scores.subspan(groups[i].second * size, size), -INFINITY);
}

void softmax(std::span<float> x) {
  const float max = std::ranges::max(x);
  float sum = 0;
  for (float& v : x) sum += v = std::exp(v - max);
  for (float& v : x) v /= sum;
}

class ExpertFeedForward final : public FeedForward {
 public:
  explicit ExpertFeedForward(ExpertWeights weights) : w_(std::move(weights)) {}

  void forward(Workspace& work, ActivationBuffer& x, float* y) const override;

  double weight_bytes(int64_t rows) const override {
    const auto experts = static_cast<double>(w_.up.size());
    // The expected number of experts used by `rows` tokens if all experts are equally likely.
    const double read = experts * (1 - std::pow(1 - w_.routing.used / experts, static_cast<double>(rows)));
    return static_cast<double>(w_.router.bytes()) + read * static_cast<double>(expert_bytes()) +
           (w_.shared ? w_.shared->weight_bytes(rows) : 0);
  }
  int64_t multiply_adds() const override {
    const int64_t expert =
        w_.up[0].rows * w_.up[0].cols * (has_gate(w_.activation) ? 2 : 1) + w_.down[0].rows * w_.down[0].cols;
    return w_.router.rows * w_.router.cols + w_.routing.used * expert +
           (w_.shared ? w_.shared->multiply_adds() : 0);
  }

 private:
  size_t expert_bytes() const {
    return w_.up[0].bytes() + w_.down[0].bytes() + (has_gate(w_.activation) ? w_.gate[0].bytes() : 0);
  }
  void add_shared(Workspace& work, ActivationBuffer& x, float* y) const;

  ExpertWeights w_;
};

/// The experts of each token, and the rows of the tokens after grouping by expert. Before grouping, the rows of a
/// token are consecutive.
struct RoutedRows {
  std::vector<int32_t> experts;  // [tokens, used]
  std::vector<float> weights;    // [tokens, used]
  std::vector<int64_t> offsets;  // [experts + 1]: expert e has the grouped rows [offsets[e], offsets[e + 1])
  std::vector<int64_t> grouped;  // [tokens, used]: the grouped row of each token and expert
  std::vector<int64_t> steps;    // [experts] how many of an expert's rows, the first ones, are of step rows
};

/// step_experts: number of leading elements of `experts` that belong to step rows.
RoutedRows group_by_expert(std::vector<int32_t> experts, std::vector<float> weights, size_t count,
                           int64_t step_experts) {
  RoutedRows rows{
      std::move(experts), std::move(weights), std::vector<int64_t>(count + 1), {}, std::vector<int64_t>(count)};
  for (int64_t i = 0; i < step_experts; ++i) ++rows.steps[rows.experts[i]];
  for (const int32_t expert : rows.experts) ++rows.offsets[expert + 1];
  std::partial_sum(rows.offsets.begin(), rows.offsets.end(), rows.offsets.begin());
  std::vector<int64_t> next(rows.offsets.begin(), rows.offsets.end() - 1);
  rows.grouped.reserve(rows.experts.size());
  for (const int32_t expert : rows.experts) rows.grouped.push_back(next[expert]++);
  return rows;
}

void ExpertFeedForward::forward(Workspace& work, ActivationBuffer& x, float* y) const {
  const int64_t tokens = x.rows(), width = x.cols(), inner = w_.up[0].rows;
  const auto experts = static_cast<int64_t>(w_.up.size());
  const int used = w_.routing.used;
  std::vector<float> scores(tokens * experts);
  const Product router[] = {{&w_.router, scores.data(), w_.router_bias}};
  project(work, x, router);
  std::vector<int32_t> chosen(tokens * used);
  std::vector<float> weights(tokens * used);
  work.pool.parallel_for(tokens, [&](size_t t, int) {
    route(w_.routing, std::span(scores).subspan(t * experts, experts), std::span(chosen).subspan(t * used, used),
          std::span(weights).subspan(t * used, used));
  });
  const RoutedRows rows = group_by_expert(std::move(chosen), std::move(weights), experts, x.step_rows() * used);
  const int64_t routed = tokens * used;

  work.routed.resize(routed, width);
  work.pool.parallel_for(routed, [&](size_t i, int) {
    std::copy_n(x.row(static_cast<int64_t>(i) / used), width, work.routed.row(rows.grouped[i]));
  });
  work.inner.resize(routed, inner);
  work.up.reserve(routed * inner);
  const auto bias = [](const std::vector<float>& all) { return all.empty() ? nullptr : all.data(); };
  if (has_gate(w_.activation)) {
    const ExpertProduct products[] = {{w_.gate.data(), work.inner.data(), bias(w_.gate_bias)},
                                      {w_.up.data(), work.up.data(), bias(w_.up_bias)}};
    expert_matmul(work.pool, work.kernels, work.routed, rows.offsets, products, rows.steps);
  } else {
    const ExpertProduct products[] = {{w_.up.data(), work.inner.data(), bias(w_.up_bias)}};
    expert_matmul(work.pool, work.kernels, work.routed, rows.offsets, products, rows.steps);
  }
  work.pool.parallel_for(routed, [&](size_t i, int) {
    apply_activation(work.kernels, w_.activation, work.inner.row(i), work.up.data() + i * inner, inner);
  });
  work.scratch.reserve(routed * width);
  const ExpertProduct down[] = {{w_.down.data(), work.scratch.data(), bias(w_.down_bias)}};
  expert_matmul(work.pool, work.kernels, work.inner, rows.offsets, down, rows.steps);
  work.pool.parallel_for(tokens, [&](size_t t, int) {
    float* out = y + t * width;
    std::fill_n(out, width, 0.0f);
    // In the order of the token's selection, so that the sum does not depend on the batch.
    for (int i = 0; i < used; ++i) {
      const float* from = work.scratch.data() + rows.grouped[t * used + i] * width;
      const float weight = rows.weights[t * used + i];
      for (int64_t d = 0; d < width; ++d) out[d] += weight * from[d];
    }
  });
  if (w_.shared) add_shared(work, x, y);
}

void ExpertFeedForward::add_shared(Workspace& work, ActivationBuffer& x, float* y) const {
  const int64_t tokens = x.rows(), width = x.cols();
  work.scratch.reserve(tokens * width);
  w_.shared->forward(work, x, work.scratch.data());
  work.pool.parallel_for(tokens, [&](size_t t, int) {
    float* shared = work.scratch.data() + t * width;
    if (!w_.shared_gate.empty()) {
      float score = 0;
      for (int64_t d = 0; d < width; ++d) score += w_.shared_gate[d] * x.row(t)[d];
      work.kernels.scale(shared, 1 / (1 + std::exp(-score)), width);
    }
    work.kernels.add(y + t * width, shared, width);
  });
}

}  // namespace

void route(const Routing& routing, std::span<float> scores, std::span<int32_t> experts, std::span<float> weights) {
  if (routing.gate == Routing::Gate::kSoftmax) softmax(scores);
  if (routing.gate == Routing::Gate::kSigmoid)
    for (float& score : scores) score = 1 / (1 + std::exp(-score));
  std::vector<float> selection_scores(scores.begin(), scores.end());
  for (size_t e = 0; e < routing.bias.size(); ++e) selection_scores[e] += routing.bias[e];
  if (routing.groups > 1) keep_best_groups(routing, selection_scores);
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto comes_first = [&](int32_t a, int32_t b) {
    return selection_scores[a] != selection_scores[b] ? selection_scores[a] > selection_scores[b] : a < b;
  };
  std::ranges::partial_sort(order, order.begin() + routing.used, comes_first);
  float sum = 0;
  for (int i = 0; i < routing.used; ++i) {
    experts[i] = order[i];
    weights[i] = scores[order[i]];
    sum += weights[i];
  }
  if (routing.gate == Routing::Gate::kSoftmaxOfChosen) {
    softmax(weights.first(routing.used));
  } else if (routing.normalise) {
    for (float& weight : weights) weight /= std::max(sum, kMinWeightSum);
  }
  for (float& weight : weights) weight *= routing.scale;
}

std::unique_ptr<FeedForward> make_expert_feed_forward(ExpertWeights weights) {
  return std::make_unique<ExpertFeedForward>(std::move(weights));
}

}  // namespace fathom
