// Sessions with LoRA adapters: scale 0 is the model without them, scale 1 the model with merged weights, and
// results do not depend on the batch or on how tokens are read.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "attend/methods.h"
#include "base/error.h"
#include "models/tiny_adapter.h"
#include "models/tiny_model.h"
#include "seedling.h"
#include "session/session.h"
#include "shared_data.h"

namespace fathom {
namespace {

using test::largest_difference;
using test::TinyAdapter;

/// The adapters and scales of a session.
std::vector<AdapterScale> with(const std::shared_ptr<const Adapter>& adapter, float scale) {
  return {{adapter, scale}};
}

SessionOptions options_of(std::vector<AdapterScale> adapters) {
  SessionOptions options;
  options.cache = "f32";
  options.chunk = 64;
  options.adapters = std::move(adapters);
  return options;
}

/// Returns the logits after 100 tokens read in chunks, and after 10 more read one by one.
std::vector<float> read(const std::shared_ptr<const Model>& model, std::vector<AdapterScale> adapters,
                        uint32_t vocabulary = 512) {
  Session session(model, test::runtime(), options_of(std::move(adapters)));
  std::vector<int32_t> ids = test::tokens(110);
  for (int32_t& id : ids) id = static_cast<int32_t>(static_cast<uint32_t>(id) % vocabulary);
  session.append(std::span(ids).first(100));
  std::vector<float> logits = test::logits_of(session);
  test::steps(session, {ids.begin() + 100, ids.end()});
  logits.insert(logits.end(), session.logits().begin(), session.logits().end());
  return logits;
}

std::shared_ptr<const Adapter> first_adapter() {
  static const auto adapter = TinyAdapter().open(test::floats());
  return adapter;
}
std::shared_ptr<const Adapter> second_adapter() {
  static const auto adapter = TinyAdapter{.rank = 9, .alpha = 3, .seed = 2}.open(test::floats());
  return adapter;
}

TEST(SessionAdapters, Scale0IsBitIdenticalToNoAdapter) {
  const std::vector<float> plain = read(test::floats(), {});
  EXPECT_EQ(read(test::floats(), with(first_adapter(), 0)), plain);
  EXPECT_EQ(read(test::floats(), {{first_adapter(), 0}, {second_adapter(), -0.0f}}), plain);
  EXPECT_GT(largest_difference(read(test::floats(), with(first_adapter(), 1)), plain), 0.5) << "scale 1 differs";
}

/// Expects the adapted model to equal the model with merged weights, at several scales.
void expect_merged(const Gguf& file, const std::shared_ptr<const Model>& model, const TinyAdapter& tiny,
                   uint32_t vocabulary = 512) {
  const std::vector<std::byte> bytes = tiny.bytes(*model);
  const Gguf adapter_file = Gguf::parse(bytes, "adapter");
  const auto adapter = Adapter::from(adapter_file, model);
  const std::vector<float> plain = read(model, {}, vocabulary);
  for (const float scale : {1.0f, 0.25f, -0.5f}) {
    const std::vector<float> merged = read(test::merge_adapter(file, adapter_file, scale), {}, vocabulary);
    const std::vector<float> adapted = read(model, with(adapter, scale), vocabulary);
    const double size = largest_difference(merged, std::vector<float>(merged.size()));  // of the largest logit
    EXPECT_LT(largest_difference(adapted, merged), 1e-5 * std::max(10.0, size)) << "scale " << scale;
    EXPECT_GT(largest_difference(adapted, plain), 1e-2) << "scale " << scale;
  }
}

TEST(SessionAdapters, EqualTheModelWithMergedWeights) {
  const std::vector<std::byte> bytes = test::TinyFile().bytes();
  expect_merged(Gguf::parse(bytes, "tiny.gguf"), test::floats(), {});
}

TEST(SessionAdapters, OfTheOutputProjectionEqualMergedWeights) {
  test::TinyFile untied;
  const std::vector<float> output(static_cast<size_t>(untied.width * untied.vocabulary), 0.01f);
  untied.extra = [&](GgufWriter& w) {
    w.add_tensor("output.weight", WeightType::kF32, {64, 512}, std::as_bytes(std::span(output)));
  };
  const std::vector<std::byte> bytes = untied.bytes();
  expect_merged(Gguf::parse(bytes, "tiny.gguf"), test::open_tiny(untied), {.weights = {"output.weight"}});
}

TEST(SessionAdapters, OfEveryKindOfProjectionEqualMergedWeights) {
  struct Case {
    const char *name, *architecture;
    std::vector<std::string> weights;
  };
  for (const Case& c :
       {Case{"tiny-mamba-f16", "mamba", {"ssm_in", "ssm_x", "ssm_dt", "ssm_out"}},
        Case{"tiny-mamba2-f16", "mamba2", {"ssm_in", "ssm_out"}},
        Case{"tiny-gpt2-f16", "gpt2", {"attn_qkv", "attn_output", "ffn_up", "ffn_down"}},
        Case{"architectures/tiny-falcon-h1-f16", "falcon-h1", {"attn_q", "attn_k", "attn_v", "ssm_in", "ffn_gate"}},
        Case{"architectures/tiny-qwen3moe-f16", "qwen3moe", {"attn_v", "attn_output"}}}) {
    const std::string path = test::golden(c.name) + ".gguf";
    FATHOM_NEEDS(path);
    SCOPED_TRACE(c.name);
    const auto model = Model::open(path);
    TinyAdapter adapter{.architecture = c.architecture, .weights = {}};
    for (const int layer : {0, 1})
      for (const std::string& weight : c.weights)
        adapter.weights.push_back("blk." + std::to_string(layer) + "." + weight + ".weight");
    expect_merged(*model->file(), model, adapter, static_cast<uint32_t>(model->config().vocabulary));
  }
}

TEST(SessionAdapters, OfExpertsAreRejectedAndOfRoutersAccepted) {
  const std::string path = test::golden("architectures/tiny-qwen3moe-f16") + ".gguf";
  FATHOM_NEEDS(path);
  const auto model = Model::open(path);
  EXPECT_TRUE((TinyAdapter{.architecture = "qwen3moe", .weights = {"blk.0.ffn_gate_inp.weight"}}.open(model)));
  try {
    TinyAdapter{.architecture = "qwen3moe", .weights = {"blk.0.ffn_up_exps.weight"}}.open(model);
    FAIL() << "experts are not supported";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("adapters of experts are not supported"), std::string::npos)
        << error.what();
  }
}

TEST(SessionAdapters, ChangesOfSeveralAdaptersAddUpInOneLinearLayer) {
  // Only the output projection is changed, so the logits are linear in the scales.
  test::TinyFile untied;
  const std::vector<float> output(static_cast<size_t>(untied.width * untied.vocabulary), 0.01f);
  untied.extra = [&](GgufWriter& w) {
    w.add_tensor("output.weight", WeightType::kF32, {64, 512}, std::as_bytes(std::span(output)));
  };
  const auto model = test::open_tiny(untied);
  const auto a = TinyAdapter{.weights = {"output.weight"}}.open(model),
             b = TinyAdapter{.weights = {"output.weight"}, .rank = 2, .seed = 9}.open(model);
  const std::vector<float> plain = read(model, {}), only_a = read(model, with(a, 1)),
                           only_b = read(model, with(b, 1)), sum = read(model, {{a, 1}, {b, 1}}),
                           mixed = read(model, {{a, -1.5f}, {b, 0.5f}});
  EXPECT_GT(largest_difference(only_a, plain), 0.5);
  for (size_t i = 0; i < plain.size(); ++i) {
    ASSERT_NEAR(sum[i] - plain[i], only_a[i] - plain[i] + only_b[i] - plain[i], 1e-4);
    ASSERT_NEAR(mixed[i] - plain[i], -1.5f * (only_a[i] - plain[i]) + 0.5f * (only_b[i] - plain[i]), 1e-4);
  }
}

/// Sessions with different adapters and scales that share an engine.
class AdaptedBatch {
 public:
  explicit AdaptedBatch(const std::shared_ptr<const Model>& model, const std::shared_ptr<const Adapter>& a,
                        const std::shared_ptr<const Adapter>& b)
      : engine_(std::make_shared<Engine>(model, test::runtime())) {
    uint32_t seed = 1;
    for (const std::vector<AdapterScale>& adapters : std::vector<std::vector<AdapterScale>>{
             {}, with(a, 1), with(a, 0.5f), with(b, 1), {{a, 0.25f}, {b, -1}}, with(a, 0), {}}) {
      sessions_.emplace_back(engine_, options_of(adapters));
      sessions_.back().append(test::tokens(20 + 30 * seed, seed));
      ++seed;
    }
  }
  std::vector<Session>& sessions() { return sessions_; }

 private:
  std::shared_ptr<Engine> engine_;
  std::vector<Session> sessions_;
};

void expect_batch_equals_alone(AdaptedBatch batch) {
  std::vector<Session> alone;
  std::vector<Session*> together;
  for (Session& session : batch.sessions()) {
    alone.push_back(session.fork());
    together.push_back(&session);
  }
  for (uint32_t step = 0; step < 4; ++step) {
    const std::vector<int32_t> next = test::tokens(std::ssize(alone), 50 + step);
    Session::step(together, next);
    for (size_t i = 0; i < alone.size(); ++i) {
      alone[i].append(std::span(next).subspan(i, 1));
      ASSERT_EQ(test::logits_of(*together[i]), test::logits_of(alone[i])) << "session " << i << ", step " << step;
    }
  }
  EXPECT_NE(test::logits_of(alone[1]), test::logits_of(alone[2]));
}

TEST(SessionAdapters, ABatchOfDifferentScalesEqualsEachSessionAlone) {
  expect_batch_equals_alone(AdaptedBatch(test::floats(), first_adapter(), second_adapter()));
  const auto a = TinyAdapter().open(test::seedling());  // quantised weights
  const auto b = TinyAdapter{.rank = 5, .seed = 3}.open(test::seedling());
  expect_batch_equals_alone(AdaptedBatch(test::seedling(), a, b));
}

TEST(SessionAdapters, AMixedBatchOfPrefillStepsAndDraftsEqualsEachMemberAlone) {
  const auto engine = std::make_shared<Engine>(test::floats(), test::runtime());
  const auto dense = attend_methods().make("dense");
  std::vector<Sequence> sequences;
  for (const float scale : {0.0f, 1.0f, -0.5f, 0.0f})
    sequences.push_back(engine->new_sequence({.cache = "f32", .adapters = with(first_adapter(), scale)}));
  const std::vector<int32_t> text = test::tokens(90), step{7}, nodes = test::tokens(6, 8);
  OpenDraft draft;
  for (const int parent : {-1, 0, 0, 2, -1, 4}) draft.tree.add(parent);
  draft.tokens = nodes;
  const std::vector<int64_t> of_text{0, 50, 89}, of_step{0}, of_draft{0, 1, 2, 3, 4, 5};
  const auto run = [&](const std::vector<size_t>& members) {
    std::vector<Rows> batch;
    for (const size_t i : members) {
      Rows& rows = batch.emplace_back();
      rows.sequence = &sequences[i];
      rows.policy.selector = dense.get();
      if (i == 2) rows.draft = &draft;
      if (i != 2) rows.tokens = i == 1 ? step : text;
      rows.output_rows = i == 1 ? of_step : i == 2 ? of_draft : of_text;
    }
    engine->forward(batch);
    std::vector<std::vector<float>> logits;
    for (Rows& rows : batch) {
      rows.result.throw_if_failed();
      logits.push_back(rows.result.logits);
      rows.draft ? engine->accept(rows, {}) : rows.sequence->truncate(0);
    }
    return logits;
  };
  const auto together = run({0, 1, 2, 3});
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(together[i], run({i})[0]) << "member " << i;
}

/// Reads drafts and accepts a part of each, and reads the accepted tokens one by one in a copy.
void expect_drafts_equal_steps(Session& drafted) {
  std::mt19937 random(test::seed(4));
  const int64_t vocabulary = drafted.model().config().vocabulary;
  const auto text = [&](int64_t n) {
    std::vector<int32_t> ids(n);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % vocabulary);
    return ids;
  };
  drafted.append(text(90));
  Session plain = drafted.fork();
  const bool chain = drafted.draft_shape() == Session::DraftShape::kChain;
  for (int round = 0; round < 5; ++round) {
    const int nodes = 3 + static_cast<int>(random() % 12);
    DraftTree tree;
    for (int i = 0; i < nodes; ++i) tree.add(chain ? i - 1 : static_cast<int>(random() % (i + 1)) - 1);
    const std::vector<int32_t> tokens = text(nodes);
    const std::span<const float> found = drafted.draft(tree, tokens);
    const std::vector<float> logits(found.begin(), found.end());
    for (int node = 0; node < nodes; node += 2) {
      Session path = plain.fork();
      for (const int step : tree.path(node)) path.append({&tokens[step], 1});
      for (int64_t i = 0; i < vocabulary; ++i)
        ASSERT_EQ(path.logits()[i], logits[node * vocabulary + i]) << "round " << round << ", node " << node;
    }
    const std::vector<int> path = tree.path(static_cast<int>(random() % nodes));
    drafted.accept(path);
    for (const int node : path) plain.append({&tokens[node], 1});
    const std::vector<int32_t> next = text(1);
    drafted.append(next);
    plain.append(next);
    ASSERT_EQ(test::logits_of(plain), test::logits_of(drafted)) << "round " << round;
  }
}

TEST(SessionAdapters, DraftsEqualReadingTokenByToken) {
  Session floats(test::floats(), test::runtime(),
                 options_of({{first_adapter(), 0.75f}, {second_adapter(), -0.5f}}));
  expect_drafts_equal_steps(floats);
  Session quantised(test::seedling(), test::runtime(), options_of(with(TinyAdapter().open(test::seedling()), 1)));
  expect_drafts_equal_steps(quantised);
}

TEST(SessionAdapters, DraftsOfARecurrentModelEqualReadingTokenByToken) {
  for (const char* name : {"mamba", "mamba2"}) {
    const std::string path = test::golden(concat("tiny-", name, "-f16")) + ".gguf";
    FATHOM_NEEDS(path);
    SCOPED_TRACE(name);
    const auto model = Model::open(path);
    const auto adapter =
        TinyAdapter{.architecture = name, .weights = {"blk.0.ssm_in.weight", "blk.1.ssm_out.weight"}}.open(model);
    Session session(model, test::runtime(), options_of(with(adapter, 0.5f)));
    expect_drafts_equal_steps(session);
  }
}

TEST(SessionAdapters, ForksRewindsAndMovesKeepTheAdapters) {
  Session session(test::floats(), test::runtime(), options_of(with(first_adapter(), 1)));
  const std::vector<int32_t> ids = test::tokens(40), next = test::tokens(10, 2);
  session.append(ids);
  Session fork = session.fork(), other = session.fork("window:sink=4,window=400");
  test::steps(session, next);
  const std::vector<float> expected = test::logits_of(session);
  test::steps(fork, next);
  EXPECT_EQ(test::logits_of(fork), expected);
  test::steps(other, next);
  EXPECT_EQ(test::logits_of(other), expected) << "the window covers all tokens";
  session.rewind(10);
  test::steps(session, next);
  EXPECT_EQ(test::logits_of(session), expected);
  EXPECT_EQ(fork.options().adapters.size(), 1u);
}

TEST(SessionAdapters, PrefixesAreSharedOnlyWithTheSameAdaptersAndScales) {
  const auto engine = std::make_shared<Engine>(test::floats(), test::runtime());
  const std::vector<int32_t> ids = test::tokens(200);
  const auto restored = [&](std::vector<AdapterScale> adapters) {
    SessionOptions options = options_of(std::move(adapters));
    options.share_prefixes = true;
    Session session(engine, options);
    session.append(ids);
    EXPECT_EQ(test::logits_of(session), [&] {
      options.share_prefixes = false;
      Session fresh(engine, options);
      fresh.append(ids);
      return test::logits_of(fresh);
    }());
    return session.restored();
  };
  EXPECT_EQ(restored({}), 0);
  EXPECT_EQ(restored({}), 192);
  EXPECT_EQ(restored(with(first_adapter(), 1)), 0);
  EXPECT_EQ(restored(with(first_adapter(), 1)), 192);
  EXPECT_EQ(restored(with(first_adapter(), 0.5f)), 0);
  EXPECT_EQ(restored(with(second_adapter(), 1)), 0);
  EXPECT_EQ(restored({{first_adapter(), 1}, {second_adapter(), 1}}), 0);
  EXPECT_EQ(restored(with(first_adapter(), 0)), 192) << "scale 0: the pages of the model without adapters";
  EXPECT_EQ(restored(with(TinyAdapter().open(test::floats()), 1)), 192) << "the same file, opened again";
}

TEST(SessionAdapters, InvalidAdaptersAreUsageErrors) {
  const auto expect_usage = [](const std::shared_ptr<const Model>& model, const AdapterScale& adapter) {
    try {
      Session(model, test::runtime(), options_of({adapter}));
      FAIL() << "expected an error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kUsage);
      EXPECT_NE(std::string(error.what()).find("adapter: expected"), std::string::npos) << error.what();
    }
  };
  expect_usage(test::open_tiny({}), {first_adapter(), 1});  // opened for another model
  expect_usage(test::floats(), {nullptr, 1});
  expect_usage(test::floats(), {first_adapter(), NAN});
  expect_usage(test::floats(), {first_adapter(), INFINITY});
}

TEST(SessionAdapters, AnAdapterKeepsItsModelInMemory) {
  std::shared_ptr<const Model> model = test::open_tiny({});
  const std::weak_ptr<const Model> watched = model;
  auto engine = std::make_shared<Engine>(model, test::runtime());
  auto sequence =
      std::make_unique<Sequence>(engine->new_sequence({.adapters = with(TinyAdapter().open(model), 1)}));
  model.reset();
  EXPECT_FALSE(watched.expired());
  const auto adapter = sequence->adapters()[0].weights;
  sequence.reset();
  engine.reset();
  EXPECT_FALSE(watched.expired());
}

}  // namespace
}  // namespace fathom
