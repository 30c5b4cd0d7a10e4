#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul.h"

namespace fathom {

/// One of several products with the same routed rows: y[i] = x[i]·Wᵀ (+ bias) with the weights of the expert that
/// row i is routed to.
struct ExpertProduct {
  const Matrix* experts;        // one matrix per expert, all [rows, cols]; types may differ
  float* y;                     // [x.rows, rows]
  const float* bias = nullptr;  // [experts, rows], or null
};

/// Computes the forms of x that the products need, then the products in one parallel region. x has one row per pair
/// of token and expert, grouped by expert: expert e has rows offsets[e] … offsets[e + 1] − 1, and the last offset
/// is x.rows(). Weights of experts without rows are not read. step_rows: [experts] number of leading rows of each
/// expert that belong to decode steps and drafts; empty: 0. Their results do not depend on the other rows; those of
/// other rows depend on the number of rows of their expert (matvec or matmul), not on the number of threads.
void expert_matmul(ThreadPool& pool, const Kernels& kernels, ActivationBuffer& x, std::span<const int64_t> offsets,
                   std::span<const ExpertProduct> products, std::span<const int64_t> step_rows = {});

}  // namespace fathom
