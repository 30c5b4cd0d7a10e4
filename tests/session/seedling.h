#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "paths.h"
#include "session/session.h"

namespace fathom::test {

/// Returns the small model in models/.
inline std::shared_ptr<const Model> seedling() {
  static const auto model = Model::open(seedling_path());
  return model;
}
/// Returns a runtime with two threads that all tests share.
inline std::shared_ptr<Runtime> runtime() {
  static const auto shared = std::make_shared<Runtime>(2);
  return shared;
}

/// Returns pseudo-random tokens of the model's vocabulary, without control tokens.
inline std::vector<int32_t> tokens(int64_t n, uint32_t seed = 1) {
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) {
    seed = seed * 1664525u + 1013904223u;
    id = 10 + static_cast<int32_t>((seed >> 8) % 500);
  }
  return ids;
}

/// Appends tokens one by one.
inline void steps(Session& session, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) session.append({&id, 1});
}

inline std::vector<float> logits_of(const Session& session) {
  return {session.logits().begin(), session.logits().end()};
}

/// Returns the largest absolute difference of two vectors, whose sizes must be equal.
inline double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::abs(double{a[i]} - b[i]));
  return largest;
}

}  // namespace fathom::test
