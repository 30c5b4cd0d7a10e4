#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "attend/forms/landmark_form.h"
#include "base/error.h"
#include "scene.h"

namespace fathom {
namespace {

using test::Scene;
using test::SceneShape;

constexpr float kRounding = 3e-5f;

std::unique_ptr<Selector> selector_with_state(const std::string& spec, Scene& scene) {
  auto made = attend_methods().make(spec);
  made->attach(scene.context());
  scene.sequence.set_state(Sequence::StateOf::kSelector, made->new_state());
  return made;
}

ThreadPool& pool() {
  static ThreadPool threads(2);
  return threads;
}

SceneShape shape_of(int64_t block, int64_t tokens, int64_t rows) {
  SceneShape s;
  s.landmarks.tokens = block;
  s.tokens = tokens;
  s.rows = rows;
  return s;
}

struct PastBlock {
  int64_t number = 0, position = 0;  // position of its first token
};

/// The grouped softmax of landmark attention in double, from the scene's arrays.
class GroupedSoftmax {
 public:
  explicit GroupedSoftmax(const Scene& scene) : scene_(scene), s_(scene.shape) {}

  int64_t block() const { return s_.landmarks.block(); }
  int64_t own(int64_t row) const { return (scene_.first_row() + row) / block(); }
  int64_t position(int64_t number) const { return scene_.positions[number * block()]; }
  std::vector<PastBlock> all_past(int64_t row) const {
    std::vector<PastBlock> past;
    for (int64_t b = 0; b < own(row); ++b) past.push_back({b, position(b)});
    return past;
  }

  /// Returns the score of a row and head with a token at a given position.
  double score(int64_t row, int head, int64_t token, int64_t position) const {
    const float* q = scene_.queries.data() + (row * s_.heads + head) * s_.key_dim;
    const float* k = scene_.keys.data() + (token * s_.kv_heads + head / scene_.group()) * s_.key_dim;
    const double distance = static_cast<double>(scene_.positions[scene_.first_row() + row] - position);
    double sum = 0;
    for (int i = 0; i < s_.key_dim / 2; ++i) {
      const double angle = i < scene_.rotary.pairs() ? distance * scene_.rotary.frequencies()[i] : 0;
      const double even = q[2 * i] * std::cos(angle) - q[2 * i + 1] * std::sin(angle);
      const double odd = q[2 * i] * std::sin(angle) + q[2 * i + 1] * std::cos(angle);
      sum += even * k[2 * i] + odd * k[2 * i + 1];
    }
    return sum * scene_.scale();
  }

  std::vector<double> out(int64_t row, int head, const std::vector<PastBlock>& past) const {
    const int64_t index = scene_.first_row() + row;
    std::vector<Weighted>
        first;  // the outer softmax: one landmark per past block, then the tokens of the own block
    std::vector<std::vector<Weighted>> inner;
    for (const PastBlock& b : past) {
      std::vector<Weighted> tokens =
          weighted_tokens(row, head, b.number * block(), b.number * block() + block() - 1, b.position);
      if (tokens.empty()) continue;
      softmax(tokens);
      const int64_t landmark = (b.number + 1) * block() - 1;
      first.push_back({-1, score(row, head, landmark, b.position + block() - 1)});
      inner.push_back(std::move(tokens));
    }
    const int64_t begin = own(row) * block();
    for (const Weighted& w :
         weighted_tokens(row, head, begin, std::min(index + 1, begin + block() - 1), position(own(row))))
      first.push_back(w);
    softmax(first);
    std::vector<double> sum(s_.value_dim);
    for (size_t i = 0; i < first.size(); ++i) {
      if (i >= inner.size()) add(first[i], head, 1, sum);
      if (i >= inner.size()) continue;
      for (const Weighted& w : inner[i]) add(w, head, first[i].weight, sum);
    }
    return sum;
  }

 private:
  struct Weighted {
    int64_t token;
    double weight;  // before softmax(): the score
  };

  std::vector<Weighted> weighted_tokens(int64_t row, int head, int64_t begin, int64_t end, int64_t position) const {
    std::vector<Weighted> tokens;
    for (int64_t t = begin; t < end; ++t)
      if (!scene_.is_masked(t, head / scene_.group()))
        tokens.push_back({t, score(row, head, t, position + t - begin)});
    return tokens;
  }
  static void softmax(std::vector<Weighted>& tokens) {
    double largest = -1e300, total = 0;
    for (const Weighted& w : tokens) largest = std::max(largest, w.weight);
    for (Weighted& w : tokens) total += w.weight = std::exp(w.weight - largest);
    for (Weighted& w : tokens) w.weight /= total;
  }
  void add(const Weighted& w, int head, double share, std::vector<double>& sum) const {
    const float* value = scene_.values.data() + (w.token * s_.kv_heads + head / scene_.group()) * s_.value_dim;
    for (int d = 0; d < s_.value_dim; ++d) sum[d] += share * w.weight * value[d];
  }

  const Scene& scene_;
  const SceneShape& s_;
};

using PastOf = std::function<std::vector<PastBlock>(int64_t row, int kv_head)>;

void expect_formula(const Scene& scene, const std::vector<float>& out, const PastOf& past) {
  const GroupedSoftmax formula(scene);
  const SceneShape& s = scene.shape;
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int h = 0; h < s.heads; ++h) {
      const std::vector<double> expected = formula.out(r, h, past(r, h / scene.group()));
      for (int d = 0; d < s.value_dim; ++d)
        ASSERT_NEAR(out[(r * s.heads + h) * s.value_dim + d], expected[d], kRounding * (1 + std::fabs(expected[d])))
            << "row " << r << " head " << h << " element " << d;
    }
  }
}

TEST(LandmarkAttention, GivesTheGoldenWeights) {
  // two blocks of two tokens, and two tokens of the row's own block; the value of token t is 1 in dimension t
  const std::vector<float> logits{1, 2, 0.5f, 0, 3, 1.5f, 1, 0.2f};
  constexpr int kTokens = 8;
  const Rotary rotary(RotaryConfig{}, 64);  // without rotation
  const auto rotations = std::make_shared<PositionRotations>(rotary);
  const Landmarks landmarks{2};
  PagedKvConfig layer;
  layer.store = std::make_shared<PageStore>(PageShape{PageFormat::kF32, 2, kTokens});
  layer.rotations = rotations;
  layer.page_tokens = landmarks.page_tokens();
  Sequence sequence = test::identical_layers(layer);
  std::vector<float> keys(2 * kTokens), values(kTokens * kTokens), out(kTokens);
  std::vector<int64_t> positions(kTokens);
  std::iota(positions.begin(), positions.end(), 0);
  for (int t = 0; t < kTokens; ++t) keys[2 * t] = logits[t], values[t * kTokens + t] = 1;
  sequence.open(positions);
  rotations->reserve(kTokens);
  sequence.kv(0).write(kernels(), 0, kTokens, keys.data(), 2, values.data(), kTokens);
  sequence.commit();
  ASSERT_EQ(sequence.kv(0).table(0).size(), 3) << "one page per block";

  const std::array<float, 2> query{1, 0};
  const auto dense = attend_methods().make("dense");
  const LandmarkForm form(landmarks);
  AttentionInput input;
  input.sequence = &sequence;
  input.kv = &sequence.kv(0);
  input.heads = 1;
  input.rows = 1;
  input.positions = &positions.back();
  input.queries = query.data();
  input.form = &form;
  input.selector = dense.get();
  input.out = out.data();
  Attention attention(pool(), kernels());
  attention.run({&input, 1});
  const float expected[] = {0.044032f, 0.119692f, 0, 0.021107f, 0.423942f, 0, 0.269936f, 0.121290f};
  for (int t = 0; t < kTokens; ++t) EXPECT_NEAR(out[t], expected[t], 1e-6) << "token " << t;
  EXPECT_NEAR(std::accumulate(out.begin(), out.end(), 0.0), 1, 1e-6);
}

TEST(LandmarkAttention, EqualsTheDefinitionOfGroupedSoftmax) {
  uint32_t seed = 1;
  for (const int64_t block : {1, 2, 7, 50, 63}) {
    for (const int64_t rows : {1, 3, 120}) {
      SceneShape s = shape_of(block, 130 + rows, rows);
      s.masked = rows == 3 ? 0.2 : 0;
      s.position = rows == 3 ? 500 : 0;
      s.heads = rows == 1 ? 8 : 4;
      s.rotary_dim = block == 7 ? 8 : 16;
      s.seed = ++seed;
      SCOPED_TRACE(testing::Message() << "block " << block << " rows " << rows);
      Scene scene(s);
      const auto dense = selector_with_state("dense", scene);
      const GroupedSoftmax formula(scene);
      const PastOf past = [&](int64_t row, int) { return formula.all_past(row); };
      for (const std::string& isa : available_isas())
        ASSERT_NO_FATAL_FAILURE(expect_formula(scene, test::attend(scene, *dense, pool(), kernels(isa)).out, past))
            << isa;
    }
  }
}

TEST(LandmarkAttention, PartsOfManyPagesAreMergedExactlyWithAnyNumberOfThreads) {
  Scene scene(shape_of(5, 2000, 2));
  const auto dense = selector_with_state("dense", scene);
  ThreadPool one(1);
  const auto found = test::attend(scene, *dense, pool());
  EXPECT_EQ(found.out, test::attend(scene, *dense, one).out);
  EXPECT_EQ(found.count.attended, 4 * (1999 + 2000)) << "all tokens up to the row and the landmarks of past blocks";
  const GroupedSoftmax formula(scene);
  expect_formula(scene, found.out, [&](int64_t row, int) { return formula.all_past(row); });
}

/// Applies `change` to the keys and values of a scene and writes them again.
void rewrite(Scene& scene, const std::function<void()>& change) {
  change();
  const SceneShape& s = scene.shape;
  for (int h = 0; h < s.kv_heads; ++h)
    scene.sequence.kv(0).write(kernels(), h, s.tokens, scene.keys.data() + h * s.key_dim, s.kv_heads * s.key_dim,
                               scene.values.data() + h * s.value_dim, s.kv_heads * s.value_dim);
}

TEST(LandmarkAttention, WeightsSumToOne) {
  Scene scene(shape_of(50, 400, 100));
  rewrite(scene, [&] { std::ranges::fill(scene.values, 1.0f); });
  for (const float x : test::attend(scene, *selector_with_state("dense", scene), pool()).out)
    ASSERT_NEAR(x, 1, 1e-5);
}

TEST(LandmarkAttention, TheOwnLandmarkAndValuesOfLandmarksHaveNoEffect) {
  Scene scene(shape_of(9, 200, 10));  // rows 190 to 199, the last one a landmark
  const auto dense = selector_with_state("dense", scene);
  const auto before = test::attend(scene, *dense, pool()).out;
  const int64_t key_floats = scene.shape.kv_heads * scene.shape.key_dim,
                value_floats = scene.shape.kv_heads * scene.shape.value_dim;
  rewrite(scene, [&] {
    std::fill_n(scene.keys.end() - key_floats, key_floats, 9.0f);
    for (int64_t t = 9; t < 200; t += 10) std::fill_n(scene.values.begin() + t * value_floats, value_floats, 1e6f);
  });
  EXPECT_EQ(test::attend(scene, *dense, pool()).out, before);
  rewrite(scene, [&] { std::fill_n(scene.keys.begin() + 9 * key_floats, key_floats, 3.0f); });
  EXPECT_NE(test::attend(scene, *dense, pool()).out, before) << "the key of a past landmark has an effect";
}

/// Returns the selection of `landmark` by its definition, for a key/value head and all rows of the block of `row`.
std::vector<PastBlock> selected_blocks(const GroupedSoftmax& formula, const Scene& scene, int64_t row, int kv_head,
                                       int64_t topk, bool original_positions) {
  const int64_t own = formula.own(row), block = formula.block();
  if (own <= topk) return formula.all_past(row);
  const int64_t base = formula.position(own) - (topk + 1) * block;
  std::vector<double> best(own);
  for (int64_t r = 0; r < scene.shape.rows; ++r) {
    if (formula.own(r) != own) continue;
    for (int h = kv_head * scene.group(); h < (kv_head + 1) * scene.group(); ++h) {
      std::vector<double> shares(own);
      double total = 0;
      for (int64_t b = 0; b < own; ++b) {
        const int64_t position = original_positions || b >= own - topk ? formula.position(b) : base;
        total += shares[b] = std::exp(formula.score(r, h, b * block + block - 1, position + block - 1));
      }
      for (int64_t b = 0; b < own; ++b) best[b] = std::max(best[b], shares[b] / total);
    }
  }
  std::vector<int64_t> order(own);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](int64_t a, int64_t b) { return best[a] > best[b]; });
  order.resize(topk);
  std::ranges::sort(order);
  std::vector<PastBlock> selected;
  for (int64_t i = 0; i < topk; ++i) {
    const int64_t index = order[i] >= own - topk ? i + 1 : i;
    selected.push_back({order[i], original_positions ? formula.position(order[i]) : base + index * block});
  }
  return selected;
}

TEST(LandmarkSelector, SelectsTheBlocksWithTheLargestSharesAtTheirPositions) {
  uint32_t seed = 10;
  for (const bool original_positions : {false, true}) {
    for (const int64_t rows : {1, 40}) {
      for (const int64_t topk : {1, 2, 5}) {
        for (const int64_t position : {0, 333}) {
          SceneShape s = shape_of(9, 300 + rows, rows);
          s.position = position;
          s.seed = ++seed;
          SCOPED_TRACE(testing::Message()
                       << "original positions " << original_positions << " rows " << rows << " topk " << topk);
          Scene scene(s);
          const auto landmark = selector_with_state(
              "landmark:topk=" + std::to_string(topk) + (original_positions ? ",positions=original" : ""), scene);
          const GroupedSoftmax formula(scene);
          const auto found = test::attend(scene, *landmark, pool());
          ASSERT_NO_FATAL_FAILURE(expect_formula(scene, found.out, [&](int64_t row, int kv_head) {
            return selected_blocks(formula, scene, row, kv_head, topk, original_positions);
          }));
          EXPECT_LT(found.count.attended_share(), 0.3);
        }
      }
    }
  }
}

TEST(LandmarkSelector, ATopkOfAllBlocksGivesTheBitsOfDense) {
  for (const int64_t rows : {1, 150}) {
    Scene scene(shape_of(50, 500, rows));
    const auto all = test::attend(scene, *selector_with_state("dense", scene), pool()).out;
    for (const char* spec : {"landmark:topk=9", "landmark:topk=9,positions=original", "landmark:topk=1000"})
      EXPECT_EQ(test::attend(scene, *selector_with_state(spec, scene), pool()).out, all) << spec;
    EXPECT_NE(test::attend(scene, *selector_with_state("landmark:topk=2", scene), pool()).out, all);
  }
}

/// Returns the page-table entries and positions that one row of block 7 selects for these scores of its landmarks.
std::vector<std::pair<uint32_t, int64_t>> selected_positions(const std::string& spec,
                                                             const std::vector<float>& scores) {
  SceneShape s = shape_of(9, 74, 1);
  s.heads = s.kv_heads = 1;
  s.rotary_dim = 0;
  Scene scene(s);
  rewrite(scene, [&] {
    for (int64_t b = 0; b < 7; ++b) {
      float* key = scene.keys.data() + (b * 10 + 9) * s.key_dim;
      std::fill_n(key, s.key_dim, 0.0f);
      key[0] = scores[b];
    }
  });
  const auto landmark = selector_with_state(spec, scene);
  LayerQueries queries;
  queries.sequence = &scene.sequence;
  queries.kv = &scene.sequence.kv(0);
  queries.heads = 1;
  queries.first = 73;
  queries.rows = 1;
  queries.kernels = &kernels();
  queries.state = scene.sequence.state(Sequence::StateOf::kSelector);
  landmark->plan(queries, pool());
  std::vector<float> query(s.key_dim, 0.0f);
  query[0] = 1;
  QueryBlock block;
  block.first = 73;
  block.rows = 1;
  block.positions = scene.positions.data() + 73;
  block.queries = query.data();
  block.kv = queries.kv;
  block.kernels = &kernels();
  block.state = queries.state;
  Selection selection;
  landmark->select(scene.sequence.kv(0).table(0), block, selection);
  std::vector<std::pair<uint32_t, int64_t>> pages;
  for (const SelectedPage& page : selection.pages) pages.emplace_back(page.entry, page.position);
  return pages;
}

TEST(LandmarkSelector, MovesSelectedBlocksToJustBeforeTheOwnBlock) {
  using Pages = std::vector<std::pair<uint32_t, int64_t>>;
  // 70 tokens in full blocks of 10; compacted positions begin at 70 − 3·10; blocks 5 and 6 are the newest
  EXPECT_EQ(selected_positions("landmark:topk=2", {9, 0, 0, 8, 0, 0, 0}), (Pages{{0, 40}, {3, 50}, {7, 70}}));
  EXPECT_EQ(selected_positions("landmark:topk=2", {0, 9, 0, 0, 0, 8, 0}), (Pages{{1, 40}, {5, 60}, {7, 70}}));
  EXPECT_EQ(selected_positions("landmark:topk=2", {0, 0, 0, 0, 0, 8, 9}), (Pages{{5, 50}, {6, 60}, {7, 70}}));
  EXPECT_EQ(selected_positions("landmark:topk=2,positions=original", {0, 9, 0, 0, 0, 8, 0}),
            (Pages{{1, 10}, {5, 50}, {7, 70}}));
  EXPECT_EQ(selected_positions("landmark:topk=7", {0, 9, 0, 0, 0, 8, 0}).size(), 8);
}

TEST(LandmarkSelector, RefusesAModelWithoutLandmarks) {
  const Scene scene(SceneShape{});
  try {
    attend_methods().make("landmark")->attach(scene.context());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    EXPECT_NE(std::string(error.what()).find("trained with landmarks"), std::string::npos) << error.what();
  }
  EXPECT_THROW(attend_methods().make("landmark:topk=0"), Error);
  EXPECT_THROW(attend_methods().make("landmark:positions=clamped"), Error);
}

TEST(Landmarks, WithAndWithoutAreInverse) {
  const Landmarks landmarks{50};
  for (int64_t n = 0; n < 500; ++n) {
    EXPECT_EQ(landmarks.without(landmarks.with(n)), n);
    EXPECT_EQ(landmarks.with(n + 1) - landmarks.with(n), n % 50 == 49 ? 2 : 1);
  }
  EXPECT_EQ(Landmarks{}.with(100), 100);
  EXPECT_EQ(Landmarks{}.without(100), 100);
}

}  // namespace
}  // namespace fathom
