#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "memory/identical_layers.h"

namespace fathom::test {

constexpr int kKeyDim = 8, kValueDim = 6, kRotaryDim = 4;

/// A method state without contents to save.
struct UnsavedState : SequenceState {
  size_t bytes() const override { return 0; }
  void save(ByteWriter&, const Sequence&) const override {}
  void load(ByteReader&, const Sequence&) override {}
};

inline const Rotary& small_rotary() {
  static const Rotary rotary(
      [] {
        RotaryConfig c;
        c.dims = kRotaryDim;
        return c;
      }(),
      4096);
  return rotary;
}
inline const std::shared_ptr<PositionRotations>& small_rotations() {
  static const auto rotations = std::make_shared<PositionRotations>(small_rotary());
  return rotations;
}

inline std::shared_ptr<PageStore> small_store(PageFormat format = PageFormat::kF32) {
  return std::make_shared<PageStore>(PageShape{format, kKeyDim, kValueDim});
}

inline Sequence small_sequence(std::shared_ptr<PageStore> store, int layers, int heads,
                               int page_tokens = kPageTokens) {
  PagedKvConfig config;
  config.store = std::move(store);
  config.heads = heads;
  config.rotations = small_rotations();
  config.page_tokens = page_tokens;
  return identical_layers(config, layers);
}

/// Returns element d of the key (part 0) or value (part 1) of token `id` in one page table: arbitrary but distinct
/// values.
inline float element(int64_t id, int table, int part, int d) {
  return static_cast<float>(std::sin(0.37 * static_cast<double>(id) + 5.1 * table + 2.3 * part + 0.71 * d));
}

/// Returns `count` consecutive integers starting with `from`.
inline std::vector<int64_t> following(int64_t from, int64_t count) {
  std::vector<int64_t> positions(count);
  std::iota(positions.begin(), positions.end(), from);
  return positions;
}

/// Writes the keys and values of the opened tokens with these ids in all page tables
/// of one layer. The tables of a sequence are numbered layer by layer.
inline void write_tokens(Sequence& sequence, int layer, const std::vector<int64_t>& ids) {
  constexpr int kKeyStride = kKeyDim + 3, kValueStride = kValueDim + 1;  // rows need not be dense
  std::vector<float> keys(ids.size() * kKeyStride), values(ids.size() * kValueStride);
  PagedKv& kv = sequence.kv(layer);
  for (int head = 0; head < kv.heads(); ++head) {
    const int table = layer * kv.heads() + head;
    for (size_t i = 0; i < ids.size(); ++i) {
      for (int d = 0; d < kKeyDim; ++d) keys[i * kKeyStride + d] = element(ids[i], table, 0, d);
      for (int d = 0; d < kValueDim; ++d) values[i * kValueStride + d] = element(ids[i], table, 1, d);
    }
    kv.write(kernels(), head, std::ssize(ids), keys.data(), kKeyStride, values.data(), kValueStride);
  }
}

/// Appends tokens `ids` at `positions`: opens them, writes their keys and values in each layer with pages, and
/// commits them.
inline void read_tokens(Sequence& sequence, const std::vector<int64_t>& ids,
                        const std::vector<int64_t>& positions) {
  sequence.open(positions, std::vector<int32_t>(ids.begin(), ids.end()));
  for (int layer = 0; layer < sequence.layers(); ++layer)
    if (sequence.paged(layer)) write_tokens(sequence, layer, ids);
  sequence.commit();
}

/// Appends `count` tokens at the next positions. Their ids are their indices in the sequence plus `salt`.
inline void read_following(Sequence& sequence, int64_t count, int64_t salt = 0) {
  read_tokens(sequence, following(sequence.tokens() + salt, count), following(sequence.next_position(), count));
}

/// Returns the store that all layers share.
inline const PageStore& store_of(const Sequence& sequence) { return sequence.kv(0).store(); }

/// Removes the newest n tokens.
inline void remove_newest(Sequence& sequence, int64_t n) { sequence.truncate(sequence.tokens() - n); }

/// Returns the largest rounding error of a stored element whose absolute value is at most 1.
inline double rounding(PageFormat format) {
  if (format == PageFormat::kBF16) return 1.0 / 256;
  return quant_bits(format) ? 1.02 / ((1 << quant_bits(format)) - 1) : 1e-6;
}

/// Expects token `id` at offset o of the page, with its key rotated by o. Tolerance: `times` · 2 · rounding(format)
/// for keys, rounding(format) for values.
inline void expect_token(const PageStore& store, PageId page, int o, int64_t id, int table, double times = 1) {
  const PageFormat format = store.shape().format;
  const double tolerance = rounding(format);
  for (int pair = 0; pair < kKeyDim / 2; ++pair) {
    const double even = element(id, table, 0, 2 * pair), odd = element(id, table, 0, 2 * pair + 1);
    const double angle = pair < kRotaryDim / 2 ? o * small_rotary().frequencies()[pair] : 0;
    const double rotated[] = {even * std::cos(angle) - odd * std::sin(angle),
                              even * std::sin(angle) + odd * std::cos(angle)};
    for (int i = 0; i < 2; ++i) {
      ASSERT_NEAR(page_key(format, kKeyDim, store.keys(page), o, 2 * pair + i), rotated[i], tolerance * 2 * times)
          << "token " << id << " offset " << o << " pair " << pair;
    }
  }
  for (int d = 0; d < kValueDim; ++d) {
    ASSERT_NEAR(page_value(format, kValueDim, store.values(page), o, d), element(id, table, 1, d), tolerance)
        << "token " << id << " offset " << o << " dimension " << d;
  }
}

}  // namespace fathom::test
