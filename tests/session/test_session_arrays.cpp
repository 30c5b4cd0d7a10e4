// Models whose file has per-layer arrays: layers with different numbers of key/value heads or feed-forward widths.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "models/tiny_model.h"
#include "seedling.h"

namespace fathom {
namespace {

using test::logits_of;
using test::runtime;
using test::steps;
using test::tokens;

constexpr int kHeads = 4;
const std::vector<int32_t> kKvHeads = {1, 4, 2}, kWidths = {96, 32, 64};
constexpr float kArrayRounding = 2e-3f;  // rounding of float32 sums in three layers

/// Opens a model and keeps the bytes of its file alive.
std::shared_ptr<const Model> open_kept(GgufWriter& writer) {
  static std::vector<std::unique_ptr<std::vector<std::byte>>> kept;
  kept.push_back(std::make_unique<std::vector<std::byte>>(writer.bytes()));
  return Model::from(Gguf::parse(*kept.back(), "arrays.gguf"));
}

/// Returns the first `heads` heads of a matrix of kHeads heads, each repeated `times` times.
std::vector<std::byte> repeat_heads(const GgufTensor& tensor, int heads, int times) {
  const size_t bytes = tensor.bytes / kHeads;
  std::vector<std::byte> data;
  for (int h = 0; h < heads; ++h)
    for (int n = 0; n < times; ++n) data.insert(data.end(), tensor.data + h * bytes, tensor.data + (h + 1) * bytes);
  return data;
}

/// Returns a model with kKvHeads key/value heads per layer, or (repeated) with kHeads heads that repeat the same
/// weights. Both compute the same function.
std::shared_ptr<const Model> with_heads(bool repeated) {
  test::TinyFile tiny;
  tiny.heads = tiny.kv_heads = kHeads;
  const std::vector<std::byte> bytes = tiny.bytes();
  const Gguf file = Gguf::parse(bytes, "tiny.gguf");
  GgufWriter writer;
  for (const std::string_view key : file.keys()) writer.set_value(std::string(key), *file.find(key));
  if (!repeated) writer.set_integers("llama.attention.head_count_kv", kKvHeads);
  for (const GgufTensor& tensor : file.tensors()) {
    std::vector<std::byte> data(tensor.data, tensor.data + tensor.bytes);
    std::vector<int64_t> shape = tensor.shape;
    if (tensor.name.ends_with("attn_k.weight") || tensor.name.ends_with("attn_v.weight")) {
      const int kv_heads = kKvHeads[tensor.name[4] - '0'];  // blk.N.
      data = repeat_heads(tensor, kv_heads, repeated ? kHeads / kv_heads : 1);
      if (!repeated) shape[1] = shape[1] * kv_heads / kHeads;
    }
    writer.add_tensor(std::string(tensor.name), tensor.type, shape, data);
  }
  return open_kept(writer);
}

std::shared_ptr<const Model> narrow() {
  static const auto model = with_heads(false);
  return model;
}

void expect_close(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::fmax(largest, std::fabs(a[i] - b[i]));
  EXPECT_LE(largest, kArrayRounding);
  EXPECT_TRUE(std::isfinite(a[0]));
}

TEST(SessionArrays, LayersHaveTheHeadsOfTheFile) {
  Session session(narrow(), runtime());
  ASSERT_EQ(session.sequence().layers(), 3);
  EXPECT_EQ(session.sequence().max_heads(), 4);
  session.append(tokens(100));
  for (int layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(narrow()->config().layer(layer).kv_heads, kKvHeads[layer]);
    EXPECT_EQ(narrow()->config().layer(layer).heads, kHeads);
    const PagedKv& kv = session.sequence().kv(layer);
    EXPECT_EQ(kv.heads(), kKvHeads[layer]);
    for (int head = 0; head < kv.heads(); ++head) EXPECT_EQ(kv.table(head).size(), 2u);
  }
  const PageStore& store = session.sequence().kv(0).store();
  EXPECT_EQ(store.bytes_in_use(), 2 * (1 + 4 + 2) * store.shape().bytes());
}

TEST(SessionArrays, FewerHeadsEqualTheSameHeadsRepeated) {
  const auto repeated = with_heads(true);
  const SessionOptions options{.cache = "f32"};
  Session few(narrow(), runtime(), options), many(repeated, runtime(), options);
  for (Session* session : {&few, &many}) session->append(tokens(300));
  expect_close(logits_of(few), logits_of(many));
  Session fork = few.fork(), other = many.fork();
  for (Session* session : {&fork, &other}) {
    steps(*session, tokens(20, 2));
    session->rewind(90);
    session->mask(10, 30);
    session->move_to(1000);
    steps(*session, tokens(10, 3));
  }
  expect_close(logits_of(fork), logits_of(other));
  for (Session* session : {&few, &many}) steps(*session, tokens(5, 4));
  expect_close(logits_of(few), logits_of(many));
}

TEST(SessionArrays, ChunksAndSingleTokensChangeResultsByRoundingOnly) {
  const auto read = [](int64_t chunk) {
    Session session(narrow(), runtime(), {.chunk = chunk, .cache = "f32"});
    session.append(tokens(300));
    return logits_of(session);
  };
  const std::vector<float> whole = read(512);
  expect_close(read(7), whole);
  expect_close(read(1), whole);
}

TEST(SessionArrays, FeedForwardWidthsMayDiffer) {
  const auto model = [](const std::vector<int32_t>& widths) {
    test::TinyFile tiny;
    tiny.extra = [&](GgufWriter& writer) { writer.set_integers("llama.feed_forward_length", widths); };
    tiny.reshape = [&](const std::string& name, std::vector<int64_t>& shape) {
      if (name.find("ffn_") == std::string::npos || name.find("norm") != std::string::npos) return;
      shape[name.find("down") == std::string::npos ? 1 : 0] = widths[name[4] - '0'];
    };
    return test::open_tiny(tiny);
  };
  Session differ(model(kWidths), runtime()), equal(model({96, 96, 96}), runtime()),
      plain(test::floats(), runtime());
  for (Session* session : {&differ, &equal, &plain}) session->append(tokens(100));
  EXPECT_EQ(logits_of(equal), logits_of(plain)) << "an array of equal numbers";
  EXPECT_NE(logits_of(differ), logits_of(plain));
  Session whole(model(kWidths), runtime(), {.cache = "f32"}), ones(model(kWidths), runtime(), {.cache = "f32"});
  whole.append(tokens(100));
  steps(ones, tokens(100));
  expect_close(logits_of(ones), logits_of(whole));
  EXPECT_EQ(differ.model().config().layer(1).ffn_width, 32);
}

TEST(SessionArrays, RejectsInconsistentFiles) {
  const auto error_of = [](const std::vector<int32_t>& kv_heads) -> std::string {
    test::TinyFile tiny;
    tiny.extra = [&](GgufWriter& writer) { writer.set_integers("llama.attention.head_count_kv", kv_heads); };
    try {
      test::open_tiny(tiny);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(error_of({2, 2, 2}), "");
  EXPECT_NE(error_of({2, 2}).find("head_count_kv has 2 numbers, expected one for each of 3 layers"),
            std::string::npos);
  EXPECT_NE(error_of({2, 3, 2}).find("4 heads cannot share 3"), std::string::npos);
  EXPECT_NE(error_of({2, -1, 2}).find("head_count_kv is -1"), std::string::npos);
  EXPECT_NE(error_of({2, 4, 2}).find("blk.1.attn_k.weight"), std::string::npos) << "its tensors have 2 heads";
  EXPECT_NE(error_of({2, 0, 2}).find("llama.attention.head_count_kv is 0 in layer 1"), std::string::npos);
}

/// Returns the logits of a session after reading and decoding, and those of a fork after a rewind.
std::vector<float> run(const SessionOptions& options) {
  Session session(narrow(), runtime(), options);
  session.append(tokens(500));
  Session fork = session.fork();
  fork.append(tokens(300, 3));
  fork.rewind(400);
  fork.append(tokens(300, 3));
  steps(session, tokens(20, 2));
  std::vector<float> both = logits_of(session);
  both.insert(both.end(), fork.logits().begin(), fork.logits().end());
  return both;
}

TEST(SessionArrays, MethodsWhoseBudgetCoversTheLengthEqualDense) {
  const std::vector<float> dense = run({});
  for (const char* attend :
       {"window:window=4k", "quest:budget=100k,dense_layers=0", "hip:budget=100k,dense_layers=0",
        "tokenselect:budget=100k", "recycled:budget=100k", "shadowkv:budget=100k",
        "squeezed:pruned=0,min_context=128", "infllm:window=100k", "em-llm:window=100k", "actqkv:window=100k",
        "layers:full=1,then=quest", "tempscale:tau=1"})
    EXPECT_EQ(run({.attend = attend}), dense) << attend;
  for (const std::string evict : {"streaming", "knorm", "keydiff", "tova", "snapkv", "h2o", "sirllm", "expected"}) {
    EXPECT_EQ(run({.evict = evict + ":budget=100k"}), dense) << evict;
    EXPECT_EQ(run({.evict = evict + ":budget=100k,positions=compacted"}), dense) << evict;
  }
}

TEST(SessionArrays, MethodsWithASmallBudgetWorkWithDifferentHeads) {
  const std::vector<float> dense = run({});
  for (const char* attend :
       {"quest:budget=128,dense_layers=0", "hip:budget=64,window=32,dense_layers=0",
        "tokenselect:budget=64,window=64", "recycled:budget=64,stride=4", "shadowkv:budget=64,outliers=2",
        "shadowkv:budget=64,outliers=2,rank=8", "squeezed:min_context=200,pruned=0.5,iterations=3",
        "infllm:window=64,sink=16,block=32,topk=2", "em-llm:window=64,sink=16,max=32,budget=64",
        "actqkv:window=64,sink=16,topk=2"}) {
    const std::vector<float> found = run({.attend = attend});
    EXPECT_NE(found, dense) << attend;
    for (const float logit : found) ASSERT_TRUE(std::isfinite(logit)) << attend;
  }
}

TEST(SessionArrays, EvictorsKeepTheirBudgetInEachLayer) {
  for (const std::string evict : {"streaming", "knorm", "keydiff", "tova", "snapkv", "h2o", "sirllm", "expected"}) {
    for (const char* more : {"", ",positions=compacted", ",heads=ada", ",critical=true"}) {
      if (more == std::string(",critical=true") && (evict == "streaming" || evict == "knorm" || evict == "keydiff"))
        continue;
      SCOPED_TRACE(evict + more);
      Session session(narrow(), runtime(), {.chunk = 128, .evict = evict + ":budget=100,slack=10" + more});
      session.append(tokens(500));
      steps(session, tokens(5, 2));
      for (int layer = 0; layer < 3; ++layer) {
        const PagedKv& kv = session.sequence().kv(layer);
        int64_t visible = 0;
        for (int head = 0; head < kv.heads(); ++head)
          for (const PageEntry& entry : kv.table(head)) visible += std::popcount(entry.mask);
        EXPECT_LE(visible, 110 * kv.heads());
        EXPECT_GE(visible, 100 * kv.heads());
      }
      for (const float logit : session.logits()) ASSERT_TRUE(std::isfinite(logit));
    }
  }
}

}  // namespace
}  // namespace fathom
