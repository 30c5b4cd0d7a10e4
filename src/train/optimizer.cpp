#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "train/fused_products.h"

namespace fathom::train {
namespace {

constexpr int64_t kBlock = 1 << 16;  // values of a thread's task; large compared with the cost of a task

}  // namespace

AdamW::AdamW(int64_t count, int64_t decaying, AdamWOptions options, ValueRange others)
    : options_(options), decaying_(decaying), others_(others), first_(count), second_(count) {}

void AdamW::step(std::span<float> values, std::span<const float> gradients, double learning_rate,
                 double gradient_scale) {
  ++steps_;
  const auto beta1 = static_cast<float>(options_.beta1), beta2 = static_cast<float>(options_.beta2);
  const auto left = static_cast<float>(1 - options_.beta1), left_squares = static_cast<float>(1 - options_.beta2);
  const auto scale = static_cast<float>(gradient_scale), eps = static_cast<float>(options_.eps);
  const auto n = static_cast<double>(steps_);
  const auto rate = static_cast<float>(learning_rate / (1 - std::pow(options_.beta1, n)));
  const auto root_correction = static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, n)));
  const auto kept = static_cast<float>(1 - learning_rate * options_.weight_decay);
  const auto move = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float g = gradients[i] * scale;
      const float m = first_[i] = beta1 * first_[i] + left * g;
      const float v = second_[i] = beta2 * second_[i] + left_squares * g * g;
      const float x = i < decaying_ ? values[i] * kept : values[i];
      values[i] = x - rate * m / (std::sqrt(v) * root_correction + eps);
    }
  };
  for_parts(static_cast<int64_t>(values.size()), kBlock, [&](int64_t begin, int64_t end) {
    move(begin, std::min(end, others_.begin));
    move(std::max(begin, others_.end), end);
  });
}

double global_norm(std::span<const float> values) {
  const auto count = static_cast<int64_t>(values.size());
  std::vector<double> sums((count + kBlock - 1) / kBlock);
  for_parts(count, kBlock, [&](int64_t begin, int64_t end) {
    double sum = 0;
    for (const float x : values.subspan(begin, end - begin)) sum += double{x} * x;
    sums[begin / kBlock] = sum;
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return std::sqrt(total);
}

double clip_scale(double norm, double limit) { return limit > 0 && norm > limit ? limit / norm : 1; }

}  // namespace fathom::train
