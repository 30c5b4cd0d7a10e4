#pragma once

#include <cstdint>
#include <span>

namespace fathom::train {

struct MuonOptions {
  double momentum = 0.95;
  double weight_decay = 0.1;  // each step shrinks values by this factor times the learning rate
};

/// A matrix with its gradient and momentum, [rows, cols] each.
struct MuonMatrix {
  int64_t rows = 0, cols = 0;
  float* values = nullptr;
  const float* gradient = nullptr;
  float* momentum = nullptr;  // running sum of gradients
};

/// The odd polynomial of the iteration, a·x + b·x³ + c·x⁵. Its coefficients maximise the slope at 0 while values
/// stay near 1 (Jordan et al. 2024).
inline constexpr double kMuonA = 3.4445, kMuonB = -4.7750, kMuonC = 2.0315;
inline constexpr int kMuonSteps = 5;
/// Returns the factor by which an orthogonalised matrix is multiplied to make a step about as large as AdamW's:
/// 0.2·√max(rows, cols).
double muon_scale(int64_t rows, int64_t cols);

/// Replaces x = U·S·Vᵀ by an approximation of U·Vᵀ with five steps of the Newton-Schulz iteration of "Muon: An
/// optimizer for hidden layers in neural networks" (Jordan et al. 2024). The singular values are then between about
/// 0.7 and 1.2. x: [rows, cols].
void orthogonalise(int64_t rows, int64_t cols, float* x);

/// Makes one step of Muon for each matrix, on all threads. Adds the gradient, multiplied by gradient_scale, to the
/// momentum, and moves the values by the orthogonalised Nesterov momentum. The step is scaled by muon_scale(), so
/// that it suits learning rates of AdamW ("Muon is Scalable for LLM Training", Liu et al. 2025). Results do not
/// depend on the number of threads.
void muon_step(std::span<const MuonMatrix> matrices, double learning_rate, double gradient_scale,
               const MuonOptions& options);

}  // namespace fathom::train
