#pragma once

#include <ATen/core/Tensor.h>

#include "train/factors.h"

namespace fathom::train {

/// LayerOps::cross_entropy for f32 on the CPU. Computes the gradients together with the loss, so that the logits,
/// by far the largest tensor, are not stored. Skips rows with weight 0.
at::Tensor fused_cross_entropy(Factors factors, const at::Tensor& x, const at::Tensor& output,
                               const at::Tensor& targets, const at::Tensor& weights);

/// LayerOps::soft_cross_entropy, in the same way.
at::Tensor fused_soft_cross_entropy(Factors factors, const at::Tensor& x, const at::Tensor& output,
                                    const at::Tensor& shares, const at::Tensor& share_rows,
                                    const at::Tensor& weights);

}  // namespace fathom::train
