#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "attend/attention.h"
#include "base/error.h"
#include "base/utf8.h"
#include "shared_data.h"
#include "small_reader.h"
#include "tokens/prompt.h"

namespace fathom {
namespace {

using test::kQuestion;
using test::long_text;

class GemFilterTest : public test::SmallReader {
 protected:
  static std::string read(const std::string& spec, std::string_view text, const ReaderContext& model) {
    return read_methods().make(spec)->read(text, kQuestion, model);
  }
  static std::vector<int32_t> encode(std::string_view text) {
    return tokenizer_->encode(text, {.add_bos_eos = false});
  }
};

/// Records the queries of a sequence's last token in one layer.
class LastQueries final : public AttentionWatcher {
 public:
  LastQueries(int layer, int64_t tokens, int kv_heads) : of_head(kv_heads), layer_(layer), tokens_(tokens) {}
  bool watches(int layer) const override { return layer == layer_; }
  void observe(const AttendedBlock& attended) override {
    const QueryBlock& block = attended.block;
    if (block.first + block.rows != tokens_) return;
    const int64_t floats = static_cast<int64_t>(block.group) * attended.kv.shape().key_dim;
    of_head[block.head].assign(block.queries + (block.rows - 1) * floats, block.queries + block.rows * floats);
  }
  std::vector<std::vector<float>> of_head;  // [kv_heads][group, key_dim]

 private:
  int layer_;
  int64_t tokens_;
};

/// Returns all keys of a head, rotated to their positions in double precision: [tokens, key_dim].
std::vector<double> keys_of(const PagedKv& kv, int head) {
  const PageShape& shape = kv.shape();
  const PositionRotations& rotations = kv.rotations();
  std::vector<double> keys;
  std::vector<float> key(shape.key_dim), spare(shape.key_dim);
  for (const PageEntry& entry : kv.table(head)) {
    const PositionRotations::View rotation = rotations.at(entry.position, spare.data());
    for (int t = 0; t < entry.filled; ++t) {
      read_key(shape.format, shape.key_dim, kv.store().keys(entry.page), t, key.data());
      const size_t at = keys.size();
      keys.insert(keys.end(), key.begin(), key.end());
      for (int i = 0; i < rotations.pairs(); ++i) {
        const double even = key[2 * i], odd = key[2 * i + 1];
        keys[at + 2 * i] = even * rotation.cos[i] - odd * rotation.sin[i];
        keys[at + 2 * i + 1] = even * rotation.sin[i] + odd * rotation.cos[i];
      }
    }
  }
  return keys;
}

/// Returns the scores of all tokens by definition: q·k, or with `attention` its softmax, summed over heads and over
/// `width` neighbours.
std::vector<double> pooled_scores(const Session& session, int layer, const LastQueries& queries, int64_t width,
                                  bool attention) {
  const PagedKv& kv = session.sequence().kv(layer);
  const int64_t n = kv.tokens(), dim = kv.shape().key_dim;
  std::vector<double> sums(n + width - 1), pooled(n);  // sums is padded with zeros at both ends
  for (int head = 0; head < kv.heads(); ++head) {
    const std::vector<double> keys = keys_of(kv, head);
    const std::vector<float>& q = queries.of_head[head];
    for (size_t h = 0; h < q.size() / dim; ++h) {
      std::vector<double> scores(n);
      for (int64_t t = 0; t < n; ++t)
        scores[t] = std::inner_product(&q[h * dim], &q[h * dim] + dim, &keys[t * dim], 0.0);
      double all = 0;
      for (const double score : scores) all += std::exp(score);
      for (int64_t t = 0; t < n; ++t) sums[t + width / 2] += attention ? std::exp(scores[t]) / all : scores[t];
    }
  }
  for (int64_t t = 0; t < n; ++t) pooled[t] = std::accumulate(&sums[t], &sums[t] + width, 0.0);
  return pooled;
}

/// Returns the text of the `count` tokens with the highest scores. scores: [ids].
std::string text_of_best(const std::vector<int32_t>& ids, const double* scores, int64_t count,
                         const Tokenizer& tokenizer) {
  std::vector<int64_t> order(ids.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::ranges::sort(order, [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  std::ranges::sort(order.begin(), order.begin() + count);
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += tokenizer.piece(ids[order[i]]);
  return text.starts_with(' ') ? text.substr(1) : text;  // encoding adds the space again
}

TEST_F(GemFilterTest, KeepsTheTextOfTheTokensWithTheHighestScores) {
  const std::string text = long_text(40, 17);
  const std::vector<int32_t> ids = encode(text), question = encode(kQuestion);
  std::vector<int32_t> all = bos_tokens(*tokenizer_);
  const auto first = std::ssize(all);
  all.insert(all.end(), ids.begin(), ids.end());
  all.insert(all.end(), question.begin(), question.end());
  for (const int layer : {0, 3}) {
    Session session(model_, runtime_);
    LastQueries queries(layer, std::ssize(all), session.sequence().kv(layer).heads());
    session.watch(&queries);
    session.append(all);
    for (const int pool : {1, 5, 15}) {
      for (const bool attention : {false, true}) {
        const std::vector<double> scores = pooled_scores(session, layer, queries, pool, attention);
        for (const int64_t count : {1, 200}) {
          std::string spec = concat("gemfilter:layer=", layer, ",budget=", count);
          if (pool != 5) spec += concat(",pool=", pool);
          if (attention) spec += ",by=attention";
          EXPECT_EQ(read(spec, text, reader_context()), text_of_best(ids, &scores[first], count, *tokenizer_))
              << spec;
        }
      }
    }
  }
}

TEST_F(GemFilterTest, ATextWithinTheBudgetIsReturnedUnchanged) {
  const std::string text = long_text(30, 7);
  const int64_t n = count(text);
  EXPECT_EQ(read(concat("gemfilter:budget=", n), text, reader_context()), text);
  EXPECT_EQ(read_, 0) << "nothing is read";
  const std::string kept = read(concat("gemfilter:budget=", n - 1), text, reader_context());
  EXPECT_LT(kept.size(), text.size());
  EXPECT_EQ(read("gemfilter", "", reader_context()), "");
}

TEST_F(GemFilterTest, ReadsTheTextOnceInItsFirstLayers) {
  const std::string text = long_text(120, 70);
  std::vector<int> layers;
  int64_t progress = 0;
  ReaderContext custom = reader_context();
  custom.session = [&](int first) {
    layers.push_back(first);
    return Session(model_, runtime_, {.layers = first});
  };
  custom.progress = [&](int64_t done) {
    EXPECT_GT(done, progress);
    progress = done;
  };
  read("gemfilter:layer=1,budget=100", text, custom);
  EXPECT_EQ(layers, (std::vector{0, 2})) << "the first session is opened only to get the number of layers";
  EXPECT_EQ(progress, std::ssize(bos_tokens(*tokenizer_)) + count(text) + count(kQuestion));
  layers.clear();
  progress = 0;
  read("gemfilter:budget=100", text, custom);
  EXPECT_EQ(layers, (std::vector{0, 3})) << "40 % of four layers, rounded, precede the layer that selects";
}

TEST_F(GemFilterTest, TheResultFitsTheWindow) {
  const std::string text = long_text(150, 70);
  for (const int64_t window : {200, 500, 1024}) {
    const std::string kept = read("gemfilter:budget=10k", text, reader_context(window));
    EXPECT_LE(count(kept) + count(kQuestion), window);
    EXPECT_GE(count(kept) + count(kQuestion), window * 2 / 3) << "most of the window is used";
  }
}

TEST_F(GemFilterTest, CharactersAreCompleteAndInOrder) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "Ω𝄞漢字 ünï " + std::to_string(i) + " 🙂🙃…\n";
  for (const int tokens : {5, 37, 200, 500}) {
    const std::string kept = read(concat("gemfilter:layer=1,budget=", tokens), text, reader_context());
    EXPECT_EQ(utf8_valid_prefix(kept), kept.size());
    size_t at = 0;
    for (size_t i = 0; i < kept.size(); i += utf8_length(std::string_view(kept).substr(i))) {
      const std::string_view character = std::string_view(kept).substr(i, utf8_length(&kept[i]));
      at = text.find(character, at);
      ASSERT_NE(at, std::string::npos) << character;
      at += character.size();
    }
  }
}

TEST_F(GemFilterTest, EvictedTokensAreNotKept) {
  const std::string text = long_text(60, 50);
  ReaderContext custom = reader_context();
  custom.session = [&](int layers) {
    return Session(model_, runtime_, {.chunk = 128, .evict = "streaming:budget=256", .layers = layers});
  };
  const std::string kept = read("gemfilter:layer=1,budget=60", text, custom);
  EXPECT_FALSE(kept.empty());
  EXPECT_EQ(kept.find(" 20 "), std::string::npos) << kept;
  EXPECT_EQ(read("gemfilter:layer=1,budget=60", text, custom), kept);
}

class GemFilterWithFathomReader : public GemFilterTest {
 protected:
  static void SetUpTestSuite() { open("fathom-reader-q8_0.gguf"); }
};

/// In this model of six layers, the fifth layer finds the fact that answers the question; the first layer does not.
TEST_F(GemFilterWithFathomReader, AnEighthOfTheTextContainsTheFactForALayerThatFindsIt) {
  const auto found = [&](const std::string& spec) {
    int facts = 0;
    for (int depth = 0; depth < 5; ++depth) {
      const std::string text = long_text(80, depth * 16 + 3);
      const std::string kept = read(spec, text, reader_context(2048));
      EXPECT_LT(kept.size(), text.size() / 6);
      facts += kept.find("483920") != std::string::npos;
    }
    return facts;
  };
  EXPECT_GE(found("gemfilter:layer=4,budget=200,pool=15,by=attention"), 5);
  EXPECT_LE(found("gemfilter:layer=0,budget=200,pool=15,by=attention"), 1);
}

TEST_F(GemFilterTest, ALayerOutsideTheModelIsAUsageError) {
  for (const char* text : {"", "A short text."}) {
    try {
      read("gemfilter:layer=4", text, reader_context());
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kUsage);
      EXPECT_NE(std::string(error.what()).find("layer: expected 0 to 3 (the model has 4 layers) or -1, found 4"),
                std::string::npos)
          << error.what();
    }
  }
  EXPECT_THROW(read_methods().make("gemfilter:layer=-2"), Error);
  EXPECT_THROW(read_methods().make("gemfilter:budget=0"), Error);
  EXPECT_THROW(read_methods().make("gemfilter:pool=4"), Error);
}

TEST(GemFilter, ALayerWithoutAttentionIsAnError) {
  const std::string path = test::golden("tiny-mamba-f16") + ".gguf";
  FATHOM_NEEDS(path);
  const auto model = Model::open(path);
  const auto runtime = std::make_shared<Runtime>(1);
  const Tokenizer tokenizer(Vocabulary::read(*model->file()));
  const ReaderContext context{
      [&](int layers) { return Session(model, runtime, {.layers = layers}); }, tokenizer, 256, {}};
  try {
    read_methods().make("gemfilter:layer=1,budget=16")->read(long_text(80, 3), kQuestion, context);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    EXPECT_STREQ(error.what(), "read method gemfilter: layer: expected a layer with attention, layer 1 has none");
  }
}

}  // namespace
}  // namespace fathom
