#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "memory/sequence.h"

namespace fathom::test {

/// Two tensors whose sizes are no multiples of a cache line.
inline std::shared_ptr<const RecurrentLayout> number_layout() {
  static const auto layout = std::make_shared<const RecurrentLayout>(RecurrentLayout{{{"conv", 3}, {"scan", 21}}});
  return layout;
}

/// A recurrence on whole numbers, exact in floats, that tells orders of tokens apart.
inline float next_number(float state, int64_t id, int64_t element) {
  return static_cast<float>((static_cast<int64_t>(state) * 5 + id * (element + 3) + 1) % 99991);
}

/// Element i of a tensor after these tokens, from zeros.
inline float number_after(const std::vector<int64_t>& ids, size_t tensor, int64_t i) {
  float state = 0;
  for (const int64_t id : ids) state = next_number(state, id, 100 * static_cast<int64_t>(tensor) + i);
  return state;
}

/// What a mixer does: makes the state after each segment of the opened tokens. ids: of the tokens.
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

/// The state is that after these tokens; `at`: of them, if it is that of a checkpoint.
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
