#include "attend/attention.h"

#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "attend/methods/window.h"
#include "scene.h"

namespace fathom {
namespace {

using test::attend;
using test::Attended;
using test::expect_equal;
using test::PlainAttention;
using test::Scene;
using test::SceneShape;

std::unique_ptr<Selector> attend_method(const std::string& spec) { return attend_methods().make(spec); }

/// Shapes on both sides of every limit: few and many queries, one page and many, grouped heads, partly rotated and
/// unrotated keys, gaps, masked tokens, a position that is not a multiple of 64.
std::vector<SceneShape> shapes() {
  const uint32_t seed = 7;
  return {
      {.heads = 4, .kv_heads = 4, .tokens = 1, .rows = 1, .seed = seed},
      {.heads = 8, .kv_heads = 2, .tokens = 65, .rows = 1, .seed = seed},
      {.heads = 8, .kv_heads = 2, .tokens = 2600, .rows = 1, .gaps = 0.01, .masked = 0.1, .seed = seed},
      {.heads = 3, .kv_heads = 1, .tokens = 3100, .rows = 5, .masked = 0.05, .position = 1'000'003, .seed = seed},
      {.heads = 8, .kv_heads = 2, .tokens = 1500, .rows = 5, .gaps = 0.02, .position = 77, .seed = seed},
      {.heads = 2, .kv_heads = 2, .key_dim = 12, .value_dim = 20, .rotary_dim = 4, .tokens = 1300, .rows = 5},
      {.heads = 4, .kv_heads = 2, .rotary_dim = 0, .tokens = 700, .rows = 64, .masked = 0.1, .seed = seed},
      {.heads = 8, .kv_heads = 2, .tokens = 200, .rows = 200, .gaps = 0.03, .masked = 0.2, .seed = seed},
      {.heads = 4,
       .kv_heads = 1,
       .key_dim = 32,
       .value_dim = 16,
       .rotary_dim = 24,
       .tokens = 1200,
       .rows = 200,
       .gaps = 0.01,
       .position = 123'457,
       .seed = seed},
      {.heads = 300, .kv_heads = 1, .key_dim = 4, .value_dim = 4, .rotary_dim = 4, .tokens = 100, .rows = 5}};
}

TEST(Attention, DenseEqualsTheDefinitionOfSoftmax) {
  ThreadPool pool(2);
  const std::vector<SceneShape> all = shapes();
  for (size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "shape " << i);
    const Scene scene(all[i]);
    ASSERT_NO_FATAL_FAILURE(expect_equal(attend(scene, *attend_method("dense"), pool),
                                         PlainAttention(scene, test::dense_visibility()).result()));
  }
}

TEST(Attention, WindowEqualsSoftmaxOverSinkAndWindow) {
  ThreadPool pool(2);
  const std::vector<SceneShape> all = shapes();
  for (size_t i = 0; i < all.size(); ++i) {
    const Scene scene(all[i]);
    for (const auto& [sink, size] : {std::pair{4, 100}, std::pair{0, 1}, std::pair{70, 1200}}) {
      SCOPED_TRACE(testing::Message() << "shape " << i << " sink " << sink << " size " << size);
      const auto window = make_window(sink, size);
      ASSERT_NO_FATAL_FAILURE(expect_equal(attend(scene, *window, pool),
                                           PlainAttention(scene, test::window_visibility(sink, size)).result()));
    }
  }
}

TEST(Attention, InstructionSetsAgree) {
  ThreadPool pool(2);
  const Scene few(
      {.heads = 8, .kv_heads = 2, .tokens = 1500, .rows = 3, .gaps = 0.01, .masked = 0.1, .position = 77});
  const Scene many({.heads = 8, .kv_heads = 2, .tokens = 300, .rows = 90, .gaps = 0.01, .masked = 0.1});
  for (const Scene* scene : {&few, &many}) {
    const PlainAttention plain(*scene, test::window_visibility(4, 1100));
    for (const std::string& isa : available_isas()) {
      SCOPED_TRACE(isa);
      ASSERT_NO_FATAL_FAILURE(
          expect_equal(attend(*scene, *make_window(4, 1100), pool, kernels(isa)), plain.result()));
    }
  }
}

TEST(Attention, BitsDoNotDependOnTheNumberOfThreads) {
  for (const SceneShape& shape : shapes()) {
    const Scene scene(shape);
    ThreadPool one(1);
    const Attended expected = attend(scene, *attend_method("window:sink=4,window=1100"), one);
    for (const int threads : {2, 3}) {
      ThreadPool pool(threads);
      const Attended found = attend(scene, *attend_method("window:sink=4,window=1100"), pool);
      EXPECT_EQ(found.out, expected.out);
      EXPECT_EQ(found.lse, expected.lse);
      EXPECT_EQ(found.count.attended, expected.count.attended);
    }
  }
}

TEST(Attention, WindowOfTheWholeSequenceGivesTheBitsOfDense) {
  ThreadPool pool(2);
  for (const SceneShape& shape : shapes()) {
    const Scene scene(shape);
    const Attended dense = attend(scene, *attend_method("dense"), pool);
    for (const std::string spec : {"window:sink=0,window=4k", "window:sink=1m,window=1"}) {
      const Attended window = attend(scene, *attend_method(spec), pool);
      EXPECT_EQ(window.out, dense.out) << spec;
      EXPECT_EQ(window.lse, dense.lse) << spec;
      EXPECT_EQ(window.count.attended, dense.count.attended) << spec;
    }
  }
}

TEST(Attention, TheModelsWindowIsIntersectedWithTheSelection) {
  ThreadPool pool(2);
  for (SceneShape shape : shapes()) {
    for (const int64_t window : {1, 20, 64, 100, 1200}) {
      shape.window = window;
      const Scene scene(shape);
      SCOPED_TRACE(testing::Message() << shape.tokens << " tokens, " << shape.rows << " rows, window " << window);
      ASSERT_NO_FATAL_FAILURE(expect_equal(attend(scene, *attend_method("dense"), pool),
                                           PlainAttention(scene, test::dense_visibility()).result()));
      for (const auto& [sink, size] : {std::pair{4, 50}, std::pair{70, 1000}}) {
        ASSERT_NO_FATAL_FAILURE(expect_equal(attend(scene, *make_window(sink, size), pool),
                                             PlainAttention(scene, test::window_visibility(sink, size)).result()));
      }
    }
  }
}

TEST(Attention, DenseUnderTheModelsWindowGivesTheBitsOfAWindowSelector) {
  ThreadPool pool(2);
  for (SceneShape shape : shapes()) {
    const Scene plain(shape);
    for (const int64_t window : {1, 63, 64, 100, 1200, 5000}) {
      shape.window = window;
      const Attended found = attend(Scene(shape), *attend_method("dense"), pool);
      const Attended expected = attend(plain, *make_window(0, window), pool);
      EXPECT_EQ(found.out, expected.out) << window;
      EXPECT_EQ(found.lse, expected.lse) << window;
      EXPECT_EQ(found.count.attended, expected.count.attended) << window;
    }
  }
}

/// Forwards to another selector and records the selected tokens of each row, for models with one key/value head.
class RecordingSelector final : public Selector {
 public:
  explicit RecordingSelector(const Selector& from) : from_(from) {}
  void plan(const LayerQueries& queries, ThreadPool& pool) const override { from_.plan(queries, pool); }
  void select(const PageTable& table, const QueryBlock& block, Selection& selection) const override {
    from_.select(table, block, selection);
    const std::lock_guard lock(mutex_);
    for (const SelectedPage& page : selection.pages) {
      for (int r = 0; r < block.rows; ++r) {
        uint64_t mask = page.mask;
        if (page.row_masks >= 0) mask &= selection.row_masks[page.row_masks + r];
        for (int t = 0; t < kPageTokens; ++t)
          if (mask >> t & 1) selected_.insert({block.first + r, table[page.entry].first + t});
      }
    }
  }
  test::Visibility visibility() const {
    return [this](int64_t query, int64_t token) { return selected_.contains({query, token}); };
  }

 private:
  const Selector& from_;
  mutable std::mutex mutex_;
  mutable std::set<std::pair<int64_t, int64_t>> selected_;  // query, token
};

TEST(Attention, TheModelsWindowLimitsEverySelector) {
  ThreadPool pool(2);
  for (const std::string spec :
       {"quest:budget=128,dense_layers=0", "recycled:budget=100", "tokenselect:budget=60,window=30,sink=4",
        "hip:budget=64,window=64,sink=4,dense_layers=0", "window:sink=4,window=300"}) {
    for (const int64_t rows : {1, 90}) {
      SCOPED_TRACE(testing::Message() << spec << " rows " << rows);
      Scene scene({.heads = 4, .kv_heads = 1, .tokens = 1500, .rows = rows, .masked = 0.05, .window = 700});
      const auto method = attend_method(spec);
      method->attach(scene.context());
      scene.sequence.set_state(Sequence::StateOf::kSelector, method->new_state());
      const RecordingSelector recorded(*method);
      const Attended found = attend(scene, recorded, pool);
      ASSERT_NO_FATAL_FAILURE(expect_equal(found, PlainAttention(scene, recorded.visibility()).result()));
      scene.shape.window = 0;  // in the definition
      EXPECT_GT(PlainAttention(scene, recorded.visibility()).result().count.attended, found.count.attended)
          << "the window removed nothing";
    }
  }
}

int64_t pages_read = 0;

TEST(Attention, PagesBeforeTheModelsWindowAreNotRead) {
  ThreadPool pool(1);
  Kernels counting = kernels("reference");
  counting.attend = [](const AttendTask& task, float* scratch) {
    pages_read += task.page_count;
    kernels("reference").attend(task, scratch);
  };
  for (const int64_t rows : {1, 64}) {
    for (const std::string spec : {"dense", "window:sink=64,window=2k"}) {
      pages_read = 0;
      attend(Scene({.heads = 1, .kv_heads = 1, .tokens = 64 * 40, .rows = rows, .window = 128}),
             *attend_method(spec), pool, counting);
      EXPECT_EQ(pages_read, rows == 1 ? 2 : 3) << spec;
    }
  }
}

TEST(Attention, ScoresDoNotChangeWhenTheSequenceMoves) {
  ThreadPool pool(2);
  for (const int64_t rows : {3, 100}) {
    SceneShape shape{.heads = 4, .kv_heads = 2, .tokens = 500, .rows = rows};
    const Attended here = attend(Scene(shape), *attend_method("dense"), pool);
    for (const int64_t position : {64, 77, 1'000'003}) {
      shape.position = position;
      ASSERT_NO_FATAL_FAILURE(expect_equal(attend(Scene(shape), *attend_method("dense"), pool), here)) << position;
    }
  }
}

/// Selects nothing.
class EmptySelector final : public Selector {
 public:
  void select(const PageTable&, const QueryBlock&, Selection&) const override {}
};

TEST(Attention, EmptySelectionsGiveZeros) {
  ThreadPool pool(2);
  for (const int64_t rows : {1, 100}) {
    Scene scene({.heads = 4, .kv_heads = 2, .tokens = 2000, .rows = rows});
    const auto expect_zeros = [&](const Selector& selector) {
      const Attended found = attend(scene, selector, pool);
      EXPECT_EQ(found.out, std::vector<float>(found.out.size(), 0.0f));
      EXPECT_EQ(found.lse, std::vector<float>(found.lse.size(), -std::numeric_limits<float>::infinity()));
      EXPECT_EQ(found.count.attended, 0);
    };
    expect_zeros(EmptySelector());
    scene.sequence.mask(0, 2000);
    expect_zeros(*attend_method("dense"));
  }
}

TEST(Attention, RowsWithoutVisibleTokensMayShareABlockWithOthers) {
  ThreadPool pool(2);
  Scene scene({.heads = 4, .kv_heads = 2, .tokens = 100, .rows = 100});
  scene.sequence.mask(0, 50);  // the first 50 rows have no visible token
  std::fill(scene.masked.begin(), scene.masked.begin() + 50 * scene.shape.kv_heads, 1);
  ASSERT_NO_FATAL_FAILURE(expect_equal(attend(scene, *attend_method("dense"), pool),
                                       PlainAttention(scene, test::dense_visibility()).result()));
}

/// Selects every page at its position modulo `period`.
class FoldedPositions final : public Selector {
 public:
  explicit FoldedPositions(int64_t period) : period_(period) {}
  void select(const PageTable& table, const QueryBlock&, Selection& selection) const override {
    for (uint32_t s = 0; s < table.size(); ++s)
      selection.pages.push_back({s, table[s].position % period_, table[s].mask});
  }

 private:
  int64_t period_;
};

TEST(Attention, PagesAreReadAtTheSelectedPositions) {
  ThreadPool pool(2);
  constexpr int64_t kPeriod = 150;
  for (const int64_t rows : {2, 40}) {
    const Scene scene({.heads = 4, .kv_heads = 2, .tokens = 1500, .rows = rows});
    const PlainAttention plain(scene, test::dense_visibility(),
                               [](int64_t token) { return token / 64 * 64 % kPeriod + token % 64; });
    ASSERT_NO_FATAL_FAILURE(expect_equal(attend(scene, FoldedPositions(kPeriod), pool), plain.result()));
  }
}

/// Records the query rows that it receives; selects like dense.
class QueryRecorder final : public Selector {
 public:
  struct QueryRow {
    int head;
    int64_t token, position;
    std::vector<float> queries;  // [group, key_dim]
  };
  explicit QueryRecorder(const Scene& scene) : scene_(scene) {}
  void select(const PageTable& table, const QueryBlock& block, Selection& selection) const override {
    const int64_t floats = static_cast<int64_t>(block.group) * scene_.shape.key_dim;
    const std::lock_guard lock(mutex_);
    for (int r = 0; r < block.rows; ++r) {
      const float* queries = block.queries + r * floats;
      received_.push_back({block.head, block.first + r, block.positions[r], {queries, queries + floats}});
    }
    for (uint32_t s = 0; s < table.size(); ++s) selection.pages.push_back({s, table[s].position, table[s].mask});
  }
  const std::vector<QueryRow>& received() const { return received_; }

 private:
  const Scene& scene_;
  mutable std::mutex mutex_;
  mutable std::vector<QueryRow> received_;
};

TEST(Attention, SelectorsReceiveEveryRowOnceWithItsPositionAndRotatedQueries) {
  ThreadPool pool(2);
  for (const int64_t rows : {3, 100}) {
    const Scene scene({.heads = 8, .kv_heads = 2, .tokens = 300, .rows = rows, .gaps = 0.1});
    const SceneShape& s = scene.shape;
    const QueryRecorder recorder(scene);
    attend(scene, recorder, pool);
    std::set<std::pair<int, int64_t>> distinct;
    std::vector<float> rotation(s.rotary_dim);
    for (const QueryRecorder::QueryRow& row : recorder.received()) {
      ASSERT_TRUE(distinct.insert({row.head, row.token}).second);
      ASSERT_EQ(row.position, scene.positions[row.token]);
      scene.rotary.angles(static_cast<double>(row.position), rotation.data(), rotation.data() + s.rotary_dim / 2);
      const float* from =
          scene.queries.data() + ((row.token - scene.first_row()) * s.heads + row.head * scene.group()) * s.key_dim;
      for (size_t i = 0; i < row.queries.size(); i += 2) {
        const float cos = rotation[i % s.key_dim / 2], sin = rotation[s.rotary_dim / 2 + i % s.key_dim / 2];
        ASSERT_NEAR(row.queries[i], scene.scale() * (from[i] * cos - from[i + 1] * sin), 1e-5);
        ASSERT_NEAR(row.queries[i + 1], scene.scale() * (from[i] * sin + from[i + 1] * cos), 1e-5);
      }
    }
    EXPECT_EQ(distinct.size(), rows * s.kv_heads);
  }
}

TEST(Attention, BatchedSequencesOfAnyLengthsEqualEachAlone) {
  ThreadPool pool(2);
  const auto dense = attend_methods().make("dense");
  // some are split into parts of pages, some into blocks of rows
  const Scene one({.heads = 4, .kv_heads = 2, .tokens = 3000, .rows = 1});
  const Scene short_one({.heads = 4, .kv_heads = 2, .tokens = 70, .rows = 3});
  const Scene many({.heads = 4, .kv_heads = 2, .tokens = 1500, .rows = 130});
  const Scene few({.heads = 4, .kv_heads = 2, .tokens = 1200, .rows = 4});
  const Scene* scenes[] = {&one, &short_one, &many, &few};
  const std::vector<test::Attended> together = test::attend(scenes, *dense, pool);
  AttentionCount count;
  for (size_t i = 0; i < std::size(scenes); ++i) {
    const test::Attended alone = test::attend(*scenes[i], *dense, pool);
    EXPECT_EQ(alone.out, together[i].out) << i;
    EXPECT_EQ(alone.lse, together[i].lse) << i;
    count.attended += alone.count.attended;
    count.visible += alone.count.visible;
  }
  EXPECT_EQ(together[0].count.attended, count.attended);
  EXPECT_EQ(together[0].count.visible, count.visible);
}

TEST(Attention, CountsAddUpOverRuns) {
  ThreadPool pool(2);
  Attention attention(pool, kernels());
  int64_t attended = 0, visible = 0;
  for (const int64_t rows : {1, 5, 64}) {
    const Scene scene({.heads = 4, .kv_heads = 2, .tokens = 300, .rows = rows, .masked = 0.1});
    const auto window = make_window(4, 100);
    std::vector<float> out(rows * 4 * 16);
    AttentionInput input;
    input.sequence = &scene.sequence;
    input.kv = &scene.sequence.kv(0);
    input.heads = 4;
    input.rows = rows;
    input.positions = scene.positions.data() + scene.first_row();
    input.queries = scene.queries.data();
    input.query_stride = 4 * 16;
    input.selector = window.get();
    input.out = out.data();
    attention.run({&input, 1});  // without log-sum-exp
    const PlainAttention plain(scene, test::window_visibility(4, 100));
    attended += plain.result().count.attended;
    visible += plain.result().count.visible;
    EXPECT_EQ(attention.count().attended, attended);
    EXPECT_EQ(attention.count().visible, visible);
  }
}

}  // namespace
}  // namespace fathom
