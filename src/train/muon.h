#pragma once

#include <ATen/core/Tensor.h>

namespace fathom {

struct MuonOptions {
  double momentum = 0.95;
  double weight_decay = 0.1;  // times the rate
};

/// Nearly U·Vᵀ of x = U·S·Vᵀ, [rows, cols] f32: five steps of the Newton-Schulz iteration of "Muon: An optimizer
/// for hidden layers in neural networks" (Jordan et al. 2024); singular values come to lie between about 0.7
/// and 1.2.
at::Tensor orthogonalised(const at::Tensor& x);

/// One step of Muon for a matrix: the momentum [rows, cols] takes in the gradient, times gradient_scale, and its
/// orthogonalised look-ahead moves the values, scaled by 0.2·√max(rows, cols) so that rates for AdamW suit it
/// ("Muon is Scalable for LLM Training", Liu et al. 2025).
void muon_step(const at::Tensor& values, const at::Tensor& gradient, const at::Tensor& momentum,
               double learning_rate, double gradient_scale, const MuonOptions& options);

}  // namespace fathom
