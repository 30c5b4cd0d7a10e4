// Selectors of single tokens, chunks or clusters, which keep a state for each sequence.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <map>
#include <set>

#include "reading.h"
#include "scene.h"
#include "seed.h"

namespace fathom {
namespace {

using test::Reading;
using test::ReadingShape;

std::set<int64_t> as_set(const std::vector<int64_t>& tokens) { return {tokens.begin(), tokens.end()}; }

std::vector<int64_t> all_below(int64_t end) {
  std::vector<int64_t> tokens(end);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

/// Returns the indices of the k largest scores.
std::set<int64_t> largest(const std::vector<double>& scores, int64_t k) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), [&](int64_t i) { return scores[i]; });
  return {order.begin(), order.begin() + k};
}

TEST(TokenSelect, SelectsTheSinkTheWindowAndTheTokensWithMostVotes) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    ReadingShape shape;
    shape.seed = seed;
    Reading reading(shape, "tokenselect:budget=100,window=70,sink=10");
    reading.read(1499);
    reading.read(1);
    std::vector<double> votes(1430 - 10);
    for (int h = 0; h < 4; ++h) {
      std::vector<double> head = reading.scores(1499, h, 10, 1430);
      Reading::softmax(head);
      for (size_t i = 0; i < head.size(); ++i) votes[i] += head[i];
    }
    std::set<int64_t> expected;
    for (const int64_t t : largest(votes, 100)) expected.insert(t + 10);
    for (int64_t t = 0; t < 10; ++t) expected.insert(t);
    for (int64_t t = 1430; t < 1500; ++t) expected.insert(t);
    EXPECT_EQ(as_set(reading.attended(0)), expected);
    EXPECT_EQ(reading.attended(0), reading.attended(1)) << "heads of a layer differ";
  }
}

TEST(TokenSelect, EachChunkOfAPassHasItsOwnSelection) {
  Reading whole({}, "tokenselect:budget=64,window=200,sink=0,chunk=128");
  Reading parts({}, "tokenselect:budget=64,window=200,sink=0,chunk=128");
  whole.read(1024 + 128);
  for (int i = 0; i < 9; ++i) parts.read(128);
  // the selections of the whole pass are those of its first chunk, which attends to all tokens
  EXPECT_EQ(whole.attended(0), all_below(1152));
  const QueryBlock block{.layer = 0,
                         .head = 0,
                         .group = 2,
                         .first = 1024,
                         .rows = 128,
                         .state = whole.sequence.state(Sequence::StateOf::kSelector)};
  Selection selection;
  whole.selector->select(whole.sequence.kv(0).table(0), block, selection);
  ASSERT_EQ(selection.pages.size(), parts.selections[0].pages.size());
  int64_t attended = 0;
  for (size_t i = 0; i < selection.pages.size(); ++i) {
    EXPECT_EQ(selection.pages[i].entry, parts.selections[0].pages[i].entry);
    EXPECT_EQ(selection.pages[i].mask, parts.selections[0].pages[i].mask);
    attended += std::popcount(selection.pages[i].mask);
  }
  EXPECT_EQ(attended, 64 + 200);
}

TEST(TokenSelect, RowsAttendToTheirChunkEvenIfTheWindowIsShorter) {
  Reading reading({}, "tokenselect:budget=64,window=16,sink=0,chunk=128");
  for (int i = 0; i < 9; ++i) reading.read(128);
  const std::vector<int64_t> attended = reading.attended(0);
  EXPECT_EQ(attended.size(), 64u + 128);
  EXPECT_EQ(attended[64], 1024);
}

TEST(TokenSelect, SelectionsAreReusedOnlyForSimilarQueries) {
  for (const double theta : {0.9, 1.0}) {
    Reading reading({}, "tokenselect:budget=64,window=16,sink=0,theta=" + std::to_string(theta));
    reading.read(1000);
    // only slow rotary pairs: the same query at the next position is nearly unchanged
    for (int h = 0; h < 4; ++h) {
      for (int d = 0; d < 16; ++d) {
        for (int64_t t = 1000; t < 1004; ++t)
          reading.query(t, h)[d] = d < 10 ? 0 : static_cast<float>((d % 3 - 1) * (t == 1003 ? -1 : 1));
        if (d == 12) reading.query(1001, h)[d] += 0.3f;
      }
    }
    const auto selected = [&] {
      std::set<int64_t> tokens;
      for (const int64_t t : reading.attended(0))
        if (t < 980) tokens.insert(t);
      return tokens;
    };
    reading.read(1);
    const std::set<int64_t> first = selected();
    reading.read(1);
    EXPECT_EQ(selected() == first, theta < 1);
    reading.read(1);
    reading.read(1);  // the opposite query
    EXPECT_NE(selected(), first);
  }
}

TEST(TokenSelect, CompactedPagesKeepTheirOrderAndLeaveNoGaps) {
  Reading reading({}, "tokenselect:budget=100,window=70,sink=64,positions=compacted");
  reading.read(1999);
  reading.read(1);
  const PageTable& table = reading.sequence.kv(0).table(0);
  int64_t selected = 0, last = -1;
  for (const SelectedPage& page : reading.selections[0].pages) {
    const PageEntry& entry = table[page.entry];
    const int64_t newest = page.position + 63 - std::countl_zero(page.mask);
    EXPECT_GE(page.position, entry.position) << "farther away than the original position";
    EXPECT_GT(newest, last);
    last = newest;
    if (entry.first + entry.filled > 1930) {
      EXPECT_EQ(page.position, entry.position);
      continue;
    }
    selected += std::popcount(page.mask);
    // the last selected token of the page is just before the next selected token
    EXPECT_EQ(1930 - newest - 1, 64 + 100 - selected - (reading.attended(0).size() - 64 - 100 - 70));
  }
  EXPECT_EQ(reading.attended(0).size(), 64u + 100 + 70);
  EXPECT_EQ(reading.selections[0].pages[0].position, 1930 - 164) << "the sink is a whole page";
}

/// Returns the scores of a full step at the end of `tokens`: the maximum attention over the heads that share keys,
/// with max-pooling over neighbours.
std::vector<double> full_step_scores(Reading& reading, int kv_head, int64_t tokens) {
  std::vector<double> best(tokens), pooled(tokens);
  for (int h = kv_head * 2; h < kv_head * 2 + 2; ++h) {
    std::vector<double> row = reading.scores(tokens - 1, h, 0, tokens);
    Reading::softmax(row);
    for (int64_t t = 0; t < tokens; ++t) best[t] = std::max(best[t], row[t]);
  }
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t u = std::max<int64_t>(0, t - 3); u < std::min(tokens, t + 4); ++u)
      pooled[t] = std::max(pooled[t], best[u]);
  return pooled;
}

TEST(Recycled, StepsAttendToTheBestTokensOfTheLatestFullStep) {
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    ReadingShape shape;
    shape.seed = seed;
    Reading reading(shape, "recycled:budget=50,share=0,stride=4,cosine=1");
    reading.read(1200);
    EXPECT_EQ(reading.attended(0), all_below(1200)) << "a prompt is read in full";
    int64_t full = 1200;
    for (int step = 1; step <= 9; ++step) {
      reading.read(1);
      const int64_t end = 1200 + step;
      for (int head = 0; head < 2; ++head) {
        const std::vector<int64_t> attended = reading.attended(head);
        if (step % 4 == 0) {
          EXPECT_EQ(attended, all_below(end));
          continue;
        }
        EXPECT_EQ(attended.size(), 50u);
        const std::vector<double> pooled = full_step_scores(reading, head, full);
        // among equal scores (neighbours of one high score) any token may be selected
        std::vector<double> sorted = pooled;
        std::ranges::sort(sorted, std::greater());
        const double least = sorted[50 - (end - full) - 1];
        for (const int64_t t : attended) EXPECT_TRUE(t >= full || pooled[t] >= least * (1 - 1e-4)) << t;
        for (int64_t t = full; t < end; ++t) EXPECT_TRUE(std::ranges::binary_search(attended, t)) << "new: " << t;
      }
      if (step % 4 == 0) full = end;
    }
  }
}

TEST(Recycled, BlocksAreSelectedByTheirBestToken) {
  constexpr int64_t kPrompt = 1200, kBlock = 16, kBlocks = kPrompt / kBlock;
  Reading reading({}, "recycled:budget=161,share=0,cosine=-1,block=16");
  reading.read(kPrompt);
  reading.read(1);
  for (int head = 0; head < 2; ++head) {
    const std::vector<double> pooled = full_step_scores(reading, head, kPrompt);
    std::vector<double> best;
    for (int64_t b = 0; b < kBlocks; ++b)
      best.push_back(*std::max_element(pooled.begin() + b * kBlock, pooled.begin() + (b + 1) * kBlock));
    std::vector<double> sorted = best;
    std::ranges::sort(sorted, std::greater());
    std::map<int64_t, int64_t> attended;  // tokens by block
    for (const int64_t t : reading.attended(head))
      if (t < kPrompt) ++attended[t / kBlock];
    EXPECT_EQ(attended.size(), 160u / kBlock);
    for (const auto& [block, tokens] : attended) {
      EXPECT_EQ(tokens, kBlock) << block;
      EXPECT_GE(best[block], sorted[160 / kBlock - 1] * (1 - 1e-4)) << block;
    }
  }
}

TEST(Recycled, TheLowestScoresAreReplacedFirst) {
  constexpr int64_t kPrompt = 1000, kBudget = 170;
  Reading reading({}, "recycled:budget=170,share=0,cosine=-1");  // no further full step
  reading.read(kPrompt);
  std::vector<double> pooled[2] = {full_step_scores(reading, 0, kPrompt), full_step_scores(reading, 1, kPrompt)};
  for (int64_t step = 1; step <= kBudget + 3; ++step) {
    reading.read(1);
    for (int head = 0; head < 2; ++head) {
      const std::vector<int64_t> attended = reading.attended(head);
      EXPECT_EQ(std::ssize(attended), std::max(kBudget, step));
      std::vector<double> sorted = pooled[head];
      std::ranges::sort(sorted, std::greater());
      const double least = step < kBudget ? sorted[kBudget - step - 1] : 2;
      for (const int64_t t : attended) {
        const double score = t < kPrompt ? pooled[head][t] : 2;
        ASSERT_GE(score, least * (1 - 1e-4)) << t << " in step " << step;
      }
      for (int64_t t = kPrompt; t < kPrompt + step; ++t) ASSERT_TRUE(std::ranges::binary_search(attended, t)) << t;
    }
  }
}

TEST(Recycled, FullStepsArePostponedWhileQueriesAreSimilar) {
  Reading reading({}, "recycled:budget=64,share=0,stride=2,cosine=0.5");
  for (int64_t t = 999; t < 1008; ++t)
    for (int h = 0; h < 4; ++h)
      for (int d = 0; d < 16; ++d) reading.query(t, h)[d] = (t < 1004 ? 1.0f : -1.0f) * static_cast<float>(d % 5);
  reading.read(1000);
  std::vector<int64_t> full;
  for (int64_t t = 1000; t < 1008; ++t) {
    reading.read(1);
    if (reading.attended(0).size() > 64) full.push_back(t);
  }
  EXPECT_EQ(full, (std::vector<int64_t>{1005}));  // compared at 1001, 1003, 1005 (different) and 1007
}

TEST(Recycled, TheStepAfterARewindToBeforeTheFullStepIsFull) {
  Reading reading({}, "recycled:budget=64,share=0,stride=9,cosine=1");
  reading.read(1000);
  reading.read(1);
  reading.read(1);
  reading.remove_newest(1);
  reading.read(1);
  EXPECT_EQ(reading.attended(0).size(), 64u);
  reading.remove_newest(3);
  reading.read(1);
  EXPECT_EQ(reading.attended(0).size(), 1000u);
}

TEST(Hip, SearchesAreReusedForRefreshSteps) {
  Reading reading({}, "hip:budget=64,window=32,sink=4,dense_layers=0,refresh=3");
  reading.read(1000);
  std::set<int64_t> found;
  int64_t searched = 0;  // length of the sequence at the latest search
  for (int step = 0; step < 6; ++step) {
    if (step == 5) reading.remove_newest(2);  // to before the latest search: the next step searches
    reading.read(1);
    const int64_t end = reading.sequence.tokens();
    std::set<int64_t> attended = as_set(reading.attended(1));
    for (int64_t t = end - 32; t < end; ++t) EXPECT_TRUE(attended.erase(t)) << "newest: " << t;
    if (step % 3 == 0 || step == 5) {
      searched = end, found = attended;
      EXPECT_LE(std::ssize(attended), 64 + 4 + 2);
      continue;
    }
    for (int64_t t = searched - 32; t < end - 32; ++t) EXPECT_TRUE(attended.erase(t)) << "since the search: " << t;
    EXPECT_EQ(attended, found);
  }
}

TEST(ShadowKv, SelectsOutliersTheNewestTokensAndTheMatchingChunk) {
  Reading reading({}, "shadowkv:budget=64,outliers=5");
  for (float& x : reading.keys) x *= 0.1f;
  const auto set_chunk = [&](int64_t chunk,
                             float sign) {  // one direction in all keys of the chunk, or two opposite ones
    for (int64_t t = chunk * 8; t < chunk * 8 + 8; ++t)
      for (int d = 0; d < 16; ++d) reading.key(t, 0)[d] += d >= 14 ? 5 * (t % 2 ? sign : 1.0f) : 0;
  };
  set_chunk(77, 1);
  set_chunk(30, -1);
  for (int h = 0; h < 2; ++h)
    for (int d = 0; d < 16; ++d) reading.query(1500, h)[d] = d >= 14 ? 3 : 0;
  reading.read(1500);
  EXPECT_EQ(reading.attended(0), all_below(1500));
  reading.read(1);
  const std::set<int64_t> attended = as_set(reading.attended(0));
  for (int64_t t = 0; t < 8; ++t) EXPECT_TRUE(attended.contains(77 * 8 + t));
  const int64_t exact = 1500 / 64 * 64 - 64 + (1500 - 32 >= 1500 / 64 * 64 ? 64 : 0);
  for (int64_t t = exact; t < 1501; ++t) EXPECT_TRUE(attended.contains(t)) << t;
  EXPECT_EQ(std::ssize(attended), 64 + 5 * 8 + 1501 - exact);
}

TEST(ShadowKv, ChunksOfOtherSizesAreSelectedWhole) {
  for (const int64_t chunk : {16, 32, 64}) {
    Reading reading({}, "shadowkv:budget=128,outliers=1,block=" + std::to_string(chunk));
    reading.read(1500);
    reading.read(1);
    const std::vector<int64_t> attended = reading.attended(0);
    const std::set<int64_t> all = as_set(attended);
    // Tokens from the first page that holds one of the newest chunks are exact.
    const int64_t exact = (1500 - 4 * chunk) / 64 * 64;
    int64_t selected = 0;
    for (int64_t first = 0; first < exact; first += chunk) {
      int64_t here = 0;
      for (int64_t t = first; t < first + chunk; ++t) here += all.contains(t) ? 1 : 0;
      EXPECT_TRUE(here == 0 || here == chunk) << "chunk of " << chunk << " at " << first;
      selected += here;
    }
    EXPECT_EQ(selected, 128 + chunk) << "the budget and one outlier";
    EXPECT_EQ(std::ssize(attended) - selected, 1501 - exact);
  }
}

TEST(ShadowKv, AStateCreatedLateTreatsEarlierTokensAsThePrompt) {
  Reading reading({}, "shadowkv:budget=64,outliers=0");
  reading.read(1000);
  reading.sequence.set_state(Sequence::StateOf::kSelector, reading.selector->new_state());
  reading.read(1);
  EXPECT_LT(reading.attended(0).size(), 64u + 100);
  const auto before = reading.attended(1);
  for (int i = 0; i < 5; ++i) reading.read(1);
  for (int64_t t = 1000; t < 1006; ++t) EXPECT_TRUE(std::ranges::binary_search(reading.attended(0), t));
  EXPECT_EQ(before.back(), 1000);
}

TEST(ShadowKv, OutliersAreTheChunksLeastSimilarToTheirMean) {
  Reading reading({}, "shadowkv:budget=8,outliers=1");
  for (int64_t t = 0; t < 2000; ++t)  // neighbours are similar, except in one chunk
    for (int d = 0; d < 16; ++d)
      reading.key(t, 0)[d] =
          (t / 8 == 40 && t % 2 ? -1.0f : 1.0f) * reading.key(t / 8 * 8, 0)[d] * (d < 10 ? 0 : 1);
  reading.read(1500);
  reading.read(1);
  const std::set<int64_t> attended = as_set(reading.attended(0));
  for (int64_t t = 320; t < 328; ++t) EXPECT_TRUE(attended.contains(t));
}

TEST(Squeezed, KeepsTheAttentionOfTopicsWithATenthOfTheKeys) {
  ReadingShape shape;
  shape.heads = shape.kv_heads = 1;
  shape.dim = 32;
  shape.rotary_dim = 0;
  shape.tokens = 2300;
  double held = 0, possible = 0, random = 0;
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    shape.seed = seed;
    Reading reading(shape, "squeezed:pruned=0.9,min_context=1024,iterations=20");
    for (int64_t t = 64; t < shape.tokens; ++t)  // 64 topics; each query is near one
      for (int d = 0; d < 32; ++d) {
        reading.key(t, 0)[d] = reading.key(t % 64, 0)[d] + 0.3f * reading.key(t, 0)[d];
        reading.query(t, 0)[d] = 1.5f * reading.key(t % 61, 0)[d] + 0.5f * reading.query(t, 0)[d];
      }
    reading.read(2148);
    EXPECT_EQ(reading.attended(0), all_below(2148));
    for (int64_t step = 0; step < 8; ++step) {
      reading.read(1);
      std::vector<double> mass = reading.scores(2148 + step, 0, 0, 2048);
      Reading::softmax(mass);
      const std::vector<int64_t> attended = reading.attended(0);
      int64_t keys = 0;
      for (const int64_t t : attended) {
        if (t < 2048) held += mass[t], ++keys;
      }
      EXPECT_EQ(std::ranges::lower_bound(attended, 2048) - attended.begin(), keys);
      EXPECT_EQ(attended.back(), 2148 + step);
      EXPECT_EQ(std::ssize(attended) - keys, 2149 + step - 2048) << "not all of the newest tokens";
      random += static_cast<double>(keys) / 2048;
      std::ranges::sort(mass, std::greater());
      possible += std::accumulate(mass.begin(), mass.begin() + keys, 0.0);
    }
  }
  EXPECT_LT(random / 24, 0.2);
  EXPECT_GT(held, 0.9 * possible);
  EXPECT_GT(held, 3 * random);
}

/// Two layers that are read one after the other, as in a model. The keys of each are around 64 topics, in different
/// orders.
struct TwoLayers {
  static constexpr int kDim = 32;
  static constexpr int64_t kPrompt = 2148;

  TwoLayers()
      : sequence(test::identical_layers(layer(), 2)),
        selector(attend_methods().make("squeezed:pruned=0.9,min_context=1024,iterations=20")) {
    selector->attach(AttendContext::uniform(2, AttendLayer{1, 1, {PageFormat::kF32, kDim, kDim}}));
    sequence.set_state(Sequence::StateOf::kSelector, selector->new_state());
    std::mt19937 random(test::seed(5));
    std::normal_distribution<float> normal;
    std::vector<float> topics(64 * kDim);
    for (float& x : topics) x = normal(random);
    for (int l = 0; l < 2; ++l) {
      for (int64_t t = 0; t < kPrompt + 1; ++t) {
        const int64_t topic = l == 0 ? t % 64 : t / 7 % 64, query_topic = t % 61;
        for (int d = 0; d < kDim; ++d) {
          keys[l].push_back(topics[topic * kDim + d] + 0.3f * normal(random));
          queries[l].push_back(1.5f * topics[query_topic * kDim + d] + 0.5f * normal(random));
        }
      }
    }
  }
  static PagedKvConfig layer() {
    static const Rotary none({}, 4096);
    PagedKvConfig config;
    config.store = std::make_shared<PageStore>(PageShape{PageFormat::kF32, kDim, kDim});
    config.rotations = std::make_shared<PositionRotations>(none);
    return config;
  }

  /// Reads tokens and returns the selection of the last one in each layer.
  std::array<Selection, 2> read(int64_t rows) {
    const int64_t first = sequence.tokens();
    std::vector<int64_t> positions(rows);
    std::iota(positions.begin(), positions.end(), first);
    sequence.open(positions);
    std::array<Selection, 2> selections;
    for (int l = 0; l < 2; ++l) {
      sequence.kv(l).write(kernels(), 0, rows, &keys[l][first * kDim], kDim, &keys[l][first * kDim], kDim);
      LayerQueries layer;
      layer.sequence = &sequence;
      layer.kv = &sequence.kv(l);
      layer.layer = l;
      layer.heads = 1;
      layer.first = first;
      layer.rows = rows;
      layer.positions = positions.data();
      layer.queries = &queries[l][first * kDim];
      layer.stride = kDim;
      layer.scale = kScale;
      layer.kernels = &kernels();
      layer.state = sequence.state(Sequence::StateOf::kSelector);
      selector->plan(layer, pool);
      QueryBlock block;
      block.layer = l;
      block.first = first + rows - 1;
      block.rows = 1;
      block.kv = &sequence.kv(l);
      block.kernels = &kernels();
      block.state = layer.state;
      selector->select(sequence.kv(l).table(0), block, selections[l]);
    }
    sequence.commit();
    return selections;
  }

  static constexpr float kScale = 0.17f;
  Sequence sequence;
  std::unique_ptr<Selector> selector;
  ThreadPool pool{1};
  std::vector<float> keys[2], queries[2];
};

TEST(Squeezed, EachLayerHasClustersOfItsOwnKeys) {
  TwoLayers test;
  test.read(TwoLayers::kPrompt);
  const std::array<Selection, 2> selections = test.read(1);  // the first layer makes the clusters of both
  for (int l = 0; l < 2; ++l) {
    std::vector<double> mass;
    const float* query = &test.queries[l][TwoLayers::kPrompt * TwoLayers::kDim];
    for (int64_t t = 0; t < 2048; ++t)
      mass.push_back(TwoLayers::kScale *
                     std::inner_product(query, query + TwoLayers::kDim, &test.keys[l][t * TwoLayers::kDim], 0.0));
    Reading::softmax(mass);
    double held = 0;
    int64_t attended = 0;
    for (const SelectedPage& page : selections[l].pages) {
      for (int t = 0; t < kPageTokens; ++t) {
        const int64_t token = test.sequence.kv(l).table(0)[page.entry].first + t;
        if (token < 2048 && page.mask >> t & 1) held += mass[token], ++attended;
      }
    }
    std::ranges::sort(mass, std::greater());
    EXPECT_LT(attended, 2048 / 3) << "layer " << l;
    EXPECT_GT(held, 0.9 * std::accumulate(mass.begin(), mass.begin() + attended, 0.0)) << "layer " << l;
  }
}

TEST(Squeezed, LongTextsGetClustersAndRewindsRemoveThem) {
  Reading reading({}, "squeezed:pruned=0.8,min_context=500,iterations=3");
  reading.read(400);
  reading.read(1);
  EXPECT_EQ(reading.attended(0).size(), 401u);
  reading.read(200);
  EXPECT_EQ(reading.attended(0).size(), 601u) << "the text before this pass is too short";
  reading.read(1);
  const auto count = std::ssize(reading.attended(0)) + std::ssize(reading.attended(1));
  EXPECT_LT(count, 2 * 0.8 * 602);
  EXPECT_GT(count, 2 * 102);
  reading.remove_newest(2);
  reading.remove_newest(110);
  reading.read(1);
  EXPECT_EQ(reading.attended(0).size(), 491u);
}

TEST(Squeezed, AStateCreatedLateUsesTheQueriesOfTheCurrentPass) {
  Reading reading({}, "squeezed:pruned=0.8,min_context=500,iterations=3");
  reading.read(1500);
  reading.sequence.set_state(Sequence::StateOf::kSelector, reading.selector->new_state());
  reading.read(7);
  EXPECT_LT(reading.attended(0).size() + reading.attended(1).size(), 2 * 0.45 * 1500);
  EXPECT_TRUE(std::ranges::binary_search(reading.attended(0), 1450));
}

TEST(TempScale, DividesScores) {
  test::SceneShape shape;
  shape.tokens = 300;
  const test::Scene scene(shape);
  test::Scene sharper(shape);
  for (float& x : sharper.queries) x *= 2;
  ThreadPool pool(1);
  const auto method = attend_methods().make("tempscale:tau=0.5");
  test::expect_equal(test::attend(scene, *method, pool),
                     test::PlainAttention(sharper, test::dense_visibility()).result());
  EXPECT_EQ(test::attend(scene, *attend_methods().make("tempscale:tau=1,then=(window:window=50)"), pool).out,
            test::attend(scene, *attend_methods().make("window:window=50"), pool).out);
}

TEST(TokenSelectors, SelectAllTokensWithoutAState) {
  test::SceneShape shape;
  shape.tokens = 700;
  const test::Scene scene(shape);
  ThreadPool pool(1);
  const auto dense = test::attend(scene, *attend_methods().make("dense"), pool).out;
  for (const char* spec : {"tokenselect:budget=8,window=8,sink=0", "recycled:budget=8", "shadowkv:budget=8",
                           "squeezed:min_context=101", "tempscale:tau=1"}) {
    const auto method = attend_methods().make(spec);
    method->attach(scene.context());
    EXPECT_EQ(test::attend(scene, *method, pool).out, dense) << spec;
  }
}

TEST(TokenSelectors, RefuseInvalidParameters) {
  for (const char* spec :
       {"tokenselect:budget=0", "tokenselect:pool=2", "tokenselect:theta=2", "recycled:share=0",
        "recycled:stride=0", "recycled:block=24", "shadowkv:budget=7", "shadowkv:block=12", "shadowkv:block=4",
        "squeezed:pruned=1.1", "squeezed:min_context=100", "tempscale:tau=0", "tempscale:then=nothing"}) {
    try {
      attend_methods().make(spec);
      ADD_FAILURE() << spec;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kUsage) << spec;
    }
  }
}

TEST(TokenSelectors, ResultsDoNotDependOnTheNumberOfThreads) {
  for (const char* spec :
       {"tokenselect:budget=50,window=20", "recycled:budget=50", "recycled:budget=50,block=16",
        "shadowkv:budget=64", "shadowkv:budget=64,outliers=2,block=32", "squeezed:min_context=500,iterations=3"}) {
    std::vector<std::vector<int64_t>> attended;
    for (const int threads : {1, 3}) {
      Reading reading({}, spec);
      reading.use_threads(threads);
      reading.read(900);
      reading.read(1);
      reading.read(1);
      attended.push_back(reading.attended(0));
    }
    EXPECT_EQ(attended[0], attended[1]) << spec;
    EXPECT_LT(attended[0].size(), 902u) << spec;
  }
}

}  // namespace
}  // namespace fathom
