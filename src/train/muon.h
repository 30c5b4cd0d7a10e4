#pragma once

#include <cstdint>
#include <span>

namespace fathom::train {

struct MuonOptions {
  double momentum = 0.95;
  double weight_decay = 0.1;  // times the rate
};

/// A matrix and what belongs to it, [rows, cols] each.
struct MuonMatrix {
  int64_t rows = 0, cols = 0;
  float* values = nullptr;
  const float* gradient = nullptr;
  float* momentum = nullptr;  // a mean of gradients
};

/// The iteration's odd polynomial, steepest at 0 that still stays near 1: a·x + b·x³ + c·x⁵.
inline constexpr double kMuonA = 3.4445, kMuonB = -4.7750, kMuonC = 2.0315;
inline constexpr int kMuonSteps = 5;
/// What an orthogonalised matrix counts times, so that its step is as large as AdamW's would be.
double muon_scale(int64_t rows, int64_t cols);

/// x = U·S·Vᵀ becomes nearly U·Vᵀ: five steps of the Newton-Schulz iteration of "Muon: An optimizer for hidden
/// layers in neural networks" (Jordan et al. 2024), after which singular values lie between about 0.7 and 1.2.
void orthogonalise(int64_t rows, int64_t cols, float* x);

/// One step of Muon for each matrix, on all threads: the momentum takes in the gradient, times gradient_scale, and
/// its orthogonalised look-ahead moves the values, scaled by 0.2·√max(rows, cols) so that rates for AdamW suit it
/// ("Muon is Scalable for LLM Training", Liu et al. 2025). Results do not depend on threads.
void muon_step(std::span<const MuonMatrix> matrices, double learning_rate, double gradient_scale,
               const MuonOptions& options);

}  // namespace fathom::train
