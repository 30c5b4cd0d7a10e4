#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <set>

#include "attend/methods.h"
#include "attend/methods/window.h"
#include "base/error.h"
#include "scene.h"
#include "seed.h"

namespace fathom {
namespace {

using test::Scene;
using test::SceneShape;
using test::Visibility;

std::unique_ptr<Selector> selector(const std::string& spec) { return attend_methods().make(spec); }

/// Returns a selector that is attached to the scene's context.
std::unique_ptr<Selector> selector(const std::string& spec, const Scene& scene, int layers = 1) {
  auto made = selector(spec);
  made->attach(scene.context(layers));
  return made;
}

/// Returns the shape of a scene of random length, with gaps and masked tokens.
SceneShape random_shape(std::mt19937& random) {
  SceneShape s;
  s.key_dim = s.value_dim = s.rotary_dim = 2;
  s.tokens = 1 + random() % 500;
  s.rows = 1 + random() % std::min<int64_t>(s.tokens, 150);
  s.gaps = random() % 2 ? 0.02 : 0;
  s.masked = random() % 2 ? 0.2 : 0;
  s.position = random() % 2 ? 0 : random() % 1000;
  s.seed = random();
  return s;
}

/// Selects for a block of a scene's rows and expects that exactly the (row, token) pairs of `visibility` are
/// selected.
void expect_pairs(const Scene& scene, const Selector& selector, const Visibility& visibility, int64_t begin_row,
                  int rows) {
  for (int head = 0; head < scene.shape.kv_heads; ++head) {
    const PageTable& table = scene.sequence.kv(0).table(head);
    QueryBlock block;
    block.head = head;
    block.group = scene.group();
    block.first = scene.first_row() + begin_row;
    block.rows = rows;
    block.positions = scene.positions.data() + block.first;
    Selection selection;
    selector.select(table, block, selection);

    std::vector<char> visible(rows * scene.shape.tokens, 0);
    std::set<uint32_t> entries;
    for (const SelectedPage& page : selection.pages) {
      ASSERT_LT(page.entry, table.size());
      ASSERT_TRUE(entries.insert(page.entry).second) << "page " << page.entry << " twice";
      ASSERT_EQ(page.position, table[page.entry].position);
      for (int r = 0; r < rows; ++r) {
        const uint64_t mask =
            page.row_masks < 0 ? page.mask : page.mask & selection.row_masks.at(page.row_masks + r);
        for (int o = 0; o < kPageTokens; ++o) {
          const int64_t token = table[page.entry].first + o;
          if (mask >> o & 1 && token <= block.first + r) visible.at(r * scene.shape.tokens + token) = 1;
        }
      }
    }
    for (int r = 0; r < rows; ++r) {
      for (int64_t t = 0; t < scene.shape.tokens; ++t) {
        const int64_t query = block.first + r;
        const bool expected = t <= query && !scene.is_masked(t, head) && visibility(query, t);
        ASSERT_EQ(visible[r * scene.shape.tokens + t] != 0, expected)
            << "query " << query << " token " << t << " head " << head;
      }
    }
  }
}

TEST(Selectors, DenseSelectsEveryTokenThatIsNotMasked) {
  std::mt19937 random(test::seed(1));
  const auto dense = selector("dense");
  for (int n = 0; n < 30; ++n) {
    const Scene scene(random_shape(random));
    const int64_t begin = random() % scene.shape.rows;
    const int rows = 1 + random() % (scene.shape.rows - begin);
    ASSERT_NO_FATAL_FAILURE(expect_pairs(scene, *dense, test::dense_visibility(), begin, rows));
  }
}

TEST(Selectors, WindowSelectsTheSinkAndTheNewestTokens) {
  std::mt19937 random(test::seed(1));
  const int64_t edges[] = {0, 1, 2, 63, 64, 65, 128, 1000};
  for (int n = 0; n < 120; ++n) {
    const Scene scene(random_shape(random));
    const int64_t sink = random() % 2 ? edges[random() % 8] : random() % 150;
    const int64_t size = std::max<int64_t>(1, random() % 2 ? edges[random() % 8] : random() % 300);
    const int64_t begin = random() % scene.shape.rows;
    const int rows = 1 + random() % (scene.shape.rows - begin);
    SCOPED_TRACE(testing::Message() << "sink " << sink << " size " << size << " tokens " << scene.shape.tokens
                                    << " rows " << begin << "+" << rows);
    const auto window = selector("window:sink=" + std::to_string(sink) + ",window=" + std::to_string(size));
    ASSERT_NO_FATAL_FAILURE(expect_pairs(scene, *window, test::window_visibility(sink, size), begin, rows));
  }
}

TEST(Selectors, WindowSkipsPagesThatNoRowAttendsTo) {
  SceneShape s;
  s.tokens = 6400;
  s.rows = 1;
  s.key_dim = s.value_dim = s.rotary_dim = 2;
  const Scene scene(s);
  QueryBlock block;
  block.first = 6399;
  block.rows = 1;
  Selection selection;
  selector("window:sink=4,window=128")->select(scene.sequence.kv(0).table(0), block, selection);
  EXPECT_EQ(selection.pages.size(), 3);  // the page of the sink and two of the window
}

TEST(Selectors, TheWindowIncludesTheQueryItself) {
  SceneShape s;
  s.key_dim = s.value_dim = s.rotary_dim = 2;
  s.tokens = s.rows = 100;
  const Scene scene(s);
  for (const int64_t size : {1, 2, 64, 99, 100, 5000}) {
    ASSERT_NO_FATAL_FAILURE(
        expect_pairs(scene, *make_window(0, size), test::window_visibility(0, size), 0, static_cast<int>(s.rows)));
  }
}

/// Returns the attention outputs of a scene with a method.
std::vector<float> attended(const Scene& scene, const Selector& method) {
  ThreadPool pool(1);
  const Scene* scenes[] = {&scene};
  return test::attend(scenes, method, pool)[0].out;
}

SceneShape long_shape(uint32_t seed) {
  SceneShape s;
  s.tokens = 1500;
  s.rows = 1 + seed % 200;
  s.gaps = seed % 2 ? 0.01 : 0;
  s.masked = seed % 3 ? 0 : 0.1;
  s.seed = seed;
  return s;
}

TEST(Selectors, ABudgetOfTheWholeSequenceGivesTheBitsOfDense) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    const Scene scene(long_shape(seed));
    const std::vector<float> dense = attended(scene, *selector("dense"));
    for (const std::string spec :
         {"quest:budget=100k,dense_layers=0", "quest:budget=64,share=1,dense_layers=0",
          "quest:budget=64,dense_layers=1", "quest:budget=100k,dense_layers=0,block=64",
          "hip:budget=100k,dense_layers=0", "hip:dense_layers=1", "lm-infinite:window=100k",
          "layers:full=0,else=(window:window=1)", "layers:full=,else=(window:window=100k)"}) {
      EXPECT_EQ(attended(scene, *selector(spec, scene)), dense) << spec << " seed " << seed;
    }
  }
}

TEST(Selectors, QuestFindsTheBlockOfTheOnlyRelevantKey) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SceneShape shape = long_shape(2 * seed);
    shape.rows = 1;
    shape.masked = 0;
    Scene scene(shape);
    const int64_t target = 64 + seed * 60;
    float* key = scene.keys.data() + target * shape.kv_heads * shape.key_dim;  // the first head's
    for (float& x : scene.keys) x *= 0.02f;
    for (int d = 0; d < shape.key_dim; ++d) key[d] *= 50;
    scene.read_again();
    std::vector<float> query, spare(shape.key_dim);
    const PositionRotations::View rotation = scene.rotations->at(scene.positions[target], spare.data());
    for (int h = 0; h < scene.group(); ++h) {
      query.insert(query.end(), key, key + shape.key_dim);
      kernels().rotate_pairs(query.data() + h * shape.key_dim, rotation.cos, rotation.sin,
                             scene.rotations->pairs());
    }
    QueryBlock block;
    block.group = scene.group();
    block.first = shape.tokens - 1;
    block.rows = 1;
    block.positions = scene.positions.data() + block.first;
    block.queries = query.data();
    block.kv = &scene.sequence.kv(0);
    block.kernels = &kernels();
    const PageTable& table = scene.sequence.kv(0).table(0);
    for (const char* spec :
         {"quest:budget=192,window=1,dense_layers=0,block=64", "quest:budget=192,window=1,dense_layers=0,block=32",
          "quest:budget=192,window=1,dense_layers=0"}) {
      Selection selection;
      selector(spec, scene)->select(table, block, selection);
      int64_t selected = 0;
      bool found = false;
      for (const SelectedPage& page : selection.pages) {
        const PageEntry& entry = table[page.entry];
        selected += std::popcount(page.mask);
        found = found || (page.mask & page_bits(target - entry.first, target + 1 - entry.first)) != 0;
      }
      EXPECT_TRUE(found) << spec << " seed " << seed;
      EXPECT_LE(selected, 192) << spec;
    }
  }
}

/// The softmax probability that the last query gives to the tokens that a method selects, and to the same number of
/// best tokens.
struct SelectedMass {
  double held, best;
  int64_t keys;
};
SelectedMass mass_of(const Scene& scene, const std::string& spec) {
  const SceneShape& s = scene.shape;
  QueryBlock block;
  block.first = s.tokens - 1;
  block.rows = 1;
  block.positions = scene.positions.data() + block.first;
  std::vector<float> query(scene.queries.end() - s.key_dim, scene.queries.end());
  for (float& x : query) x *= scene.scale();
  block.queries = query.data();
  block.kv = &scene.sequence.kv(0);
  block.kernels = &kernels();
  Selection selection;
  const PageTable& table = scene.sequence.kv(0).table(0);
  selector(spec, scene)->select(table, block, selection);
  std::vector<double> weights(s.tokens);
  double sum = 0;
  for (int64_t t = 0; t < s.tokens; ++t) {
    double score = 0;
    for (int d = 0; d < s.key_dim; ++d) score += static_cast<double>(query[d]) * scene.keys[t * s.key_dim + d];
    sum += weights[t] = std::exp(score);
  }
  SelectedMass mass{0, 0, 0};
  for (const SelectedPage& page : selection.pages) {
    for (int o = 0; o < kPageTokens; ++o) {
      if (!(page.mask >> o & 1)) continue;
      mass.held += weights[table[page.entry].first + o] / sum;
      ++mass.keys;
    }
  }
  std::ranges::sort(weights, std::greater());
  for (int64_t i = 0; i < mass.keys; ++i) mass.best += weights[i] / sum;
  return mass;
}

/// Returns a scene without rotary positions whose keys change slowly, k ← ρ·k + noise, so that neighbours are
/// similar.
Scene drifting_scene(double rho, uint32_t seed) {
  SceneShape shape;
  shape.heads = shape.kv_heads = 1;
  shape.key_dim = 64;
  shape.value_dim = 2;
  shape.rotary_dim = 0;
  shape.tokens = 8192;
  shape.rows = 1;
  shape.seed = seed;
  Scene scene(shape);
  const auto noise = static_cast<float>(std::sqrt(1 - rho * rho));
  for (int64_t i = shape.key_dim; i < std::ssize(scene.keys); ++i)
    scene.keys[i] = static_cast<float>(rho) * scene.keys[i - shape.key_dim] + noise * scene.keys[i];
  scene.read_again();
  return scene;
}

TEST(Selectors, HipFindsNearlyTheBestKeysIfNeighboursAreSimilar) {
  double held = 0, best = 0, window = 0, independent = 0, independent_best = 0;
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    const char* spec = "hip:budget=512,window=64,sink=4,dense_layers=0";
    const SelectedMass mass = mass_of(drifting_scene(0.98, seed), spec);
    EXPECT_LE(mass.keys, 512 + 64 + 4 + 2);
    held += mass.held, best += mass.best;
    window += mass_of(drifting_scene(0.98, seed), "window:sink=4,window=576").held;
    const SelectedMass random = mass_of(drifting_scene(0, seed), spec);
    independent += random.held, independent_best += random.best;
  }
  EXPECT_GT(held, 0.85 * best);
  EXPECT_GT(held, 3 * window);
  EXPECT_LT(independent, 0.6 * independent_best);  // the method depends on similar neighbours
}

/// Expects equal outputs with page metadata from earlier passes and without it. Returns the outputs.
std::vector<float> attended_with_metadata(Scene& scene, const Selector& method,
                                          std::unique_ptr<SequenceState>& metadata) {
  constexpr auto kOwner = Sequence::StateOf::kSelector;
  const std::vector<float> without = attended(scene, method);
  scene.sequence.set_state(kOwner, std::move(metadata));
  const std::vector<float> with = attended(scene, method);
  EXPECT_EQ(with, without);
  metadata = scene.sequence.state(kOwner)->fork();
  scene.sequence.set_state(kOwner, nullptr);
  return with;
}

TEST(Selectors, MetadataOfRewrittenPagesIsUpdated) {
  SceneShape shape = long_shape(2);
  shape.rows = 1;
  Scene scene(shape);
  const auto quest = selector("quest:budget=256,window=1,dense_layers=0", scene);
  std::unique_ptr<SequenceState> metadata = quest->new_state();
  const std::vector<float> before = attended_with_metadata(scene, *quest, metadata);
  // The pages now hold other keys: the old metadata must not be used.
  std::ranges::reverse(scene.keys);
  scene.read_again();
  EXPECT_NE(attended_with_metadata(scene, *quest, metadata), before);
}

TEST(Selectors, MetadataOfAMovedSequenceIsUpdated) {
  SceneShape shape = long_shape(2);
  shape.rows = 1;
  Scene scene(shape);
  const auto quest = selector("quest:budget=256,window=1,dense_layers=0", scene);
  std::unique_ptr<SequenceState> metadata = quest->new_state();
  attended_with_metadata(scene, *quest, metadata);
  scene.sequence.move_to(777);
  for (int64_t& position : scene.positions) position += 777;
  scene.rotations->reserve(scene.sequence.end_position());
  attended_with_metadata(scene, *quest, metadata);
}

TEST(Selectors, CapabilitiesMatchTheMethods) {
  for (const auto& entry : attend_methods().entries()) {
    const auto method = attend_methods().make(entry.info.name);
    AttendContext context = AttendContext::uniform(3, AttendLayer{2, 1, {PageFormat::kF32, 16, 16}});
    context.softplus = true;
    context.landmarks.tokens = kMaxLandmarkTokens;
    method->attach(context);
    const auto state = method->new_state();
    const Capabilities& capabilities = entry.info.capabilities;
    EXPECT_EQ(capabilities.works_with_compacted, !state || !state->stores_positions()) << entry.info.name;
    EXPECT_EQ(capabilities.reads_surprisal, method->needs_surprisal()) << entry.info.name;
  }
}

TEST(Selectors, WrappersHaveTheCapabilitiesOfTheirSelectors) {
  const Capabilities wrapped = attend_methods().capabilities("layers:then=quest,else=(tempscale:then=em-llm)");
  EXPECT_TRUE(wrapped.reads_surprisal);
  EXPECT_TRUE(wrapped.needs_host_pages);
  EXPECT_FALSE(wrapped.works_with_compacted);
  EXPECT_TRUE(attend_methods().capabilities("layers:then=quest").works_with_compacted);
  EXPECT_FALSE(attend_methods().capabilities("layers:then=landmark,else=dense").works_with_landmarks);
}

TEST(Selectors, RefuseTheStateOfAnotherMethod) {
  SceneShape shape = long_shape(2);
  shape.rows = 1;
  Scene scene(shape);
  const auto quest = selector("quest:dense_layers=0", scene), infllm = selector("infllm", scene);
  scene.sequence.set_state(Sequence::StateOf::kSelector, infllm->new_state());
  ThreadPool pool(1);
  EXPECT_THROW(test::attend(scene, *quest, pool), Error);
}

TEST(Selectors, LmInfiniteKeepsTheFirstTokensWithinTheLimit) {
  for (const auto& [sink, size, limit] :
       {std::array<int64_t, 3>{10, 200, 200}, {70, 300, 150}, {100, 64, 400}, {4, 1000, 1000}}) {
    for (const int rows : {1, 7, 130}) {
      SceneShape shape = long_shape(4);
      shape.rows = rows;
      const Scene scene(shape);
      const auto method = selector("lm-infinite:sink=" + std::to_string(sink) + ",window=" + std::to_string(size) +
                                       ",limit=" + std::to_string(limit),
                                   scene);
      QueryBlock block;
      block.first = scene.first_row();
      block.rows = rows;
      block.positions = scene.positions.data() + block.first;
      Selection selection;
      const PageTable& table = scene.sequence.kv(0).table(0);
      method->select(table, block, selection);
      std::vector<int> times(rows * shape.tokens, 0);
      for (const SelectedPage& page : selection.pages) {
        for (int r = 0; r < rows; ++r) {
          const uint64_t mask =
              page.row_masks < 0 ? page.mask : page.mask & selection.row_masks[page.row_masks + r];
          for (int o = 0; o < kPageTokens; ++o) {
            const int64_t token = table[page.entry].first + o, query = block.first + r;
            if (!(mask >> o & 1) || token > query) continue;
            ++times[r * shape.tokens + token];
            const int64_t distance = block.positions[r] - (page.position + o);
            const int64_t true_distance = block.positions[r] - scene.positions[token];
            EXPECT_LE(distance, true_distance);
            EXPECT_LE(distance, token < sink ? limit : true_distance);
            EXPECT_GE(distance, token < sink ? std::min(limit - rows - sink, true_distance) : true_distance);
          }
        }
      }
      for (int r = 0; r < rows; ++r) {
        for (int64_t t = 0; t <= block.first + r; ++t) {
          EXPECT_EQ(times[r * shape.tokens + t], t < sink || t > block.first + r - size)
              << "token " << t << " row " << r;
        }
      }
    }
  }
}

std::string selector_error(const std::string& spec) {
  try {
    selector(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage) << spec;
    return error.what();
  }
  return "";
}

TEST(AttendMethods, ErrorsSuggestTheNearestName) {
  EXPECT_NE(selector_error("windw").find("window"), std::string::npos);
  EXPECT_NE(selector_error("dens").find("dense"), std::string::npos);
  EXPECT_NE(selector_error("window:windoww=4").find("did you mean window"), std::string::npos);
  EXPECT_NE(selector_error("dense:size=4"), "");
  EXPECT_NE(selector_error("quest:budget=0").find("budget"), std::string::npos);
  EXPECT_NE(selector_error("quest:block=24").find("16, 32 or 64"), std::string::npos);
  EXPECT_NE(selector_error("quest:block=8").find("block"), std::string::npos);
  EXPECT_NE(selector_error("layers:else=(windw:size=4)").find("window"), std::string::npos);
  const Scene scene(long_shape(1));
  EXPECT_THROW(selector("layers:full=3+9", scene, 4), Error);
  EXPECT_THROW(selector("layers:full=3-1", scene, 4), Error);
  EXPECT_THROW(selector("layers:full=top", scene, 4), Error);
}

TEST(AttendMethods, ParametersOutOfRangeAreRefusedByName) {
  EXPECT_NE(selector_error("window:window=0").find("window must"), std::string::npos);
  EXPECT_NE(selector_error("window:window=-5").find("window must"), std::string::npos);
  EXPECT_NE(selector_error("window:sink=-1").find("sink"), std::string::npos);
  EXPECT_NE(selector_error("window:window=2000000000000").find("window must"), std::string::npos);
  EXPECT_NE(selector_error("window:window=many").find("window must"), std::string::npos);
  EXPECT_EQ(selector_error("window:sink=0,window=1"), "");
  EXPECT_EQ(selector_error("window:sink=1000000000000,window=1000000000000"), "");
}

TEST(AttendMethods, OnlyDenseIsExact) {
  for (const MethodInfo& method : attend_methods().infos()) {
    EXPECT_EQ(method.kind, "attend");
    EXPECT_EQ(method.exact, method.name == "dense") << method.name;
    EXPECT_NO_THROW(selector(method.name)) << "every parameter has a default";
  }
}

}  // namespace
}  // namespace fathom
