#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace fathom::train {

/// The entries of a layer's cache: a list for each sequence and key/value head.
struct CacheEntries {
  at::Tensor k;          // [sequences, kv_heads, entries, key_dim]
  at::Tensor v;          // [sequences, kv_heads, entries, value_dim]
  at::Tensor positions;  // [sequences, kv_heads, entries] f32
  at::Tensor scores;     // [sequences, kv_heads, entries] f32, attention received in the latest pass

  int64_t size() const { return k.size(2); }
};

/// The trained numbers of a layer.
struct SlotMixing {
  at::Tensor kernel;  // [slots / 2, key_dim + value_dim, width]; width odd
  at::Tensor bias;    // [slots / 2]
  at::Tensor share;   // scalar η in [0, 1]: share of the mixed entries; 0: entries are evicted
};

/// Returns the weights of the mixed slots, [sequences, kv_heads, slots / 2, entries]; each row sums to 1. entries:
/// those that are not kept, at least slots / 2. The weights are (1 − η)·R + η·A: R selects the slots / 2 entries
/// with the highest scores, A is the softmax over the entries of relu(convolution of their keys and values).
at::Tensor slot_weights(const CacheEntries& entries, const SlotMixing& mixing);

/// Compresses more than `slots` entries to `slots` ("LoCoCo: Dropping In Convolutions for Long Context
/// Compression", 2024): the slots / 2 entries with the highest scores, in their order, then mixtures of the others.
/// Gradients reach `mixing` only. The position and score of a mixture are the means of those of its entries.
CacheEntries compressed_entries(const CacheEntries& entries, int64_t slots, const SlotMixing& mixing);

}  // namespace fathom::train
