#include "kernels/matmul.h"

#include <algorithm>
#include <cassert>
#include <vector>

namespace fathom {
namespace {

/// The next piece is a thread's fair share of the remaining rows, divided by this. Large pieces first make long
/// streams of weights; ever smaller ones make all threads finish together on a busy machine.
constexpr int64_t kPieceDivisor = 2;

struct MatmulPiece {
  const Product* product;
  int64_t begin, end;
};

/// Divides the rows of the products into pieces. The division depends on the number of threads, the result of a row
/// does not.
std::vector<MatmulPiece> divide(std::span<const Product> products, int threads, int64_t panel_rows) {
  int64_t remaining = 0;
  for (const Product& p : products) remaining += p.weights->rows;
  std::vector<MatmulPiece> pieces;
  for (const Product& p : products) {
    for (int64_t r = 0; r < p.weights->rows;) {
      const int64_t panels = std::max<int64_t>(1, remaining / (kPieceDivisor * threads * panel_rows));
      const int64_t end = std::min(r + panels * panel_rows, p.weights->rows);
      pieces.push_back({&p, r, end});
      remaining -= end - r;
      r = end;
    }
  }
  return pieces;
}

}  // namespace

void ActivationBuffer::resize(int64_t rows, int64_t cols, int64_t step_rows) {
  assert(step_rows <= rows);
  rows_ = rows;
  cols_ = cols;
  step_rows_ = step_rows;
  f32_.reserve(rows * cols);
}

void ActivationBuffer::quantize(ThreadPool& pool, const Kernels& kernels) {
  const int64_t padded = padded_columns(cols_);
  q_.reserve(rows_ * padded);
  scale_.reserve(rows_ * padded / 16);
  sum_.reserve(rows_ * padded / 16);
  pair_sum_.reserve(rows_ * padded / 32);
  pool.parallel_for(rows_, [&](size_t i, int) {
    const int64_t at = static_cast<int64_t>(i) * padded;
    kernels.quantize_activations(row(i), cols_, q_.data() + at, scale_.data() + at / 16, sum_.data() + at / 16,
                                 pair_sum_.data() + at / 32);
  });
}

void ActivationBuffer::pack(ThreadPool& pool, const Kernels& kernels, bool exact,
                            std::span<const RowRange> ranges) {
  std::vector<RowRange> tiles;  // the rows of each tile
  for (const RowRange& range : ranges) {
    for (int64_t first = range.begin; first < range.end; first += kTileTokens)
      tiles.push_back({first, std::min(first + kTileTokens, range.end)});
  }
  const int64_t block = tile_elements(kTileTokens, cols_);
  tiles_.reserve(tiles.size() * block);
  if (exact) tiles_low_.reserve(tiles.size() * block);
  pool.parallel_for(tiles.size(), [&](size_t i, int) {
    const auto [begin, end] = tiles[i];
    const int64_t at = static_cast<int64_t>(i) * block;
    kernels.pack_activations(row(begin), end - begin, cols_, tiles_.data() + at,
                             exact ? tiles_low_.data() + at : nullptr);
  });
}

ActivationRows ActivationBuffer::view(int64_t begin, int64_t end, int64_t first_tile) const {
  const int64_t at = begin * padded_columns(cols_), tile_at = first_tile * tile_elements(kTileTokens, cols_);
  const auto from = [](const auto& buffer, int64_t offset) {
    return buffer.size() ? buffer.data() + offset : nullptr;
  };
  return {end - begin,
          cols_,
          from(f32_, begin * cols_),
          from(q_, at),
          from(scale_, at / 16),
          from(sum_, at / 16),
          from(pair_sum_, at / 32),
          from(tiles_, tile_at),
          from(tiles_low_, tile_at)};
}

void matmul(ThreadPool& pool, const Kernels& kernels, ActivationBuffer& x, std::span<const Product> products) {
  bool quantised = false, exact = false;
  for (const Product& p : products) {
    assert(p.weights->cols == x.cols());
    (is_float(p.weights->type) ? exact : quantised) = true;
  }
  const int64_t single = x.rows() - x.step_rows() <= kMatvecRows ? x.rows() : x.step_rows();
  const RowRange together[] = {{single, x.rows()}};
  const bool many = single < x.rows(), packs = many && kernels.pack_activations;
  if (packs) x.pack(pool, kernels, exact, together);
  if (quantised && (single > 0 || !packs)) x.quantize(pool, kernels);
  const std::vector<MatmulPiece> pieces = divide(products, pool.threads(), kernels.panel_rows);
  const ActivationRows singles = x.view(0, single, 0), rest = x.view(single, x.rows(), 0);
  pool.parallel_for(pieces.size(), [&](size_t i, int) {
    const MatmulPiece& piece = pieces[i];
    const Matrix& w = *piece.product->weights;
    float* y = piece.product->y;
    if (single > 0) kernels.matvec(w, piece.begin, piece.end, singles, y, w.rows);
    if (many) kernels.matmul(w, piece.begin, piece.end, rest, y + single * w.rows, w.rows);
    if (piece.product->bias.empty()) return;
    for (int64_t r = 0; r < x.rows(); ++r)
      kernels.add(y + r * w.rows + piece.begin, piece.product->bias.data() + piece.begin, piece.end - piece.begin);
  });
}

}  // namespace fathom
