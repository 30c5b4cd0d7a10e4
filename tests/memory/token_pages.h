#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "memory/memory.h"

namespace fathom::test {

constexpr int kKeyDim = 8, kValueDim = 6, kRotaryDim = 4;

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
inline const PlaceRotations& small_rotations() {
  static const PlaceRotations rotations(small_rotary());
  return rotations;
}

inline std::shared_ptr<PageStore> small_store(PageFormat format = PageFormat::kF32) {
  return std::make_shared<PageStore>(PageShape{format, kKeyDim, kValueDim});
}

/// Element d of the key (part 0) or value (part 1) of token `id` in one lane: any number that tells them apart.
inline float element(int64_t id, int lane, int part, int d) {
  return static_cast<float>(std::sin(0.37 * static_cast<double>(id) + 5.1 * lane + 2.3 * part + 0.71 * d));
}

inline std::vector<int64_t> following(int64_t from, int64_t count) {
  std::vector<int64_t> positions(count);
  std::iota(positions.begin(), positions.end(), from);
  return positions;
}

/// Opens room for tokens `ids` at `positions` and writes their keys and values in every lane.
inline void read_tokens(Memory& memory, const std::vector<int64_t>& ids, const std::vector<int64_t>& positions) {
  constexpr int kKeyStride = kKeyDim + 3, kValueStride = kValueDim + 1;  // rows need not be dense
  memory.append(positions);
  std::vector<float> keys(ids.size() * kKeyStride), values(ids.size() * kValueStride);
  for (int layer = 0; layer < memory.layers(); ++layer) {
    for (int head = 0; head < memory.kv_heads(); ++head) {
      const int lane = layer * memory.kv_heads() + head;
      for (size_t i = 0; i < ids.size(); ++i) {
        for (int d = 0; d < kKeyDim; ++d) keys[i * kKeyStride + d] = element(ids[i], lane, 0, d);
        for (int d = 0; d < kValueDim; ++d) values[i * kValueStride + d] = element(ids[i], lane, 1, d);
      }
      memory.write(kernels(), layer, head, static_cast<int64_t>(ids.size()), keys.data(), kKeyStride, values.data(),
                   kValueStride, small_rotations());
    }
  }
}

/// `count` tokens that follow the last one; their ids are their places in the sequence plus `salt`.
inline void read_following(Memory& memory, int64_t count, int64_t salt = 0) {
  read_tokens(memory, following(memory.tokens() + salt, count), following(memory.next_position(), count));
}

/// How far an element of at most 1 may lie from what was written.
inline double rounding(PageFormat format) {
  if (format == PageFormat::kBF16) return 1.0 / 256;
  return code_bits(format) ? 1.02 / ((1 << code_bits(format)) - 1) : 1e-6;
}

/// The page holds token `id` at offset o, in the layout of PageRead: the key rotated by o, within so many times
/// twice the rounding.
inline void expect_token(const PageStore& store, PageId page, int o, int64_t id, int lane, double times = 1) {
  const PageFormat format = store.shape().format;
  const double tolerance = rounding(format);
  for (int pair = 0; pair < kKeyDim / 2; ++pair) {
    const double even = element(id, lane, 0, 2 * pair), odd = element(id, lane, 0, 2 * pair + 1);
    const double angle = pair < kRotaryDim / 2 ? o * small_rotary().frequencies()[pair] : 0;
    const double turned[] = {even * std::cos(angle) - odd * std::sin(angle),
                             even * std::sin(angle) + odd * std::cos(angle)};
    for (int i = 0; i < 2; ++i) {
      ASSERT_NEAR(page_key(format, kKeyDim, store.keys(page), o, 2 * pair + i), turned[i], tolerance * 2 * times)
          << "token " << id << " offset " << o << " pair " << pair;
    }
  }
  for (int d = 0; d < kValueDim; ++d) {
    ASSERT_NEAR(page_value(format, kValueDim, store.values(page), o, d), element(id, lane, 1, d), tolerance)
        << "token " << id << " offset " << o << " dimension " << d;
  }
}

}  // namespace fathom::test
