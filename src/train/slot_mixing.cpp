#include "train/slot_mixing.h"

#include <ATen/ATen.h>

namespace fathom::train {
namespace {

/// Returns the entries with these indices, [sequences, kv_heads, count] int64.
CacheEntries selected_entries(const CacheEntries& from, const at::Tensor& indices) {
  const auto rows = [&](const at::Tensor& x) {
    return x.gather(2, indices.unsqueeze(3).expand({-1, -1, -1, x.size(3)}));
  };
  return {rows(from.k), rows(from.v), from.positions.gather(2, indices), from.scores.gather(2, indices)};
}

/// Returns the indices of the largest scores, ascending.
at::Tensor best_indices(const at::Tensor& scores, int64_t count) {
  return std::get<0>(std::get<1>(scores.topk(count, 2)).sort(int64_t{2}));
}

/// Returns all indices that are not in `kept`, ascending.
at::Tensor other_indices(const at::Tensor& kept, int64_t entries) {
  const at::Tensor marks = at::zeros({kept.size(0), kept.size(1), entries}, at::kInt).scatter(2, kept, 1);
  const at::Tensor order = std::get<1>(marks.sort(/*stable=*/true, /*dim=*/2, /*descending=*/false));
  return order.narrow(2, 0, entries - kept.size(2));
}

CacheEntries detached_entries(const CacheEntries& from) {
  return {from.k.detach(), from.v.detach(), from.positions.detach(), from.scores.detach()};
}

}  // namespace

at::Tensor slot_weights(const CacheEntries& entries, const SlotMixing& mixing) {
  const int64_t mixed = mixing.kernel.size(0), count = entries.size();
  const at::Tensor best = best_indices(entries.scores, mixed);
  const at::Tensor evicting =
      at::zeros({best.size(0), best.size(1), mixed, count}, entries.k.options()).scatter(3, best.unsqueeze(3), 1);
  const at::Tensor channels = at::cat({entries.k, entries.v}, 3).flatten(0, 1).transpose(1, 2);
  const at::Tensor out = at::conv1d(channels, mixing.kernel, mixing.bias, 1, mixing.kernel.size(2) / 2);
  const at::Tensor mixtures = at::softmax(at::relu(out), 2).view(evicting.sizes());
  return evicting * (1 - mixing.share) + mixtures * mixing.share;
}

CacheEntries compressed_entries(const CacheEntries& entries, int64_t slots, const SlotMixing& mixing) {
  const CacheEntries all = detached_entries(entries);
  const at::Tensor kept = best_indices(all.scores, slots / 2);
  const CacheEntries heavy = selected_entries(all, kept),
                     rest = selected_entries(all, other_indices(kept, all.size()));
  const at::Tensor weights = slot_weights(rest, mixing);
  const auto mixed = [&](const at::Tensor& x) { return at::matmul(weights, x); };
  const auto mean = [&](const at::Tensor& x) { return mixed(x.unsqueeze(3)).squeeze(3).detach(); };
  return {at::cat({heavy.k, mixed(rest.k)}, 2), at::cat({heavy.v, mixed(rest.v)}, 2),
          at::cat({heavy.positions, mean(rest.positions)}, 2), at::cat({heavy.scores, mean(rest.scores)}, 2)};
}

}  // namespace fathom::train
