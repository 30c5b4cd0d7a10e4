// Compares selections with those of the papers' authors' code on the same input. The authors' code was run on
// tensors made by the formulas below; its results are stored here, with the repository, file and commit of each.
#include <gtest/gtest.h>

#include <algorithm>

#include "attend/block_memory.h"
#include "attend/key_clusters.h"
#include "formula.h"
#include "reading.h"

namespace fathom {
namespace {

using test::Reading;
using test::ReadingShape;
using TokenList = std::vector<int64_t>;

ReadingShape shape_of(int64_t tokens, int dim, int heads, int rotated) {
  ReadingShape shape;
  shape.tokens = tokens;
  shape.heads = heads;
  shape.dim = dim;
  shape.rotary_dim = rotated < 0 ? dim : rotated;
  return shape;
}

/// A reading of keys and queries made by formulas, with 2 key/value heads. heads: query heads; rotated: rotated
/// dimensions, −1: all.
class FormulaReading : public Reading {
 public:
  FormulaReading(int64_t tokens, int dim, const std::string& spec, int heads = 4, int rotated = -1)
      : Reading(shape_of(tokens, dim, heads, rotated), spec) {
    test::fill_by_formula(keys, 1, shape.kv_heads, dim);
    test::fill_by_formula(queries, 2, shape.heads, dim);
  }

  const std::vector<MemoryBlock>& blocks() const {
    return static_cast<const BlockState*>(sequence.state(Sequence::StateOf::kSelector))->layers[0].blocks;
  }
};

// bytedance/ShadowKV, models/kv_cache.py, ShadowKVCache at a21f5a9e: 12 outliers and 12 selected chunks of 80. Keys
// have 128 dimensions, the width that its scale of scores assumes.
TEST(ReferenceAttend, ShadowKv) {
  const TokenList chunks[2][2] = {
      {{5, 8, 19, 38, 44, 45, 48, 52, 58, 60, 69, 73},  // outliers
       {0, 15, 20, 23, 29, 32, 33, 64, 65, 68, 76, 77}},
      {{5, 28, 29, 30, 42, 45, 51, 52, 54, 65, 76, 78}, {3, 7, 22, 23, 32, 33, 36, 37, 57, 69, 73, 77}}};
  FormulaReading reading(678, 128, "shadowkv:outliers=12,budget=96");
  reading.read(677);
  reading.read(1);
  for (int h = 0; h < 2; ++h) {
    TokenList expected;
    for (const TokenList& some : chunks[h])
      for (const int64_t chunk : some)
        for (int64_t t = 0; t < 8; ++t) expected.push_back(chunk * 8 + t);
    for (int64_t t = 640; t < 678; ++t)
      expected.push_back(t);  // the newest chunks of the prompt and all later tokens
    std::ranges::sort(expected);
    EXPECT_EQ(reading.attended(h), expected) << "head " << h;
  }
}

/// Reads up to token `end`, `at_once` tokens per pass, and reports their surprisal.
void read_with_surprisal(Reading& reading, const std::vector<float>& nats, int64_t end, int64_t at_once) {
  for (int64_t t = reading.sequence.tokens(); t < end; t += at_once) {
    const int64_t rows = std::min(at_once, end - t);
    reading.read(rows);
    reading.selector->surprisal({t, std::span(nats).subspan(t, rows)},
                                reading.sequence.state(Sequence::StateOf::kSelector));
  }
}

/// Expects that blocks begin at these tokens. Up to 5 of the newest blocks may be missing.
void expect_begins(const FormulaReading& reading, TokenList expected, const std::string& where) {
  TokenList all;
  for (const MemoryBlock& block : reading.blocks()) all.push_back(block.begin);
  ASSERT_GE(all.size() + 5, expected.size()) << where;
  ASSERT_LE(all.size(), expected.size()) << where;
  expected.resize(all.size());
  EXPECT_EQ(all, expected) << where;
}

std::vector<float> surprisal_by_formula() {
  std::vector<float> nats(900);
  for (uint32_t t = 0; t < nats.size(); ++t)
    nats[t] = static_cast<float>(std::abs(test::pseudo_random(t + 5000) + test::pseudo_random(t + 9000)) * 2);
  return nats;
}

// em-llm/EM-LLM-model, em_llm/attention/context_manager.py, update_memory at e911d1f1, one token at a time. Their
// mean and deviation are those before the tokens of a pass, so their events depend on the length of passes; Fathom
// always uses those before the token. The surprisal nearest to its threshold differs from it by 6e-4.
TEST(ReferenceAttend, EmLlmEventsBeginAtHighSurprisal) {
  const std::vector<float> nats = surprisal_by_formula();
  const struct {
    const char* gamma;
    TokenList begins;
  } cases[] = {
      {"1", {16,  25,  39,  47,  75,  84,  93,  106, 128, 137, 149, 157, 170, 186, 197, 211, 220, 232, 249,
             257, 268, 284, 293, 302, 310, 322, 337, 349, 357, 367, 399, 408, 420, 429, 438, 449, 458, 473,
             488, 498, 507, 516, 535, 543, 558, 572, 588, 597, 607, 623, 636, 650, 697, 707, 724, 734, 742}},
      {"1.5", {16,  43,  75,  84,  93,  128, 149, 157, 170, 191, 212, 232, 257, 268, 294,
               302, 310, 322, 349, 357, 372, 399, 408, 420, 429, 449, 473, 488, 498, 516,
               539, 564, 574, 588, 597, 610, 623, 636, 698, 707, 726, 734, 742}},
      {"2.2", {16, 43, 107, 129, 193, 257, 302, 366, 430, 488, 498, 516, 564, 574, 636, 700, 726, 734}}};
  for (const auto& one : cases) {
    FormulaReading reading(900, 16, std::string("em-llm:window=128,sink=16,min=8,max=64,gamma=") + one.gamma);
    read_with_surprisal(reading, nats, 900, 20);
    expect_begins(reading, one.begins, one.gamma);
  }
}

// The same repository, similarity_refinement/segmentation.py, events_with_similarity_adjustment. The borders found
// by surprisal are not at multiples of 16, where groups of similar keys begin. Their code tries only positions
// before a border; Fathom also tries the border itself. By modularity the border itself is never the best. By
// conductance it is the best at 241 and 431, where their borders are 237 and 430. Their volume of a side also
// counts only the weights between items of that side, not all weights of these items. All other borders agree.
TEST(ReferenceAttend, EmLlmRefinementMovesBorders) {
  std::vector<float> nats(700, 1.0f);
  for (const int t :
       {26, 55, 78, 110, 131, 152, 184, 214, 241, 270, 291, 313, 346, 375, 405, 431, 461, 490, 521, 550})
    nats[t] = 30;
  const auto expect = [&](const std::string& refine, const TokenList& borders) {
    FormulaReading reading(700, 16, "em-llm:window=160,sink=0,min=8,max=80,refine=" + refine);
    read_with_surprisal(reading, nats, 700, 20);
    expect_begins(reading, borders, refine);
  };
  expect("modularity",
         {0, 16, 32, 64, 96, 128, 144, 160, 192, 224, 256, 272, 288, 304, 336, 384, 415, 448, 480, 496, 528});
  expect("conductance",
         {0, 16, 32, 64, 96, 128, 144, 160, 192, 241, 256, 288, 304, 336, 352, 368, 431, 448, 480, 496, 512});
}

/// Returns the blocks that the newest pass attends to.
TokenList selected_blocks(const FormulaReading& reading) {
  const LayerBlocks& layer =
      static_cast<const BlockState*>(reading.sequence.state(Sequence::StateOf::kSelector))->layers[0];
  const std::vector<TokenRange>& ranges = layer.attended.back().ranges;
  TokenList found;
  for (int64_t b = 0; b < std::ssize(layer.blocks); ++b) {
    const MemoryBlock& block = layer.blocks[b];
    for (const TokenRange& range : ranges)
      if (range.begin <= block.begin && block.end <= range.end) found.push_back(b);
  }
  return found;
}

// _calc_topk_blocks and _update_contiguity_buffer of the same file, on these events. All tokens of an event are
// representatives. Their budget grows by the largest number of tokens of a pass; it was kept constant for these
// results, as it is here.
TEST(ReferenceAttend, EmLlmEvents) {
  const std::vector<float> nats = surprisal_by_formula();
  const struct {
    const char* contiguity;
    TokenList events[6];
  } cases[] = {{"0",
                {{2, 3, 19, 20, 21, 24, 25, 26, 27, 28, 34, 35, 40, 44},
                 {2, 3, 18, 19, 24, 25, 27, 28, 34, 35, 38, 41, 43, 44},
                 {2, 3, 19, 20, 21, 24, 25, 34, 41, 42, 43, 47, 49},
                 {2, 7, 20, 24, 25, 26, 33, 34, 35, 40, 41, 42, 43, 44},
                 {2, 3, 24, 25, 26, 33, 34, 39, 40, 41, 47, 48, 49},
                 {3, 7, 8, 19, 20, 24, 25, 26, 28, 34, 35, 43}}},
               {"0.3",
                {{1, 2, 3, 19, 20, 21, 23, 24, 25, 26, 28, 33, 34, 35, 36},
                 {18, 19, 23, 24, 25, 26, 28, 33, 34, 35, 38, 39, 42, 43, 44},
                 {1, 2, 3, 19, 20, 24, 25, 26, 34, 41, 42, 47, 49},
                 {2, 7, 23, 24, 25, 26, 33, 34, 35, 40, 41, 42, 43},
                 {2, 3, 23, 24, 25, 26, 27, 33, 34, 35, 39, 40, 41, 48, 49},
                 {7, 18, 19, 20, 21, 23, 24, 25, 26, 28, 35, 42, 43, 44}}}};
  for (const auto& one : cases) {
    FormulaReading reading(
        900, 16,
        std::string("em-llm:window=128,sink=16,min=8,max=64,budget=200,representatives=64,contiguity=") +
            one.contiguity);
    read_with_surprisal(reading, nats, 800, 20);
    for (const TokenList& events : one.events) {
      read_with_surprisal(reading, nats, reading.sequence.tokens() + 1, 1);
      EXPECT_EQ(selected_blocks(reading), events)
          << "contiguity " << one.contiguity << ", " << reading.sequence.tokens();
    }
  }
}

// thunlp/InfLLM, inf_llm/attention/context_manager.py at 12b70798, the whole file, with its plain attention. All
// tokens of a block are representatives. With fewer, their code takes the tokens with most attention while they
// were in the window; Fathom takes, as in the paper, those with the highest scores from the queries of the next
// window.
TEST(ReferenceAttend, InfLlmBlocks) {
  FormulaReading reading(771, 16, "infllm:window=128,sink=16,block=32,topk=4,representatives=32,chunk=64");
  const TokenList expected[] = {{},
                                {},
                                {},
                                {0},
                                {0, 1, 2},
                                {0, 1, 3, 4},
                                {0, 1, 2, 3},
                                {2, 4, 5, 6},
                                {3, 4, 9, 10},
                                {3, 4, 10, 12},
                                {0, 7, 8, 11},
                                {4, 12, 13, 14},
                                {1, 9, 17, 18},
                                {8, 10, 13, 18},
                                {8, 10, 13, 15}};
  for (size_t pass = 0; pass < std::size(expected); ++pass) {
    reading.read(pass < 12 ? 64 : 1);
    EXPECT_EQ(selected_blocks(reading), expected[pass]) << "pass " << pass;
  }
}

// SqueezeAILab/SqueezedAttention, squeezedattention/clustering.py, run_global_threshold at 4a50c64e: the shares of
// given clusters as the mean over the newest 100 queries, and the keys above the threshold for a question of eight
// tokens when each key is its own cluster. Each key/value head has one query head, as in their models.
class SqueezedReading : public FormulaReading {
 public:
  explicit SqueezedReading(const std::string& spec) : FormulaReading(268, 16, spec, 2) {
    test::fill_by_formula(queries, 2, shape.heads, shape.dim, 3);
  }
};

TEST(ReferenceAttend, SqueezedShares) {
  constexpr int kClusters = 8;
  const float expected[2][kClusters] = {
      {0.007478f, 0.006052f, 0.007348f, 0.005435f, 0.004996f, 0.006110f, 0.005365f, 0.007249f},
      {0.005654f, 0.006610f, 0.006161f, 0.006261f, 0.006011f, 0.006491f, 0.006732f, 0.006026f}};
  SqueezedReading reading("dense");
  for (int h = 0; h < 2; ++h) {
    KeyClusters clusters{160, {0}, {}, KeyTable(PageFormat::kF32, 16)};
    for (int64_t c = 0; c < kClusters; ++c) {
      std::vector<float> mean(16);
      for (int64_t t = 0; t < 160; ++t) {
        if (t * t / 97 % kClusters != c) continue;
        clusters.tokens.push_back(t);
        const std::vector<double> key = reading.rotated(reading.key(t, h), t);
        for (int d = 0; d < 16; ++d) mean[d] += static_cast<float>(key[d]);
      }
      const int64_t count = std::ssize(clusters.tokens) - clusters.begin.back();
      for (float& x : mean) x /= static_cast<float>(count);
      clusters.means.add(mean.data());
      clusters.begin.push_back(std::ssize(clusters.tokens));
    }
    std::vector<float> queries;
    for (int64_t t = 160; t < 260; ++t)
      for (const double x : reading.rotated(reading.query(t, h), t)) queries.push_back(static_cast<float>(x));
    const std::vector<float> shares = cluster_shares(kernels(), clusters, queries, 100, 1, reading.scale());
    for (int c = 0; c < kClusters; ++c)
      EXPECT_NEAR(shares[c], expected[h][c], 2e-6) << "head " << h << " cluster " << c;
  }
}

TEST(ReferenceAttend, SqueezedThreshold) {
  const struct {
    const char* pruned;
    TokenList attended[2];
  } cases[] = {{"0.7",
                {{4,   6,   16,  17,  19,  20,  21,  23,  24,  25,  29,  50,  66,  72,  74,  75,  77,
                  79,  83,  87,  89,  90,  91,  96,  97,  98,  99,  100, 103, 105, 108, 109, 111, 114,
                  128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 142, 143, 150, 155, 156},
                 {0,  3,  4,  5,  9,  10, 19, 22, 25, 32, 34, 44, 47, 49,  53,  55,  62,  65, 67,
                  70, 72, 74, 75, 76, 77, 78, 79, 84, 85, 86, 91, 92, 107, 108, 120, 138, 141}}},
               {"0.9",
                {{16, 17, 21, 24, 66, 77, 87, 96, 97, 99, 100, 103, 111, 128, 132, 135, 136, 138, 143, 150, 155},
                 {0, 3, 4, 5, 9, 25, 32, 34, 47, 49, 62, 65, 67, 70, 72, 84, 86, 91, 92, 107, 108}}}};
  for (const auto& one : cases) {
    SqueezedReading reading(std::string("squeezed:clusters=1,min_context=200,pruned=") + one.pruned);
    reading.read(190);
    reading.read(70);
    reading.read(8);
    for (int h = 0; h < 2; ++h) {
      TokenList attended = reading.attended(h);
      std::erase_if(attended, [](int64_t t) { return t >= 160; });
      EXPECT_EQ(attended, one.attended[h]) << "pruned " << one.pruned << " head " << h;
    }
  }
}

// pzs19/TokenSelect, patcher/token_retrieval.py, TokenRetriever at 8e1e97f0, with its product of queries and keys
// in float32. Their code scores unrotated vectors and does not scale them, so this test uses a model without
// positions and larger queries. With more query heads than key/value heads, their code would use the keys of other
// heads.
TEST(ReferenceAttend, TokenSelect) {
  const struct {
    const char* spec;
    TokenList chunk, token;  // selection of 64 rows, and of a single row after them; empty: not compared
  } cases[] = {
      {"budget=40",
       {16,  69,  71,  78,  79,  100, 102, 107, 109, 110, 111, 114, 116, 118, 121, 122, 123, 124, 126, 197,
        198, 199, 200, 202, 203, 205, 206, 207, 209, 227, 234, 239, 263, 271, 274, 275, 278, 282, 286, 287},
       {21,  23,  31,  41,  48,  49,  60,  62,  63,  70,  76,  77,  79,  87,  88,  113, 146, 147, 148, 152,
        155, 158, 159, 192, 196, 256, 257, 259, 260, 262, 264, 265, 267, 270, 271, 278, 308, 310, 311, 315}},
      {"budget=32,pool=5", {}, {46,  47,  48,  49,  50,  60,  61,  62,  63,  64,  255, 256, 257, 258, 259, 260,
                                261, 263, 264, 265, 266, 267, 268, 269, 270, 271, 272, 306, 307, 308, 309, 310}}};
  for (const auto& one : cases) {
    FormulaReading reading(385, 16, std::string("tokenselect:window=64,sink=16,chunk=64,") + one.spec, 2, 0);
    test::fill_by_formula(reading.queries, 2, 2, 16, 2);
    const auto selected = [&] {
      TokenList attended = reading.attended(0);
      EXPECT_EQ(attended, reading.attended(1));
      std::erase_if(attended, [&](int64_t t) { return t < 16 || t >= reading.sequence.tokens() - 64; });
      return attended;
    };
    for (int pass = 0; pass < 6; ++pass) reading.read(64);
    EXPECT_TRUE(one.chunk.empty() || selected() == one.chunk) << one.spec;
    reading.read(1);
    EXPECT_EQ(selected(), one.token) << one.spec;
  }
}

// DeepAuto-AI/hip-attention, src/hip_attn/v1_1/attention2_draft_causal_batch.py, masking_iteration_draft at
// fea42c77, changed to score each half by its middle, which is the default of attention2_draft_prefetch.py there
// (this older file uses the first block). 32 rows search for 32 of 256 blocks of two keys. Their window, which is
// not searched, counts from the last row; Fathom's counts from the first row.
TEST(ReferenceAttend, HipBlocks) {
  const TokenList expected[2] = {{24, 25, 27,  34,  35,  48,  49,  51,  52,  54,  55,  61,  64,  69,  70,  71,
                                  80, 81, 104, 106, 107, 111, 134, 136, 137, 138, 150, 167, 177, 191, 213, 226},
                                 {4,   11,  17,  28,  30,  31,  32,  37,  38,  57,  60,  61,  65,  72,  74,  87,
                                  125, 136, 137, 138, 139, 140, 142, 144, 145, 146, 147, 192, 193, 194, 217, 223}};
  FormulaReading reading(672, 16, "hip:budget=64,block=2,window=129,sink=0,dense_layers=0", 2);
  reading.read(640);
  reading.read(32);
  for (int h = 0; h < 2; ++h) {
    TokenList blocks;
    for (const int64_t t : reading.attended(h))
      if (t < 512 && t % 2 == 0) blocks.push_back(t / 2);
    EXPECT_EQ(blocks, expected[h]) << "head " << h;
    EXPECT_EQ(std::ssize(reading.attended(h)), 64 + 672 - 512);
  }
}

}  // namespace
}  // namespace fathom
