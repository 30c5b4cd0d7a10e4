#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "memory/sequence.h"

namespace fathom::test {

/// Returns a layout of two tensors whose sizes are not multiples of a cache line.
inline std::shared_ptr<const RecurrentLayout> number_layout() {
  static const auto layout = std::make_shared<const RecurrentLayout>(RecurrentLayout{{{"conv", 3}, {"scan", 21}}});
  return layout;
}

/// Returns the next state of a recurrence on integers. It is exact in float32 and depends on the order of tokens.
inline float next_number(float state, int64_t id, int64_t element) {
  return static_cast<float>((static_cast<int64_t>(state) * 5 + id * (element + 3) + 1) % 99991);
}

/// Returns element i of a tensor after these tokens, starting from zero.
inline float number_after(const std::vector<int64_t>& ids, size_t tensor, int64_t i) {
  float state = 0;
  for (const int64_t id : ids) state = next_number(state, id, 100 * static_cast<int64_t>(tensor) + i);
  return state;
}

/// Writes the state after each segment of the opened tokens, as a mixer does. ids: of the tokens.
inline void write_numbers(RecurrentState& state, const std::vector<int64_t>& ids) {
  int64_t row = 0;
  for (size_t segment = 0; segment < state.stops().size(); ++segment) {
    const int64_t end = state.stops()[segment];
    for (size_t tensor = 0; tensor < state.layout().tensors.size(); ++tensor) {
      const float* before = state.before(segment, tensor);
      float* after = state.after(segment, tensor);
      for (int64_t i = 0; i < state.layout().tensors[tensor].size; ++i) {
        after[i] = before ? before[i] : 0;
        for (int64_t r = row; r < end; ++r)
          after[i] = next_number(after[i], ids[r], 100 * static_cast<int64_t>(tensor) + i);
      }
    }
    row = end;
  }
}

/// Expects the state after tokens `ids`, or its checkpoint after the first `at` of them if `at` ≥ 0.
inline void expect_numbers(const RecurrentState& state, std::vector<int64_t> ids, int64_t at = -1) {
  if (at < 0) {
    ASSERT_EQ(state.tokens(), std::ssize(ids));
    at = state.tokens();
  }
  ids.resize(at);
  const auto snapshot = state.snapshot(at);
  if (at == 0) {
    ASSERT_EQ(snapshot, nullptr);
    return;
  }
  ASSERT_NE(snapshot, nullptr);
  for (size_t tensor = 0; tensor < state.layout().tensors.size(); ++tensor) {
    for (int64_t i = 0; i < state.layout().tensors[tensor].size; ++i) {
      ASSERT_EQ(snapshot->floats[state.layout().offset(tensor) + i], number_after(ids, tensor, i))
          << "after " << at << " tokens, tensor " << tensor << " element " << i;
    }
  }
}

}  // namespace fathom::test
