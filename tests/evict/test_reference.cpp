// The tokens kept by published implementations for the same inputs: NVIDIA/kvpress, kvpress/presses/*_press.py at
// 8bb29b9c, and for PyramidKV also Zefan-Cai/KVCache-Factory, pyramidkv/pyramidkv_utils.py at c97f9d70. They were
// run on tensors made by the formulas here; only the results are recorded. The scores of the last kept and the
// first evicted token differ by at least 1.8e-3 of their size.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "attend/formula.h"
#include "attend/reading.h"
#include "evict/keep_rule.h"
#include "evict/methods.h"

namespace fathom {
namespace {

using test::Reading;
using test::ReadingShape;
using TokenIndices = std::vector<int64_t>;

/// 300 tokens, 4 query heads on 2 key/value heads of width 16. The keys of the first four tokens are large, like
/// those of attention sinks.
class ReferenceReading : public Reading {
 public:
  explicit ReferenceReading(const std::string& spec)
      : Reading(shape_of(), "dense"), evictor(evict_methods().make(spec)) {
    test::fill_by_formula(keys, 1, shape.kv_heads, shape.dim);
    test::fill_by_formula(queries, 2, shape.heads, shape.dim, 2);
    test::fill_by_formula(values, 3, shape.kv_heads, test::kValueDim);
    for (int i = 0; i < 4 * shape.kv_heads * shape.dim; ++i) keys[i] *= 4;
    evictor->attach(context());
    sequence.set_state(Sequence::StateOf::kEvictor, evictor->new_state());
    listen = [this](LayerQueries layer) {
      layer.state = sequence.state(Sequence::StateOf::kEvictor);
      evictor->listen(layer, *pool);
    };
    for (const int64_t rows : {200, 99, 1}) read(rows);
    evictor->evict(sequence, true, {*pool, kernels()});
  }

  TokenIndices kept_tokens(int kv_head) const {
    TokenIndices tokens;
    for (const PageEntry& entry : sequence.kv(0).table(kv_head)) {
      for (int t = 0; t < entry.filled; ++t)
        if (entry.mask >> t & 1) tokens.push_back(entry.first + t);
    }
    return tokens;
  }

  std::unique_ptr<Evictor> evictor;

 private:
  static ReadingShape shape_of() {
    ReadingShape shape;
    shape.tokens = 300;
    return shape;
  }
};

void expect_kept(const std::string& spec, const TokenIndices& first, const TokenIndices& second) {
  const ReferenceReading e(spec);
  EXPECT_EQ(e.kept_tokens(0), first) << spec;
  EXPECT_EQ(e.kept_tokens(1), second) << spec;
}

TEST(ReferenceEvict, KNorm) {
  expect_kept(
      "knorm:budget=24,slack=0,sink=0,window=0",
      {5, 18, 26, 30, 31, 32, 61, 64, 67, 69, 72, 73, 102, 116, 117, 134, 144, 148, 159, 180, 217, 220, 241, 260},
      {7, 9, 19, 27, 29, 43, 52, 87, 88, 94, 103, 119, 126, 127, 135, 168, 181, 193, 195, 216, 225, 233, 234, 283});
}

TEST(ReferenceEvict, KeyDiff) {
  expect_kept(
      "keydiff:budget=24,slack=0,sink=0,window=0",
      {32, 36, 41, 45, 57, 60, 61, 63, 67, 68, 81, 86, 93, 129, 141, 195, 206, 269, 270, 271, 278, 285, 286, 293},
      {44,  138, 144, 153, 155, 156, 157, 208, 211, 212, 220, 224,
       225, 227, 229, 230, 231, 232, 233, 235, 236, 237, 239, 266});
}

// kvpress always keeps the last token; window=1 does the same here.
TEST(ReferenceEvict, Tova) {
  const TokenIndices both = {0,   1,   2,   3,   40,  42,  80,  94,  100, 111, 131, 197,
                             199, 217, 235, 237, 238, 271, 274, 276, 277, 278, 281, 299};
  expect_kept("tova:budget=24,slack=0,window=1", both, both);
}

// Scores of the window's own tokens are not pooled with those before it.
TEST(ReferenceEvict, SnapKv) {
  expect_kept("snapkv:budget=73,slack=0,queries=16,window=16",
              {0,   1,   2,   3,   4,   5,   12,  14,  34,  36,  37,  38,  39,  40,  41,  42,  43,  44,  45,
               46,  57,  58,  79,  80,  81,  82,  83,  84,  85,  86,  89,  90,  91,  92,  93,  96,  100, 108,
               109, 160, 161, 162, 163, 164, 201, 202, 203, 204, 205, 206, 207, 208, 277, 278, 279, 280, 281,
               284, 285, 286, 287, 288, 289, 290, 291, 292, 293, 294, 295, 296, 297, 298, 299},
              {0,   1,   2,   3,   4,   5,   18,  32,  33,  34,  35,  36,  37,  38,  39,  40,  41,  42,  43,
               44,  45,  46,  47,  48,  73,  74,  75,  76,  77,  78,  79,  80,  81,  94,  95,  96,  97,  130,
               131, 132, 133, 196, 197, 198, 199, 200, 201, 272, 273, 274, 275, 276, 277, 278, 279, 280, 281,
               284, 285, 286, 287, 288, 289, 290, 291, 292, 293, 294, 295, 296, 297, 298, 299});
}

// Compared with ObservedAttentionPress, which uses means of attention instead of H2O's sums.
TEST(ReferenceEvict, H2o) {
  expect_kept("h2o:budget=24,slack=0,rows=0,window=0",
              {0, 1, 2, 3, 6, 7, 8, 14, 15, 16, 17, 21, 24, 27, 29, 36, 45, 59, 66, 68, 79, 90, 109, 279},
              {0, 1, 2, 3, 4, 6, 11, 13, 18, 33, 35, 37, 40, 44, 60, 95, 185, 249, 252, 277, 278, 279, 288, 292});
}

// The first tokens are excluded from the softmax. Here they would receive 95 % of the attention of some heads and
// 20 % of others.
TEST(ReferenceEvict, Expected) {
  expect_kept("expected:budget=24,slack=0,window=0", {0,   1,   2,   3,   8,   96,  99,  104, 105, 112, 122, 153,
                                                      155, 163, 169, 170, 171, 172, 223, 234, 264, 282, 289, 292},
              {0,   1,   2,   3,   64,  65,  73,  158, 166, 172, 173, 178,
               179, 180, 188, 214, 228, 235, 239, 254, 286, 292, 294, 296});
}

/// Returns the number of tokens that each of nine layers keeps of a text of 400 tokens.
TokenIndices kept_by_layers(const std::string& spec) {
  constexpr int kLayers = 9;
  RotaryConfig config;
  config.dims = 8;
  const Rotary rotary(config, 4096);
  const PageShape shape{PageFormat::kF32, 8, 2};
  PagedKvConfig layer;
  layer.store = std::make_shared<PageStore>(shape);
  layer.rotations = std::make_shared<PositionRotations>(rotary);
  layer.rotations->reserve(512);
  Sequence sequence = test::identical_layers(layer, kLayers);
  const std::unique_ptr<Evictor> evictor = evict_methods().make(spec);
  evictor->attach(AttendContext::uniform(kLayers, AttendLayer{1, 1, shape}));
  sequence.set_state(Sequence::StateOf::kEvictor, evictor->new_state());
  TokenIndices positions(400);
  std::iota(positions.begin(), positions.end(), 0);
  sequence.open(positions);
  std::vector<float> keys(400 * 8), values(400 * 2);
  test::fill_by_formula(keys, 1, 1, 8);
  for (int l = 0; l < kLayers; ++l) sequence.kv(l).write(kernels(), 0, 400, keys.data(), 8, values.data(), 2);
  sequence.commit();
  ThreadPool pool(1);
  evictor->evict(sequence, true, {pool, kernels()});
  TokenIndices kept(kLayers);
  for (int l = 0; l < kLayers; ++l)
    for (const PageEntry& entry : sequence.kv(l).table(0)) kept[l] += std::popcount(entry.mask);
  return kept;
}

// The budgets of KVCache-Factory, which exclude the window from the scaling as ours do. In the second case the
// first layer's budget would exceed the text, so the differences between layers are smaller. kvpress scales the
// window too, and uses even budgets where the last layer's budget would be smaller than the window.
TEST(ReferenceEvict, PyramidKvLayerBudgets) {
  EXPECT_EQ(kept_by_layers("pyramidkv:share=0.44,queries=16,window=16"),
            (TokenIndices{328, 290, 252, 214, 176, 138, 100, 62, 24}));
  EXPECT_EQ(kept_by_layers("pyramidkv:share=0.54,queries=16,window=16"),
            (TokenIndices{400, 354, 308, 262, 216, 170, 124, 78, 32}));
  EXPECT_EQ(kept_by_layers("pyramidkv:share=1,queries=16,window=16"), TokenIndices(9, 400));
}

/// Returns the scores of 60 tokens in each of three heads.
std::vector<float> given_scores() {
  constexpr double kFactors[] = {1, 0.4, 2};
  std::vector<float> scores;
  for (uint32_t h = 0; h < 3; ++h)
    for (uint32_t t = 0; t < 60; ++t)
      scores.push_back(static_cast<float>(test::pseudo_random(t + 100 * h) * kFactors[h]));
  return scores;
}

TokenIndices kept(const std::vector<char>& keep, int64_t begin, int64_t end) {
  TokenIndices tokens;
  for (int64_t i = begin; i < end; ++i)
    if (keep[i]) tokens.push_back(i - begin);
  return tokens;
}

TEST(ReferenceEvict, AdaKv) {
  const std::vector<char> fifteen = keep_best(given_scores(), 3, 15, {.by_layer = true});
  EXPECT_EQ(kept(fifteen, 0, 60),
            (TokenIndices{3, 6, 7, 8, 10, 15, 18, 19, 24, 27, 29, 33, 37, 42, 44, 46, 48, 49}));
  EXPECT_EQ(kept(fifteen, 60, 120), (TokenIndices{17, 46, 50})) << "a fifth of 15";
  EXPECT_EQ(kept(fifteen, 120, 180), (TokenIndices{3,  6,  7,  8,  11, 13, 14, 24, 27, 29, 30, 33,
                                                   35, 37, 41, 43, 44, 46, 48, 49, 50, 51, 52, 56}));
}

// In kvpress the heads sum their scores and keep the same chunks; here each head keeps its own. With one head both
// are the same.
TEST(ReferenceEvict, ChunkKv) {
  const std::vector<float> scores = given_scores();
  const auto kept_chunks = [&](int64_t tokens, int64_t chunk, int64_t budget) {
    const std::vector<char> keep = keep_best(std::span(scores).first(tokens), 1, budget, {.block = chunk});
    TokenIndices chunks;
    for (const int64_t t : kept(keep, 0, tokens))
      if (chunks.empty() || chunks.back() != t / chunk) chunks.push_back(t / chunk);
    return chunks;
  };
  EXPECT_EQ(kept_chunks(60, 7, 14), (TokenIndices{2, 6}));
  EXPECT_EQ(kept_chunks(57, 7, 28), (TokenIndices{1, 2, 3, 6}));
  EXPECT_EQ(kept_chunks(60, 20, 20), (TokenIndices{0}));
  EXPECT_EQ(kept_chunks(57, 20, 37), (TokenIndices{0, 2})) << "the last one has 17 tokens";
}

// Without the 1e-4 that is added to mean attention, three of the first head's kept tokens would differ.
TEST(ReferenceEvict, CriticalKv) {
  std::vector<float> scores, norms;
  for (uint32_t i = 0; i < 180; ++i) {
    const uint32_t at = i % 60 + 100 * (i / 60);
    scores.push_back(static_cast<float>(std::pow(test::pseudo_random(at) + 1, 4) * 2e-5));
    norms.push_back(static_cast<float>(test::pseudo_random(at + 1000) + 1.25));
  }
  const std::vector<char> keep = keep_critical(scores, norms, 3, 20, {});
  EXPECT_EQ(kept(keep, 0, 60),
            (TokenIndices{3, 6, 7, 8, 10, 12, 13, 15, 16, 18, 19, 24, 27, 29, 37, 42, 44, 46, 48, 50}));
  EXPECT_EQ(kept(keep, 60, 120),
            (TokenIndices{13, 14, 17, 20, 22, 23, 27, 31, 33, 35, 36, 39, 41, 44, 46, 49, 50, 52, 57, 59}));
  EXPECT_EQ(kept(keep, 120, 180),
            (TokenIndices{2, 6, 7, 8, 11, 14, 24, 30, 33, 35, 37, 41, 43, 44, 48, 49, 50, 51, 52, 56}));
}

}  // namespace
}  // namespace fathom
