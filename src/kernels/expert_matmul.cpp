#include "kernels/expert_matmul.h"

#include <algorithm>
#include <cassert>
#include <vector>

namespace fathom {
namespace {

/// As in matmul.cpp: the next piece is a thread's fair share of the remaining work, divided by this.
constexpr int64_t kPieceDivisor = 2;

/// Rows of one expert.
struct ExpertRows {
  size_t expert;
  int64_t begin, end;
  bool single;         // multiplied one by one (matvec)
  int64_t first_tile;  // first of its matrix tiles, if any

  int64_t rows() const { return end - begin; }
  /// Cost of a row of weights. With few rows it is the cost of reading the weights.
  int64_t cost() const { return std::max(rows(), kMatvecRows); }
};

/// Rows [begin, end) of the weights of a product, for the rows of one expert.
struct ExpertMatmulPiece {
  const ExpertProduct* product;
  const ExpertRows* group;
  int64_t begin, end;

  const Matrix& weights() const { return product->experts[group->expert]; }
};

std::vector<ExpertRows> groups_of(std::span<const int64_t> offsets, std::span<const int64_t> step_rows) {
  std::vector<ExpertRows> groups;
  int64_t tile = 0;
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    assert(offsets[e] <= offsets[e + 1]);
    const int64_t steps = step_rows.empty() ? 0 : step_rows[e], rest = offsets[e + 1] - offsets[e] - steps;
    const int64_t single = rest <= kMatvecRows ? steps + rest : steps, first = offsets[e] + single;
    if (single > 0) groups.push_back({e, offsets[e], first, true, 0});
    if (first == offsets[e + 1]) continue;
    groups.push_back({e, first, offsets[e + 1], false, tile});
    tile += tiles_of(groups.back().rows());
  }
  return groups;
}

std::vector<ExpertMatmulPiece> divide(std::span<const ExpertProduct> products, std::span<const ExpertRows> groups,
                                      int threads, int64_t panel_rows) {
  int64_t remaining = 0;
  for (const ExpertProduct& p : products) {
    for (const ExpertRows& g : groups) remaining += p.experts[g.expert].rows * g.cost();
  }
  std::vector<ExpertMatmulPiece> pieces;
  for (const ExpertRows& g : groups) {
    for (const ExpertProduct& p : products) {
      const int64_t rows = p.experts[g.expert].rows;
      for (int64_t r = 0; r < rows;) {
        const int64_t panels = std::max<int64_t>(1, remaining / (kPieceDivisor * threads * panel_rows * g.cost()));
        const int64_t end = std::min(r + panels * panel_rows, rows);
        pieces.push_back({&p, &g, r, end});
        remaining -= (end - r) * g.cost();
        r = end;
      }
    }
  }
  return pieces;
}

/// Computes the forms of x that the groups need.
void make_forms(ThreadPool& pool, const Kernels& kernels, ActivationBuffer& x, std::span<const ExpertRows> groups,
                std::span<const ExpertProduct> products) {
  bool eight_bits = false, exact = false;
  std::vector<RowRange> tiled;
  for (const ExpertRows& g : groups) {
    const bool tiles = !g.single && kernels.pack_activations;
    if (tiles) tiled.push_back({g.begin, g.end});
    for (const ExpertProduct& p : products) {
      assert(p.experts[g.expert].cols == x.cols());
      const bool floats = is_float(p.experts[g.expert].type);
      exact |= tiles && floats;
      eight_bits |= !tiles && !floats;
    }
  }
  if (eight_bits) x.quantize(pool, kernels);
  if (!tiled.empty()) x.pack(pool, kernels, exact, tiled);
}

}  // namespace

void expert_matmul(ThreadPool& pool, const Kernels& kernels, ActivationBuffer& x, std::span<const int64_t> offsets,
                   std::span<const ExpertProduct> products, std::span<const int64_t> step_rows) {
  assert(!offsets.empty() && offsets.front() == 0 && offsets.back() == x.rows());
  const std::vector<ExpertRows> groups = groups_of(offsets, step_rows);
  make_forms(pool, kernels, x, groups, products);
  const std::vector<ExpertMatmulPiece> pieces = divide(products, groups, pool.threads(), kernels.panel_rows);
  pool.parallel_for(pieces.size(), [&](size_t i, int) {
    const ExpertMatmulPiece& piece = pieces[i];
    const ExpertRows& group = *piece.group;
    const Matrix& w = piece.weights();
    const ActivationRows rows = x.view(group.begin, group.end, group.first_tile);
    float* y = piece.product->y + group.begin * w.rows;
    (group.single ? kernels.matvec : kernels.matmul)(w, piece.begin, piece.end, rows, y, w.rows);
    if (!piece.product->bias) return;
    const float* bias = piece.product->bias + static_cast<int64_t>(group.expert) * w.rows + piece.begin;
    for (int64_t r = 0; r < rows.rows; ++r)
      kernels.add(y + r * w.rows + piece.begin, bias, piece.end - piece.begin);
  });
}

}  // namespace fathom
