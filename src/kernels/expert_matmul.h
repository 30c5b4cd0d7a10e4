#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul.h"

namespace fathom {

/// One product of several that share their routed rows: y[i] = x[i]·Wᵀ (+ bias) with the weights of the expert that
/// row i is routed to.
struct ExpertProduct {
  const Matrix* experts;        // [experts], all [rows, cols]; types may differ
  float* y;                     // [x.rows, rows]
  const float* bias = nullptr;  // [experts, rows], or null
};

/// Computes the products in one parallel region; first makes the forms of x that they need. x has the routed rows,
/// a row for each pair of token and expert, grouped by expert: those of expert e are offsets[e] … offsets[e + 1] −
/// 1, and offsets ends with x.rows(). Weights of experts without rows are not read. What is computed for a row
/// depends on how many rows its expert has (matvec or matmul), not on the threads.
void expert_matmul(ThreadPool& pool, const Kernels& kernels, ActivationBuffer& x, std::span<const int64_t> offsets,
                   std::span<const ExpertProduct> products);

}  // namespace fathom
