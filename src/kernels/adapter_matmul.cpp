#include "kernels/adapter_matmul.h"

#include <algorithm>
#include <cassert>
#include <functional>

namespace fathom {
namespace {

constexpr int64_t kBlockRows = 8;       // rows of x that share the reading of A and B
constexpr int64_t kPieceRanks = 4;      // rows of A of a task
constexpr int64_t kPieceColumns = 256;  // columns of y of a task; their sums stay in the L1 cache

/// An update of the weights of a product, for a block of rows.
struct AppliedUpdate {
  const WeightUpdate* update;
  int64_t first_row;    // of the update's matrix: row 0 of the product's weights
  float scale;          // multiplies B·A·x
  int64_t begin, end;   // rows of x
  int64_t low_rank_at;  // offset in the scratch: A·x, [end - begin, rank]
};

/// Rows [begin, end) of the result of a product and their updates [first, last).
struct UpdatedBlock {
  const Product* product;
  int64_t begin, end;
  size_t first, last;
};

struct UpdatePlan {
  std::vector<AppliedUpdate> updates;
  std::vector<UpdatedBlock> blocks;
  int64_t scratch = 0;  // floats
};

UpdatePlan plan_updates(std::span<const Product> products, std::span<const AdaptedRows> adapted) {
  UpdatePlan plan;
  std::vector<AppliedUpdate> found;
  for (const Product& product : products) {
    for (const AdaptedRows& rows : adapted) {
      found.clear();
      for (const ScaledAdapter& adapter : rows.adapters) {
        const AdapterWeights::Found at = adapter.weights->find(*product.weights);
        if (at.update) found.push_back({at.update, at.first_row, adapter.scale * at.update->factor, 0, 0, 0});
      }
      for (int64_t begin = rows.begin; begin < rows.end && !found.empty(); begin += kBlockRows) {
        const int64_t end = std::min(begin + kBlockRows, rows.end);
        plan.blocks.push_back({&product, begin, end, plan.updates.size(), plan.updates.size() + found.size()});
        for (AppliedUpdate update : found) {
          update.begin = begin;
          update.end = end;
          update.low_rank_at = plan.scratch;
          plan.scratch += (end - begin) * update.update->rank;
          plan.updates.push_back(update);
        }
      }
    }
  }
  return plan;
}

/// A part of the work on an update or a block: [begin, end) of its ranks or columns.
struct UpdatePiece {
  size_t index;
  int64_t begin, end;
};

void divide(size_t index, int64_t count, int64_t step, std::vector<UpdatePiece>& pieces) {
  for (int64_t begin = 0; begin < count; begin += step)
    pieces.push_back({index, begin, std::min(begin + step, count)});
}

/// Adds the updates to columns [begin, end) of a block of rows. scratch: A·x of all updates.
void add_to_columns(const UpdatePlan& plan, const UpdatedBlock& block, int64_t begin, int64_t end,
                    const float* scratch) {
  const int64_t columns = end - begin, out = block.product->weights->rows;
  for (int64_t row = block.begin; row < block.end; ++row) {
    float* y = block.product->y + row * out + begin;
    for (size_t i = block.first; i < block.last; ++i) {
      const AppliedUpdate& applied = plan.updates[i];
      const int64_t rank = applied.update->rank, stride = applied.update->weights.rows;
      const float* low = scratch + applied.low_rank_at + (row - block.begin) * rank;
      const float* b = applied.update->b.data() + applied.first_row + begin;
      float sums[kPieceColumns] = {};
      int64_t k = 0;
      for (; k + 4 <= rank; k += 4, b += 4 * stride)  // fewer loads and stores of sums
        for (int64_t j = 0; j < columns; ++j)
          sums[j] += (low[k] * b[j] + low[k + 1] * b[j + stride]) +
                     (low[k + 2] * b[j + 2 * stride] + low[k + 3] * b[j + 3 * stride]);
      for (; k < rank; ++k, b += stride)
        for (int64_t j = 0; j < columns; ++j) sums[j] += low[k] * b[j];
      for (int64_t j = 0; j < columns; ++j) y[j] += applied.scale * sums[j];
    }
  }
}

}  // namespace

AdapterWeights::AdapterWeights(std::vector<WeightUpdate> updates, uint64_t hash)
    : updates_(std::move(updates)), hash_(hash) {
  const auto address = [](const WeightUpdate& update) { return update.weights.data; };
  std::ranges::sort(updates_, std::less<>(), address);
}

AdapterWeights::Found AdapterWeights::find(const Matrix& w) const {
  const auto after = std::ranges::upper_bound(updates_, w.data, std::less<>(),
                                              [](const WeightUpdate& update) { return update.weights.data; });
  if (after == updates_.begin()) return {};
  const WeightUpdate& update = *std::prev(after);
  const Matrix& all = update.weights;
  if (w.cols != all.cols || w.type != all.type || !std::less<>()(w.data, all.data + all.bytes())) return {};
  const int64_t first_row = (w.data - all.data) / static_cast<int64_t>(row_bytes(all.type, all.cols));
  assert(first_row + w.rows <= all.rows);
  return {&update, first_row};
}

void add_updates(ThreadPool& pool, const Kernels& kernels, const ActivationBuffer& x,
                 std::span<const Product> products, std::span<const AdaptedRows> adapted,
                 AlignedBuffer<float>& scratch) {
  const UpdatePlan plan = plan_updates(products, adapted);
  if (plan.updates.empty()) return;
  scratch.reserve(plan.scratch);
  std::vector<UpdatePiece> pieces;
  for (size_t i = 0; i < plan.updates.size(); ++i) divide(i, plan.updates[i].update->rank, kPieceRanks, pieces);
  pool.parallel_for(pieces.size(), [&](size_t i, int) {
    const AppliedUpdate& applied = plan.updates[pieces[i].index];
    const WeightUpdate& update = *applied.update;
    assert(applied.end <= x.rows());
    const Matrix a{WeightType::kF32, reinterpret_cast<const std::byte*>(update.a.data()), update.rank,
                   update.weights.cols};
    kernels.matvec(a, pieces[i].begin, pieces[i].end, x.view(applied.begin, applied.end, 0),
                   scratch.data() + applied.low_rank_at, update.rank);
  });
  pieces.clear();
  for (size_t i = 0; i < plan.blocks.size(); ++i)
    divide(i, plan.blocks[i].product->weights->rows, kPieceColumns, pieces);
  pool.parallel_for(pieces.size(), [&](size_t i, int) {
    add_to_columns(plan, plan.blocks[pieces[i].index], pieces[i].begin, pieces[i].end, scratch.data());
  });
}

}  // namespace fathom
