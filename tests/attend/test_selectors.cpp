#include <gtest/gtest.h>

#include <set>

#include "scene.h"

namespace fathom {
namespace {

using test::Scene;
using test::SceneShape;
using test::Sees;

std::unique_ptr<Selector> selector(const std::string& spec) { return attend_methods().make(spec); }

/// A scene of random length with gaps and hidden tokens.
SceneShape random_shape(std::mt19937& random) {
  SceneShape s;
  s.key_dim = s.value_dim = s.rotary_dim = 2;
  s.tokens = 1 + random() % 500;
  s.rows = 1 + random() % std::min<int64_t>(s.tokens, 150);
  s.gaps = random() % 2 ? 0.02 : 0;
  s.hidden = random() % 2 ? 0.2 : 0;
  s.place = random() % 2 ? 0 : random() % 1000;
  s.seed = random();
  return s;
}

/// The rows of a scene, some block of them asks: every visible (row, token) pair must be one that `sees` says.
void expect_pairs(const Scene& scene, const Selector& selector, const Sees& sees, int64_t begin_row, int rows) {
  for (int head = 0; head < scene.shape.kv_heads; ++head) {
    const Lane& lane = scene.memory.lane(0, head);
    QueryBlock block;
    block.head = head;
    block.group = scene.group();
    block.first = scene.first_row() + begin_row;
    block.rows = rows;
    block.positions = scene.positions.data() + block.first;
    Selection selection;
    selector.select(lane, block, selection);

    std::vector<char> visible(rows * scene.shape.tokens, 0);
    std::set<uint32_t> slots;
    for (const SelectedPage& page : selection.pages) {
      ASSERT_LT(page.slot, lane.size());
      ASSERT_TRUE(slots.insert(page.slot).second) << "page " << page.slot << " twice";
      ASSERT_EQ(page.place, lane[page.slot].place);
      for (int r = 0; r < rows; ++r) {
        const uint64_t mask =
            page.row_masks < 0 ? page.mask : page.mask & selection.row_masks.at(page.row_masks + r);
        for (int o = 0; o < kPageTokens; ++o) {
          const int64_t token = lane[page.slot].first + o;
          if (mask >> o & 1 && token <= block.first + r) visible.at(r * scene.shape.tokens + token) = 1;
        }
      }
    }
    for (int r = 0; r < rows; ++r) {
      for (int64_t t = 0; t < scene.shape.tokens; ++t) {
        const int64_t query = block.first + r;
        const bool expected = t <= query && !scene.is_hidden(t, head) && sees(query, t);
        ASSERT_EQ(visible[r * scene.shape.tokens + t] != 0, expected)
            << "query " << query << " token " << t << " head " << head;
      }
    }
  }
}

TEST(Selectors, DenseSeesEveryTokenThatIsNotHidden) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const auto dense = selector("dense");
  for (int n = 0; n < 30; ++n) {
    const Scene scene(random_shape(random));
    const int64_t begin = random() % scene.shape.rows;
    const int rows = 1 + random() % (scene.shape.rows - begin);
    ASSERT_NO_FATAL_FAILURE(expect_pairs(scene, *dense, test::dense_sees(), begin, rows));
  }
}

TEST(Selectors, WindowSeesItsSinksAndTheNewestTokens) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const int64_t edges[] = {0, 1, 2, 63, 64, 65, 128, 1000};
  for (int n = 0; n < 120; ++n) {
    const Scene scene(random_shape(random));
    const int64_t sink = random() % 2 ? edges[random() % 8] : random() % 150;
    const int64_t size = std::max<int64_t>(1, random() % 2 ? edges[random() % 8] : random() % 300);
    const int64_t begin = random() % scene.shape.rows;
    const int rows = 1 + random() % (scene.shape.rows - begin);
    SCOPED_TRACE(testing::Message() << "sink " << sink << " size " << size << " tokens " << scene.shape.tokens
                                    << " rows " << begin << "+" << rows);
    const auto window = selector("window:sink=" + std::to_string(sink) + ",size=" + std::to_string(size));
    ASSERT_NO_FATAL_FAILURE(expect_pairs(scene, *window, test::window_sees(sink, size), begin, rows));
  }
}

TEST(Selectors, WindowLeavesOutPagesThatNoRowSees) {
  SceneShape s;
  s.tokens = 6400;
  s.rows = 1;
  s.key_dim = s.value_dim = s.rotary_dim = 2;
  const Scene scene(s);
  QueryBlock block;
  block.first = 6399;
  block.rows = 1;
  Selection selection;
  selector("window:sink=4,size=128")->select(scene.memory.lane(0, 0), block, selection);
  EXPECT_EQ(selection.pages.size(), 3);  // the sinks' page and two of the window
}

TEST(Selectors, TheWindowOfAModelFileCountsTheQueryItself) {
  SceneShape s;
  s.key_dim = s.value_dim = s.rotary_dim = 2;
  s.tokens = s.rows = 100;
  const Scene scene(s);
  for (const int64_t size : {1, 2, 64, 99, 100, 5000}) {
    ASSERT_NO_FATAL_FAILURE(
        expect_pairs(scene, *make_window(0, size), test::window_sees(0, size), 0, static_cast<int>(s.rows)));
  }
}

std::string error_of(const std::string& spec) {
  try {
    selector(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage) << spec;
    return error.what();
  }
  return "";
}

TEST(AttendMethods, AnUnknownNameGivesTheNearest) {
  EXPECT_NE(error_of("windw").find("window"), std::string::npos);
  EXPECT_NE(error_of("dens").find("dense"), std::string::npos);
  EXPECT_NE(error_of("window:sise=4").find("size"), std::string::npos);
  EXPECT_NE(error_of("dense:size=4"), "");
}

TEST(AttendMethods, ParametersOutOfRangeAreRefusedByName) {
  EXPECT_NE(error_of("window:size=0").find("size"), std::string::npos);
  EXPECT_NE(error_of("window:size=-5").find("size"), std::string::npos);
  EXPECT_NE(error_of("window:sink=-1").find("sink"), std::string::npos);
  EXPECT_NE(error_of("window:size=2000000000000").find("size"), std::string::npos);
  EXPECT_NE(error_of("window:size=many").find("size"), std::string::npos);
  EXPECT_EQ(error_of("window:sink=0,size=1"), "");
  EXPECT_EQ(error_of("window:sink=1000000000000,size=1000000000000"), "");
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
