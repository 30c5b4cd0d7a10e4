// InfLLM with probe queries: in the mean query of a chunk, unusual queries have more weight. Layers with
// concentrated block scores get fewer blocks.
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

constexpr size_t kSamples = 100;  // the mean of this many entropies of a layer determines its number of blocks
constexpr double kMinShare = 32.0 / 46;  // minimum number of blocks of a layer, as a share of topk
constexpr float kVarianceFloor = 0.01f;  // share of the mean variance that is added to each channel's variance

/// Mean and variance of each channel of a layer's queries. After `memory` chunks it is an exponential moving
/// average.
struct QueryStatistics {
  std::vector<float> mean, variance;  // [heads · key_dim]
  double chunks = 0;                  // a short chunk counts as a fraction of a whole one

  /// Adds the queries of a chunk: [rows, width].
  void add(const std::vector<float>& queries, int64_t rows, double share, double memory, ThreadPool& pool);
  /// Returns [rows] weights that sum to 1, in proportion to the squared distance of each query from the mean, in
  /// units of the channels' standard deviations.
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
        const float deviation = query[c] - sums[c] / static_cast<float>(rows);
        squares[c] += deviation * deviation;
      }
    }
    for (int64_t c = 0; c < n; ++c) {
      float& m = mean[begin + c];
      float& v = variance[begin + c];
      const float deviation = sums[c] / static_cast<float>(rows) - m;
      v += weight * (squares[c] / static_cast<float>(rows) + (1 - weight) * deviation * deviation - v);
      m += weight * deviation;
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
      const float deviation = query[c] - mean[c];
      weights[r] += deviation * deviation / std::max(variance[c] + floor, 1e-30f);
    }
  });
  const float sum = std::accumulate(weights.begin(), weights.end(), 0.0f);
  for (float& w : weights) w = sum > 0 ? w / sum : 1.0f / static_cast<float>(rows);
  return weights;
}

/// The queries, in one layer, of a question that precedes the text.
struct QuestionQueries {
  int64_t read = 0;            // sequence index after the last recorded token of the question
  std::vector<float> queries;  // [recorded tokens, heads, key_dim]; empty once `vector` is set
  std::vector<float> vector;   // [heads, key_dim] rotated by rotate_far(); empty until the question is complete
};

/// The statistics and entropies describe the text as a whole; a rewind does not restore earlier ones.
struct ProbeState final : BlockState {
  ProbeState(std::vector<int> heads, const BlockOptions& options)
      : BlockState(std::move(heads), options),
        statistics(layers.size()),
        entropies(layers.size()),
        questions(layers.size()) {}
  std::unique_ptr<SequenceState> fork() const override { return std::make_unique<ProbeState>(*this); }

  void rewind(int64_t tokens) override;
  void save(ByteWriter& out, const Sequence& sequence) const override;
  void load(ByteReader& in, const Sequence& sequence) override;

  TokenRange question_tokens;                // of the method
  std::vector<QueryStatistics> statistics;   // [layers]
  std::vector<std::deque<float>> entropies;  // [layers] the newest, at most kSamples
  std::vector<QuestionQueries> questions;    // [layers]
  // The following are valid during one forward pass and are not saved.
  int64_t first = -1;   // sequence index of the first token of the forward pass that `left` is for
  int last_layer = -1;  // the latest layer whose number of blocks was determined
  int64_t left = 0;     // blocks that remain for the layers after it
};

void ProbeState::rewind(int64_t tokens) {
  BlockState::rewind(tokens);
  for (QuestionQueries& question : questions) {
    if (question.read > tokens) question = {};
  }
}

void ProbeState::save(ByteWriter& out, const Sequence& sequence) const {
  BlockState::save(out, sequence);
  for (size_t i = 0; i < layers.size(); ++i) {
    out.add_list(statistics[i].mean);
    out.add_list(statistics[i].variance);
    out.add(statistics[i].chunks);
    out.add_list(std::vector<float>(entropies[i].begin(), entropies[i].end()));
    out.add(questions[i].read);
    out.add_list(questions[i].queries);
    out.add_list(questions[i].vector);
  }
}

void ProbeState::load(ByteReader& in, const Sequence& sequence) {
  BlockState::load(in, sequence);
  for (size_t i = 0; i < layers.size(); ++i) {
    const SequenceLayer layer = layer_of(sequence, i);
    const auto width = static_cast<size_t>(layer.query_width());
    const auto take_vector = [&] {
      std::vector<float> vector = in.take_list<float>();
      in.check(vector.empty() || vector.size() == width, "expected a vector of 0 or ", width, " numbers, found ",
               vector.size());
      return vector;
    };
    statistics[i].mean = take_vector();
    statistics[i].variance = in.take_list<float>(statistics[i].mean.size());
    statistics[i].chunks = in.take<double>();
    const std::vector<float> samples = in.take_list_up_to<float>(kSamples);
    entropies[i].assign(samples.begin(), samples.end());
    QuestionQueries& question = questions[i];
    question.read = in.take_int("tokens with questions", 0, std::min(layer.tokens(), question_tokens.end));
    question.queries = in.take_list<float>();
    question.vector = take_vector();
    const int64_t recorded = std::max<int64_t>(0, question.read - question_tokens.begin);
    const size_t expected = question.vector.empty() ? static_cast<size_t>(recorded) * width : 0;
    in.check(question.queries.size() == expected, "expected ", expected,
             " numbers of the question's queries, found ", question.queries.size());
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
      fail_usage("attend method actqkv: expected a question_end of at least question_begin, found question_begin=",
                 question_.begin, " and question_end=", question_.end);
    }
  }

 protected:
  std::unique_ptr<BlockState> make_state() const override {
    auto state = BlockSelectorWith::make_state();
    state_as<ProbeState>(*state).question_tokens = question_;
    return state;
  }

  int64_t block_end(int64_t begin, int64_t, const LayerQueries&, ProbeState&, ThreadPool&) const override {
    return begin + block_;
  }

  std::vector<uint32_t> select_blocks(const QueryChunk& chunk, int64_t, ProbeState& state,
                                      ThreadPool& pool) const override {
    const LayerBlocks& layer = state.layers[chunk.layer.layer];
    const std::vector<float> probe = probe_of(chunk, state.statistics[chunk.layer.layer], pool);
    std::vector<float> scores = cosines(layer, probe, pool);
    const std::vector<float>& question = state.questions[chunk.layer.layer].vector;
    if (!question.empty() && chunk.layer.rows > 1) {
      const std::vector<float> more = cosines(layer, question, pool);
      for (size_t b = 0; b < scores.size(); ++b) scores[b] += question_weight_ * more[b];
    }
    return best_blocks(scores, block_count(chunk, scores, state));
  }

  /// Records the queries of the question until it is complete.
  void after_selection(const QueryChunk& chunk, ProbeState& state) const override {
    QuestionQueries& question = state.questions[chunk.layer.layer];
    const int64_t begin = std::max(chunk.first(), question_.begin);
    const int64_t end = std::min(chunk.first() + chunk.rows, question_.end);
    if (begin >= end || begin != (question.queries.empty() ? question_.begin : question.read)) return;
    const float* from = chunk.query(begin - chunk.first());
    for (int64_t t = begin; t < end; ++t, from += chunk.layer.stride)
      question.queries.insert(question.queries.end(), from, from + chunk.width());
    question.read = end;
    if (end < question_.end) return;
    question.vector.resize(chunk.width());
    for (int head = 0; head < chunk.layer.kv->heads(); ++head) represent_question(chunk.layer, head, question);
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

  /// Computes question.vector for the query heads of one key/value head: the mean query of those question tokens
  /// whose keys score highest with the sum of the question's queries.
  void represent_question(const LayerQueries& queries, int kv_head, QuestionQueries& question) const {
    const int64_t dim = queries.kv->shape().key_dim, width = std::ssize(question.vector);
    UnrotatedKeys raw;
    read_unrotated_keys(*queries.kv, kv_head, question_, raw);
    const std::vector<float> keys = rotated_keys(queries, raw);
    std::vector<int> visible;
    for (int t = 0; t < std::ssize(raw.positions); ++t) {
      if (raw.positions[t] >= 0) visible.push_back(t);
    }
    for (int h = kv_head * queries.group(); h < (kv_head + 1) * queries.group(); ++h) {
      UnrotatedKeys own = raw;  // with queries in place of the keys
      for (const int t : visible)
        std::copy_n(question.queries.data() + t * width + h * dim, dim, &own.keys[t * dim]);
      const std::vector<float> rotated = rotated_keys(queries, own);
      std::vector<float> sum(dim);
      for (const int t : visible) {
        for (int64_t d = 0; d < dim; ++d) sum[d] += rotated[t * dim + d];
      }
      float* out = question.vector.data() + h * dim;
      const auto best =
          best_tokens(keys.data(), static_cast<int>(dim), visible, sum.data(), options().representatives);
      for (const int t : best) {
        for (int64_t d = 0; d < dim; ++d) out[d] += own.keys[t * dim + d] / static_cast<float>(best.size());
      }
    }
  }

  /// Returns the weighted mean of a chunk's queries, rotated by rotate_far().
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

  /// Returns the number of blocks of a layer. With by_layer, single rows and kSamples entropies, the layers share
  /// topk · layers blocks in proportion to their mean entropies. Otherwise it is topk.
  int64_t block_count(const QueryChunk& chunk, const std::vector<float>& scores, ProbeState& state) const {
    const int number = chunk.layer.layer;
    std::deque<float>& samples = state.entropies[number];
    samples.push_back(entropy(*chunk.layer.kernels, scores));
    if (samples.size() > kSamples) samples.pop_front();
    if (!by_layer_ || chunk.layer.rows > 1 || samples.size() < kSamples) return topk_;
    double later = 0;
    int64_t layers = 0, after = 0;
    for (int l = 0; l < std::ssize(state.entropies); ++l) {
      if (state.entropies[l].empty()) continue;  // a layer with another method
      ++layers;
      if (l >= number) later += mean(state.entropies[l]);
      if (l > number) ++after;
    }
    if (state.first != chunk.layer.first || number <= state.last_layer) state.left = topk_ * layers;
    state.first = chunk.layer.first;
    state.last_layer = number;
    const auto fewest = static_cast<int64_t>(std::llround(kMinShare * static_cast<double>(topk_)));
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

  /// Returns the entropy of softmax(scores) as a share of its maximum.
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
       topk_parameter(
           {.value = "46",
            .min = 1,
            .max = 1e9,
            .summary =
                "older blocks visible to a layer, on average; more is closer to dense attention and slower"}),
       {"warmup",
        Type::kFloat,
        "31",
        "chunks before queries are weighted, and over which their statistics are averaged; more adapts slower",
        0.01,
        1e9,
        {}},
       {"by_layer",
        Type::kBool,
        "true",
        "true: while generating, layers with evenly spread block scores get more blocks, the others fewer",
        {},
        {},
        {}},
       {"question_begin",
        Type::kInt,
        "0",
        "index of the question's first token, if the question precedes the text",
        0,
        1e12,
        {}},
       {"question_end",
        Type::kInt,
        "0",
        "index of the token after the question; 0: no question is known",
        0,
        1e12,
        {}},
       {"question_weight",
        Type::kFloat,
        "4",
        "weight of similarity to the question while a text is read; more favours blocks about it",
        0,
        1e6,
        {}}});
  return {
      {.name = "actqkv",
       .summary = "infllm with probe queries that weight unusual queries more; layers with concentrated block "
                  "scores get fewer blocks",
       .paper = "Activation-aware Probe-Query: Effective Key-Value Retrieval for Long-Context LLMs Inference, 2025",
       .needs = "any model",
       .time = "O(sink + topk * block + window + n / block) per token",
       .memory = "O(n): nothing is evicted; a vector of all query heads for each block and for each 64 tokens of "
                 "the last two windows",
       .parameters = std::move(parameters),
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true, .works_with_drafts = true}},
      [](const Values& values) { return std::make_unique<ActQkv>(values); }};
}

}  // namespace fathom
