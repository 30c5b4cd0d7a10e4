// InfLLM asked by a probe: queries that differ from those before weigh more; layers that are sure see fewer blocks.
#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>

#include "attend/block_memory.h"
#include "attend/methods.h"
#include "attend/token_set.h"
#include "base/common_parameters.h"

namespace fathom {
namespace {

constexpr size_t kSamples = 100;         // of a layer's entropy, whose mean says how many blocks it needs
constexpr double kLeast = 32.0 / 46;     // of topk: so many blocks a layer sees in any case
constexpr float kVarianceFloor = 0.01f;  // of the mean variance: so much is added to that of each channel

/// What the queries of a layer have been like: mean and variance of each channel, over whole chunks. Once it has
/// seen `memory` of them, older ones fade.
struct QueryStatistics {
  std::vector<float> mean, variance;  // [heads·key_dim]
  double chunks = 0;                  // a short one counts for its share

  /// queries: [rows, width]
  void add(const std::vector<float>& queries, int64_t rows, double share, double memory, ThreadPool& pool);
  /// [rows] summing to 1: by how far each query is from the mean, in deviations, squared.
  std::vector<float> weights(const std::vector<float>& queries, int64_t rows, ThreadPool& pool) const;
};

void QueryStatistics::add(const std::vector<float>& queries, int64_t rows, double share, double memory,
                          ThreadPool& pool) {
  constexpr int64_t kChannelsOfPart = 256;
  const auto width = std::ssize(queries) / rows;
  mean.resize(width);
  variance.resize(width);
  const auto weight = static_cast<float>(share / (std::min(chunks, memory) + share));
  pool.parallel_for((width + kChannelsOfPart - 1) / kChannelsOfPart, [&](size_t part, int) {
    const int64_t begin = static_cast<int64_t>(part) * kChannelsOfPart,
                  n = std::min(kChannelsOfPart, width - begin);
    float sums[kChannelsOfPart] = {}, squares[kChannelsOfPart] = {};
    for (int64_t r = 0; r < rows; ++r) {
      const float* query = queries.data() + r * width + begin;
      for (int64_t c = 0; c < n; ++c) sums[c] += query[c];
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float* query = queries.data() + r * width + begin;
      for (int64_t c = 0; c < n; ++c) {
        const float off = query[c] - sums[c] / static_cast<float>(rows);
        squares[c] += off * off;
      }
    }
    for (int64_t c = 0; c < n; ++c) {
      float& m = mean[begin + c];
      float& v = variance[begin + c];
      const float off = sums[c] / static_cast<float>(rows) - m;
      v += weight * (squares[c] / static_cast<float>(rows) + (1 - weight) * off * off - v);
      m += weight * off;
    }
  });
  chunks += share;
}

std::vector<float> QueryStatistics::weights(const std::vector<float>& queries, int64_t rows,
                                            ThreadPool& pool) const {
  const auto width = std::ssize(mean);
  const float floor =
      kVarianceFloor * std::accumulate(variance.begin(), variance.end(), 0.0f) / static_cast<float>(width);
  std::vector<float> weights(rows);
  pool.parallel_for(rows, [&](size_t r, int) {
    const float* query = queries.data() + static_cast<int64_t>(r) * width;
    for (int64_t c = 0; c < width; ++c) {
      const float off = query[c] - mean[c];
      weights[r] += off * off / std::max(variance[c] + floor, 1e-30f);
    }
  });
  const float sum = std::accumulate(weights.begin(), weights.end(), 0.0f);
  for (float& w : weights) w = sum > 0 ? w / sum : 1.0f / static_cast<float>(rows);
  return weights;
}

/// What a text is read for, if its tokens are known beforehand.
struct Question {
  int64_t read = 0;            // tokens of the sequence up to here are known of it
  std::vector<float> queries;  // [read tokens of it, heads, key_dim], until all are there
  std::vector<float> vector;   // [heads, key_dim] as it meets far keys; empty: not all is there
};

/// A rewind brings back neither the statistics nor the entropies: they are of the text as a whole.
struct ProbeState final : BlockState {
  ProbeState(int layer_count, int64_t window_size)
      : BlockState(layer_count, window_size),
        statistics(layer_count),
        entropies(layer_count),
        questions(layer_count) {}
  std::unique_ptr<SequenceState> fork() const override { return std::make_unique<ProbeState>(*this); }

  void rewind(int64_t tokens) override;

  std::vector<QueryStatistics> statistics;   // [layers]
  std::vector<std::deque<float>> entropies;  // [layers] at most kSamples
  std::vector<Question> questions;           // [layers]
  int64_t first = -1;                        // of the forward pass that shares out what is left
  int last_layer = -1;                       // that has taken its share
  int64_t left = 0;                          // blocks for the layers after it
};

void ProbeState::rewind(int64_t tokens) {
  BlockState::rewind(tokens);
  for (Question& question : questions) {
    if (question.read > tokens) question = {};
  }
}

class ActQkv final : public BlockSelectorWith<ProbeState> {
 public:
  explicit ActQkv(const Values& values)
      : BlockSelectorWith(read_block_options(values)),
        block_(values.integer("block")),
        topk_(values.integer("topk")),
        warmup_(values.number("warmup")),
        by_layer_(values.boolean("by_layer")),
        question_{values.integer("question_begin"), values.integer("question_end")},
        question_weight_(static_cast<float>(values.number("question_weight"))) {
    if (question_.end < question_.begin) {
      fail_usage("attend method actqkv: expected a question_end of at least question_begin, found ", question_.end,
                 " and ", question_.begin);
    }
  }

 protected:
  int64_t block_end(int64_t begin, int64_t, const LayerQueries&, ProbeState&, ThreadPool&) const override {
    return begin + block_;
  }

  std::vector<uint32_t> choose(const QueryChunk& chunk, int64_t, ProbeState& state,
                               ThreadPool& pool) const override {
    const LayerBlocks& layer = state.layers[chunk.layer.layer];
    const std::vector<float> probe = probe_of(chunk, state.statistics[chunk.layer.layer], pool);
    std::vector<float> scores = cosines(layer, probe, pool);
    const std::vector<float>& question = state.questions[chunk.layer.layer].vector;
    if (!question.empty() && chunk.layer.rows > 1) {
      const std::vector<float> more = cosines(layer, question, pool);
      for (size_t b = 0; b < scores.size(); ++b) scores[b] += question_weight_ * more[b];
    }
    return best_blocks(scores, share_of(chunk, scores, state));
  }

  /// Keeps the queries of the question until all are there.
  void note(const QueryChunk& chunk, ProbeState& state) const override {
    Question& question = state.questions[chunk.layer.layer];
    const int64_t begin = std::max(chunk.first(), question_.begin);
    const int64_t end = std::min(chunk.first() + chunk.rows, question_.end);
    if (begin >= end || begin != (question.queries.empty() ? question_.begin : question.read)) return;
    const float* from = chunk.query(begin - chunk.first());
    for (int64_t t = begin; t < end; ++t, from += chunk.layer.stride)
      question.queries.insert(question.queries.end(), from, from + chunk.width());
    question.read = end;
    if (end < question_.end) return;
    question.vector.resize(chunk.width());
    for (int head = 0; head < chunk.layer.kv->heads(); ++head) answer(chunk.layer, head, question);
    rotate_far(chunk.layer, question.vector.data());
    question.queries = {};
  }

 private:
  static std::vector<float> cosines(const LayerBlocks& layer, const std::vector<float>& query, ThreadPool& pool) {
    std::vector<float> scores = block_scores(layer, query, pool);
    const float norm = std::sqrt(dot(query.data(), query.data(), static_cast<int>(query.size())));
    for (size_t b = 0; b < scores.size(); ++b) scores[b] /= std::max(norm * layer.blocks[b].norm, 1e-30f);
    return scores;
  }

  /// For the query heads of a key/value head: the mean query of the tokens that the question itself asks for most.
  void answer(const LayerQueries& queries, int kv_head, Question& question) const {
    const int64_t dim = queries.kv->shape().key_dim, width = std::ssize(question.vector);
    RawKeys raw;
    read_raw_keys(*queries.kv, kv_head, question_, raw);
    const std::vector<float> keys = rotated_keys(queries, raw);
    std::vector<int> seen;
    for (int t = 0; t < std::ssize(raw.positions); ++t) {
      if (raw.positions[t] >= 0) seen.push_back(t);
    }
    for (int h = kv_head * queries.group(); h < (kv_head + 1) * queries.group(); ++h) {
      RawKeys own = raw;  // the queries in place of the keys
      for (const int t : seen) std::copy_n(question.queries.data() + t * width + h * dim, dim, &own.keys[t * dim]);
      const std::vector<float> rotated = rotated_keys(queries, own);
      std::vector<float> sum(dim);
      for (const int t : seen) {
        for (int64_t d = 0; d < dim; ++d) sum[d] += rotated[t * dim + d];
      }
      float* out = question.vector.data() + h * dim;
      const auto best =
          best_tokens(keys.data(), static_cast<int>(dim), seen, sum.data(), options().representatives);
      for (const int t : best) {
        for (int64_t d = 0; d < dim; ++d) out[d] += own.keys[t * dim + d] / static_cast<float>(best.size());
      }
    }
  }

  /// The weighted mean of a chunk's queries, as they meet far keys.
  std::vector<float> probe_of(const QueryChunk& chunk, QueryStatistics& statistics, ThreadPool& pool) const {
    const int64_t width = chunk.width();
    std::vector<float> queries(chunk.rows * width), probe(width);
    const auto read = [&](size_t r, int) {
      float* query = queries.data() + static_cast<int64_t>(r) * width;
      std::copy_n(chunk.query(static_cast<int64_t>(r)), width, query);
      rotate_far(chunk.layer, query);
    };
    pool.parallel_for(chunk.rows, read);
    const double share = static_cast<double>(chunk.rows) / static_cast<double>(options().chunk);
    statistics.add(queries, chunk.rows, share, warmup_, pool);
    if (chunk.rows == 1) return queries;
    std::vector<float> weights(chunk.rows, 1.0f / static_cast<float>(chunk.rows));
    if (statistics.chunks > warmup_) weights = statistics.weights(queries, chunk.rows, pool);
    for (int64_t r = 0; r < chunk.rows; ++r) {
      const float* query = queries.data() + r * width;
      for (int64_t c = 0; c < width; ++c) probe[c] += weights[r] * query[c];
    }
    return probe;
  }

  /// How many blocks a layer sees: topk, or, when single tokens are read and all is known of the layers, a share of
  /// what they have together, by how undecided each is used to be.
  int64_t share_of(const QueryChunk& chunk, const std::vector<float>& scores, ProbeState& state) const {
    const int number = chunk.layer.layer;
    std::deque<float>& samples = state.entropies[number];
    samples.push_back(entropy(*chunk.layer.kernels, scores));
    if (samples.size() > kSamples) samples.pop_front();
    if (!by_layer_ || chunk.layer.rows > 1 || samples.size() < kSamples) return topk_;
    double later = 0;
    int64_t layers = 0, after = 0;
    for (int l = 0; l < std::ssize(state.entropies); ++l) {
      if (state.entropies[l].empty()) continue;  // another method's
      ++layers;
      if (l >= number) later += mean(state.entropies[l]);
      if (l > number) ++after;
    }
    if (state.first != chunk.layer.first || number <= state.last_layer) state.left = topk_ * layers;
    state.first = chunk.layer.first;
    state.last_layer = number;
    const auto fewest = static_cast<int64_t>(std::llround(kLeast * static_cast<double>(topk_)));
    const int64_t most = std::min(2 * topk_, state.left - after * fewest);
    const double share = later > 0 ? mean(samples) / later : 1 / static_cast<double>(after + 1);
    const int64_t count =
        std::clamp<int64_t>(std::llround(share * static_cast<double>(state.left)), std::min(fewest, most), most);
    state.left -= count;
    return count;
  }

  static double mean(const std::deque<float>& samples) {
    return std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size());
  }

  /// Of softmax(scores), as a share of the largest there can be.
  static float entropy(const Kernels& kernels, std::vector<float> scores) {
    if (scores.size() < 2) return 1;
    kernels.softmax(scores.data(), std::ssize(scores));
    double total = 0;
    for (const float p : scores) total -= p > 0 ? p * std::log(p) : 0;
    return static_cast<float>(total / std::log(static_cast<double>(scores.size())));
  }

  int64_t block_, topk_;
  double warmup_;
  bool by_layer_;
  TokenRange question_;
  float question_weight_;
};

}  // namespace

SelectorEntry actqkv_method() {
  using Type = Parameter::Type;
  std::vector<Parameter> parameters =
      block_parameters({.sink = 64, .window = 512, .chunk = 256, .representatives = 4});
  parameters.insert(
      parameters.end(),
      {block_parameter({.value = "32", .min = 8, .max = 1e9}),
       topk_parameter({.value = "46", .min = 1, .max = 1e9, .summary = "blocks visible to a layer, on average"}),
       {"warmup", Type::kFloat, "31", "chunks until queries are weighed, and that are remembered", 0.01, 1e9, {}},
       {"by_layer", Type::kBool, "true", "whether layers share out blocks when single tokens are read", {}, {}, {}},
       {"question_begin", Type::kInt, "0", "first token of the question, where a text opens with it", 0, 1e12, {}},
       {"question_end", Type::kInt, "0", "token after the question; 0: none is known", 0, 1e12, {}},
       {"question_weight",
        Type::kFloat,
        "4",
        "of the question's cosine, beside the queries' own, while a text is read",
        0,
        1e6,
        {}}});
  return {
      {.name = "actqkv",
       .summary = "infllm asked by the queries that differ from those before; layers that are sure of their blocks "
                  "see fewer",
       .paper = "Activation-aware Probe-Query: Effective Key-Value Retrieval for Long-Context LLMs Inference, 2025",
       .needs = "any model",
       .time = "O(sink + topk * block + window + n / block) per token",
       .memory =
           "O(n): nothing is dropped; a vector of all query heads for each block and for 64 tokens of two windows",
       .parameters = std::move(parameters),
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
      [](const Values& values) { return std::make_unique<ActQkv>(values); }};
}

}  // namespace fathom
