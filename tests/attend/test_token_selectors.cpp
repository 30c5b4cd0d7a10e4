// What selectors of single tokens, chunks or clusters have in common, and the tests of hip and tempscale with a
// state.
#include <gtest/gtest.h>

#include <set>

#include "reading.h"
#include "scene.h"
#include "token_sets.h"

namespace fathom {
namespace {

using test::as_set;
using test::Reading;

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
