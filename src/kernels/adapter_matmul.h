#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/matmul.h"

namespace fathom {

/// The change of one weight matrix by an adapter, W + factor · B·A ("LoRA: Low-Rank Adaptation of Large Language
/// Models", 2021).
struct WeightUpdate {
  Matrix weights;          // W, [out, in], of the model
  int64_t rank = 0;        // of B·A
  float factor = 1;        // α / rank
  AlignedBuffer<float> a;  // [rank, in]
  AlignedBuffer<float> b;  // [rank, out]: B transposed
};

/// The updates of all weight matrices that an adapter changes. Immutable.
class AdapterWeights {
 public:
  /// hash: of the contents; equal for adapters that change the same weights of a model in the same way.
  AdapterWeights(std::vector<WeightUpdate> updates, uint64_t hash);

  /// An update, and the row of its matrix that is row 0 of the requested one.
  struct Found {
    const WeightUpdate* update = nullptr;
    int64_t first_row = 0;
  };
  /// Returns the update of the matrix that `w` is, or whose rows `w` is a range of; null if it is not changed.
  /// Found by address: the weights of the model must be in memory.
  Found find(const Matrix& w) const;
  uint64_t hash() const { return hash_; }

 private:
  std::vector<WeightUpdate> updates_;  // ordered by the address of their weights
  uint64_t hash_;
};

/// An adapter and the factor that its updates are multiplied by.
struct ScaledAdapter {
  std::shared_ptr<const AdapterWeights> weights;
  float scale = 1;
};

/// Rows [begin, end) of a batch that are computed with adapters, whose updates add up.
struct AdaptedRows {
  int64_t begin, end;
  std::span<const ScaledAdapter> adapters;
};

/// Adds the updates of the adapters to products that matmul() has computed: y += scale · factor · B·(A·x) for the
/// adapted rows. Each row is computed in an order that does not depend on the other rows, so its bits are the same
/// in any batch; other rows do not change. scratch: grows as needed. Cost: rank · (in + out) multiply-adds for each
/// row, matrix and adapter.
void add_updates(ThreadPool& pool, const Kernels& kernels, const ActivationBuffer& x,
                 std::span<const Product> products, std::span<const AdaptedRows> adapted,
                 AlignedBuffer<float>& scratch);

}  // namespace fathom
