#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "drafting.h"
#include "formats/gguf.h"
#include "models/tiny_model.h"
#include "trained_draft.h"

namespace fathom::test {

inline constexpr int32_t kSuccessorTokens = 64;
/// Returns the file of a model that continues each token x < 64 with next(x), whatever precedes it: nothing is
/// mixed between tokens, the residual stream of x is 8 in dimension x, and the output matrix maps it to next(x).
inline TinyFile successor_file(
    const std::function<int32_t(int32_t)>& next,
    const std::function<void(GgufWriter&)>& extra = [](GgufWriter&) {}) {
  TinyFile file;
  file.keep = [](const std::string& name) {
    return name != "token_embd.weight" && name != "output_norm.weight" && !name.ends_with("attn_output.weight") &&
           !name.ends_with("ffn_down.weight");
  };
  file.extra = [=](GgufWriter& writer) {
    const auto add = [&](const std::string& name, std::vector<int64_t> shape, const std::vector<float>& values) {
      writer.add_tensor(name, WeightType::kF32, std::move(shape), std::as_bytes(std::span(values)));
    };
    const TinyFile shape;
    const int64_t width = shape.width;
    std::vector<float> embedding(shape.vocabulary * width), output(embedding.size());
    for (int32_t x = 0; x < kSuccessorTokens; ++x) {
      embedding[x * width + x] = 8;
      output[next(x) * width + x] = 4;
    }
    add("token_embd.weight", {width, shape.vocabulary}, embedding);
    add("output.weight", {width, shape.vocabulary}, output);
    add("output_norm.weight", {width}, std::vector<float>(width, 1));
    for (int i = 0; i < shape.layers; ++i) {
      const std::string blk = "blk." + std::to_string(i) + ".";
      const int64_t heads = shape.heads * shape.head_dim;
      add(blk + "attn_output.weight", {heads, width}, std::vector<float>(heads * width));
      add(blk + "ffn_down.weight", {shape.ffn, width}, std::vector<float>(shape.ffn * width));
    }
    extra(writer);
  };
  return file;
}

/// Expects each logit to be within 1e-4 of the expected one, relative to the largest.
inline void expect_near(const std::vector<double>& expected, std::span<const float> found) {
  ASSERT_EQ(expected.size(), found.size());
  double largest = 0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  ASSERT_GT(largest, 0);
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(expected[i], found[i], 1e-4 * largest) << "logit " << i;
}

}  // namespace fathom::test
