#include "attend/attention_mass.h"

#include <algorithm>
#include <cmath>

#include "attend/key_scores.h"

namespace fathom {
namespace {

constexpr double kUnits = 1099511627776.0;  // 2^40: sums of integers do not depend on the order

}  // namespace

AttentionMass::AttentionMass(std::vector<char> layers, int kv_heads, int64_t first_row)
    : layers_(std::move(layers)),
      kv_heads_(kv_heads),
      first_row_(first_row),
      sums_(layers_.size() * static_cast<size_t>(kv_heads)) {}

void AttentionMass::Sums::grow(int64_t tokens) {
  if (std::ssize(mass) >= tokens) return;
  mass.resize(tokens);
  visible.resize(tokens);
}

void AttentionMass::observe(const AttendedBlock& a) {
  const QueryBlock& block = a.block;
  const int first = static_cast<int>(std::clamp<int64_t>(first_row_ - block.first, 0, block.rows));
  if (first == block.rows) return;
  const PageTable& table = a.kv.table(block.head);
  const CompactedTokens& compacted = a.kv.compacted(block.head);
  const PageStore& store = a.kv.store();
  const int dim = store.shape().key_dim;
  const int first_query = first * block.group, queries = block.rows * block.group - first_query;
  KeyScores keys(*block.kernels, store, block.kv->rotations());
  Sums own;
  own.grow(a.kv.tokens());
  own.queries = queries;
  for (const SelectedPage& page : a.selection.pages) {
    const PageEntry& entry = table[page.entry];
    if (page.mask == 0) continue;
    const float* scores = keys.of_keys(page.keys ? page.keys : store.keys(entry.page), page.position,
                                       block.queries + static_cast<int64_t>(first_query) * dim, queries);
    for (int r = first; r < block.rows; ++r) {
      const uint64_t mask = a.mask(page, r);
      for (int t = 0; t < entry.filled; ++t) {
        if ((mask >> t & 1) == 0) continue;
        double sum = 0;
        for (int h = 0; h < block.group; ++h) {
          const int q = r * block.group + h;
          sum += a.share(q, scores[static_cast<int64_t>(q - first_query) * kPageTokens + t]);
        }
        const int64_t token = compacted.original_index(entry.first + t);
        own.mass[token] += std::llround(std::min(sum, static_cast<double>(block.group)) * kUnits);
        own.visible[token] = 1;
      }
    }
  }
  const std::lock_guard lock(mutex_);
  Sums& all = sums_[static_cast<size_t>(block.layer) * kv_heads_ + block.head];
  all.grow(std::ssize(own.mass));
  all.queries += own.queries;
  for (size_t i = 0; i < own.mass.size(); ++i) {
    all.mass[i] += own.mass[i];
    all.visible[i] |= own.visible[i];
  }
}

std::vector<double> AttentionMass::mass(int layer, int kv_head, int64_t tokens) const {
  std::vector<double> mass(tokens);
  const Sums& from = sums(layer, kv_head);
  for (int64_t i = 0; i < std::min(tokens, std::ssize(from.mass)); ++i)
    mass[i] = static_cast<double>(from.mass[i]) / kUnits;
  return mass;
}

std::vector<char> AttentionMass::visible_tokens(int layer, int kv_head, int64_t tokens) const {
  std::vector<char> visible = sums(layer, kv_head).visible;
  visible.resize(tokens);
  return visible;
}

int64_t AttentionMass::queries(int layer) const {
  int64_t total = 0;
  for (int head = 0; head < kv_heads_; ++head) total += sums(layer, head).queries;
  return total;
}

}  // namespace fathom
