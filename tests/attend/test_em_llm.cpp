#include <gtest/gtest.h>

#include <cmath>

#include "attend/best_split.h"
#include "base/error.h"
#include "block_scene.h"
#include "seed.h"

namespace fathom {
namespace {

using test::BlockScene;
using test::SceneShape;

SceneShape event_shape(uint32_t seed, int64_t rows = 1) {
  SceneShape s;
  s.tokens = 2000;
  s.rows = rows;
  s.seed = seed;
  return s;
}

TEST(BestSplit, FindsTheBorderBetweenTwoPlantedEvents) {
  // Two groups of 40 vectors, each around a centre with noise 0.5: modularity finds the border in 199 of 200
  // trials.
  constexpr int kEach = 40, kDim = 16, kAll = 2 * kEach;
  int modularity = 0, conductance = 0, near = 0;
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(test::seed(seed));
    std::normal_distribution<float> normal;
    std::vector<float> centres(2 * kDim), items(kAll * kDim), similarity(kAll * kAll);
    for (float& c : centres) c = normal(random);
    for (int i = 0; i < kAll; ++i) {
      for (int d = 0; d < kDim; ++d) items[i * kDim + d] = centres[i / kEach * kDim + d] + 0.5f * normal(random);
    }
    for (int i = 0; i < kAll; ++i) {
      for (int j = 0; j < kAll; ++j) {
        for (int d = 0; d < kDim; ++d) similarity[i * kAll + j] += items[i * kDim + d] * items[j * kDim + d];
      }
    }
    const int64_t split = best_split(similarity, kAll, 1, kAll, SplitMeasure::kModularity);
    modularity += split == kEach;
    near += std::abs(split - kEach) <= 2;
    conductance += best_split(similarity, kAll, 1, kAll, SplitMeasure::kConductance) == kEach;
  }
  EXPECT_GE(modularity, 190);
  EXPECT_EQ(near, 200);
  EXPECT_GE(conductance, 150);
  RecordProperty("modularity", modularity);
  RecordProperty("conductance", conductance);
}

TEST(BestSplit, AgreesWithTheDefinitions) {
  // Two cliques with weights 1 and 2, connected by weights of 0.1; checked by hand with the definition of
  // modularity, the sum over each side of A − k·k/2m.
  constexpr int kAll = 5;
  std::vector<float> a(kAll * kAll, 0.1f);
  for (int i = 0; i < kAll; ++i) {
    for (int j = 0; j < kAll; ++j) {
      if ((i < 2) == (j < 2)) a[i * kAll + j] = i < 2 ? 1.0f : 2.0f;
    }
  }
  EXPECT_EQ(best_split(a, kAll, 1, kAll, SplitMeasure::kModularity), 2);
  EXPECT_EQ(best_split(a, kAll, 1, kAll, SplitMeasure::kConductance), 2);
  EXPECT_EQ(best_split(a, kAll, 3, kAll, SplitMeasure::kModularity), 3) << "the best allowed split";
  EXPECT_EQ(best_split(std::vector<float>(kAll * kAll, -1.0f), kAll, 1, 4, SplitMeasure::kModularity), 3)
      << "negative similarities define no graph";
}

TEST(EmLlm, EqualsInfLlmWithoutSurprisingTokens) {
  // 2 blocks of 128 tokens, and 1 to 128 tokens that belong to no block yet
  const std::string em = "em-llm:window=300,gamma=1e9,budget=" + std::to_string(2 * 128 + 65);
  for (uint32_t seed = 0; seed < 6; ++seed) {
    for (const int64_t rows : {1, 200}) {
      SceneShape s = event_shape(seed, rows);
      s.tokens += seed * 23;
      BlockScene test(s, "infllm:window=300,topk=2");
      test.read_before(512);
      const std::vector<float> expected = test.attended().out;
      test.restart(em);
      test.read_before(512);
      EXPECT_EQ(test.attended().out, expected) << "seed " << seed << " rows " << rows;
      test.restart(em);  // no surprisal of earlier tokens
      const std::vector<float> late = test.attended().out;
      test.restart("infllm:window=300,topk=2");
      EXPECT_EQ(late, test.attended().out);
    }
  }
}

TEST(EmLlm, EventsAreContiguousAndKeepTheirSizeLimits) {
  for (const char* spec :
       {"em-llm:window=300,gamma=1", "em-llm:window=300,gamma=-3", "em-llm:window=300,gamma=0,refine=modularity",
        "em-llm:window=300,gamma=0,refine=conductance,min=20,max=40,sink=5"}) {
    for (uint32_t seed = 0; seed < 5; ++seed) {
      BlockScene test(event_shape(seed), spec);
      test.read_before(200);
      test.attended();
      const bool small = std::string(spec).find("min=20") != std::string::npos;
      const int64_t least = small ? 20 : 8, most = small ? 40 : 128;
      int64_t next = small ? 5 : 128, shortest = most;
      for (const MemoryBlock& event : test.layer().blocks) {
        EXPECT_EQ(event.begin, next);
        EXPECT_GE(event.end - event.begin, least);
        EXPECT_LE(event.end - event.begin, most);
        shortest = std::min(shortest, event.end - event.begin);
        next = event.end;
      }
      EXPECT_LE(next, 1999 - 300);
      EXPECT_GT(next, 1999 - 300 - most);
      EXPECT_LT(shortest, most) << "some events end at a surprising token";
    }
  }
}

TEST(EmLlm, EventsBeginAtHighSurprisal) {
  BlockScene test(event_shape(3), "em-llm:window=300,sink=0");
  std::vector<int64_t> borders;
  std::ranges::fill(test.nats, 1.0f);
  for (int64_t t = 40; t < 1600; t += 17 + t % 60) {
    test.nats[t] = 30.0f + static_cast<float>(t % 5);
    borders.push_back(t);
  }
  test.nats[borders[3] + 5] = 30;  // less than `min` tokens after a border
  test.read_before(512);
  test.attended();
  const auto& events = test.layer().blocks;
  ASSERT_GT(events.size(), 25);
  for (size_t i = 0; i + 1 < events.size(); ++i) EXPECT_EQ(events[i].end, borders[i]) << i;
}

/// Keys around one centre per event of 50 tokens; the surprising token is up to 6 tokens after the event's
/// beginning.
struct EventScene {
  explicit EventScene(uint32_t seed, const std::string& spec) : test(event_shape(seed), spec) {
    test::Scene& scene = test.scene;
    const SceneShape& s = scene.shape;
    const auto width = static_cast<int64_t>(s.kv_heads) * s.key_dim;
    std::mt19937 random(test::seed(seed));
    std::normal_distribution<float> normal;
    std::vector<float> centre(width);
    std::ranges::fill(test.nats, 1.0f);
    for (int64_t t = 0; t < s.tokens; ++t) {
      if (t % 50 == 0) {
        for (float& c : centre) c = normal(random);
        if (t + 6 < s.tokens) test.nats[t + random() % 7] = 30;
      }
      for (int64_t d = 0; d < width; ++d) scene.keys[t * width + d] = centre[d] + 0.5f * scene.keys[t * width + d];
    }
    scene.read_again();
    test.read_before(512);
    test.attended();
  }
  double share_at_borders() const {
    double right = 0;
    const auto& events = test.layer().blocks;
    for (const MemoryBlock& event : events) right += event.end % 50 == 0;
    return right / static_cast<double>(events.size());
  }
  BlockScene test;
};

TEST(EmLlm, RefinementMovesBordersToWhereKeysChange) {
  double plain = 0, modularity = 0, conductance = 0;
  for (uint32_t seed = 0; seed < 5; ++seed) {
    plain += EventScene(seed, "em-llm:window=300,sink=0").share_at_borders() / 5;
    modularity += EventScene(seed, "em-llm:window=300,sink=0,refine=modularity").share_at_borders() / 5;
    conductance += EventScene(seed, "em-llm:window=300,sink=0,refine=conductance").share_at_borders() / 5;
  }
  EXPECT_LT(plain, 0.3);
  EXPECT_GT(modularity, 0.85);
  EXPECT_GT(conductance, 0.7);
  RecordProperty("shares",
                 std::to_string(plain) + " " + std::to_string(modularity) + " " + std::to_string(conductance));
}

TEST(EmLlm, ContiguitySelectsNeighbours) {
  int64_t long_ranges[2] = {};  // without and with contiguity
  for (const bool neighbours : {false, true}) {
    const std::string spec = neighbours ? "em-llm:window=300,gamma=1e9,budget=900,contiguity=0.5"
                                        : "em-llm:window=300,gamma=1e9,budget=450";
    int64_t tokens = 0;
    for (uint32_t seed = 0; seed < 40; ++seed) {
      BlockScene test(event_shape(seed), spec);
      test.attended();
      for (const TokenRange& range : test.layer().attended[0].ranges) {
        if (range.begin == 0 || range.end > test.scene.shape.tokens) continue;
        tokens += range.end - range.begin;
        if (range.end - range.begin > 128) ++long_ranges[neighbours];
      }
    }
    EXPECT_GT(tokens, 0);
  }
  EXPECT_GT(2 * long_ranges[true], 3 * long_ranges[false]) << long_ranges[true] << " and " << long_ranges[false];
}

std::string error_of(const std::string& spec) {
  try {
    attend_methods().make(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage) << spec;
    return error.what();
  }
  return "";
}

TEST(Blocks, InvalidSpecsAreRefused) {
  EXPECT_NE(error_of("em-llm:min=65").find("max"), std::string::npos);
  EXPECT_NE(error_of("em-llm:window=200").find("window"), std::string::npos);
  EXPECT_NE(error_of("em-llm:budget=0").find("budget"), std::string::npos);
  EXPECT_NE(error_of("em-llm:refine=yes").find("modularity"), std::string::npos);
  EXPECT_NE(error_of("infllm:topk=0").find("topk"), std::string::npos);
  EXPECT_NE(error_of("infllm:window=63").find("window"), std::string::npos);
  EXPECT_NE(error_of("infllm:positions=near").find("clamped"), std::string::npos);
  EXPECT_NE(error_of("actqkv:warmup=0").find("warmup"), std::string::npos);
  EXPECT_NE(error_of("actqkv:question_begin=9,question_end=5").find("question_end"), std::string::npos);
  EXPECT_EQ(error_of("infllm:topk=1,window=64,chunk=64,block=8,sink=0,representatives=1"), "");
}

}  // namespace
}  // namespace fathom
