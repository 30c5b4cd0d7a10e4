#include "decode/knn_lm.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "attend/methods.h"
#include "base/error.h"
#include "base/format.h"

namespace fathom {
namespace {

constexpr int64_t kRows = 128;  // rows of a forward pass, which bounds the memory of logits

/// Returns ln Σ exp(logit). Throws Error if there is no such number.
double checked_log_sum(std::span<const float> logits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float max = -kInfinity;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] < kInfinity))
      fail("the logit of token ", i, " is ", logits[i], ", expected a finite number or -inf");
    max = std::max(max, logits[i]);
  }
  if (max == -kInfinity) fail("all ", logits.size(), " logits are -inf");
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - max);
  return max + std::log(sum);
}

}  // namespace

HiddenStates::HiddenStates(Engine& engine)
    : engine_(engine), dense_(attend_methods().make("dense")), sequence_(engine.new_sequence({})) {
  if (engine.model().config().landmarks)
    fail_usage("this model was trained with landmarks, which hidden states for a datastore do not support");
}

void HiddenStates::read(std::span<const int32_t> tokens, bool with_logits, const Visit& visit,
                        const StopToken* stop) {
  const auto width = static_cast<size_t>(engine_.model().config().width);
  const auto vocabulary = static_cast<size_t>(engine_.model().config().vocabulary);
  const int last_layer = sequence_.layers() - 1;
  std::vector<int64_t> outputs(std::min<size_t>(kRows, tokens.size()));
  std::iota(outputs.begin(), outputs.end(), 0);
  for (size_t begin = 0; begin < tokens.size(); begin += kRows) {
    Rows rows;
    rows.sequence = &sequence_;
    rows.policy.selector = dense_.get();
    rows.tokens = tokens.subspan(begin, std::min<size_t>(kRows, tokens.size() - begin));
    rows.output_rows = std::span(outputs).first(rows.tokens.size());
    rows.top_k = with_logits ? 0 : 1;
    rows.hidden_layers = {&last_layer, 1};
    rows.stop = stop;
    engine_.forward({&rows, 1});
    rows.result.throw_if_failed();
    const std::span<const float> hidden(rows.result.hidden), logits(rows.result.logits);
    for (size_t i = 0; i < rows.tokens.size(); ++i)
      visit(static_cast<int64_t>(begin + i), hidden.subspan(i * width, width),
            with_logits ? logits.subspan(i * vocabulary, vocabulary) : std::span<const float>());
  }
}

std::vector<float> datastore_key(std::span<const float> hidden) {
  double squares = 0;
  for (const float value : hidden) squares += double{value} * value;
  if (!std::isfinite(squares)) fail("a hidden state holds a number that is not finite");
  const double scale = squares > 0 ? std::sqrt(static_cast<double>(hidden.size()) / squares) : 0;
  std::vector<float> key(hidden.size());
  std::ranges::transform(hidden, key.begin(), [&](float value) { return static_cast<float>(value * scale); });
  return key;
}

Datastore build_datastore(Engine& engine, std::span<const std::vector<int32_t>> texts,
                          const DatastoreBuildOptions& options) {
  if (options.window < 1 || options.overlap < 0 || options.overlap >= options.window)
    fail_usage("datastore: expected an overlap from 0 to less than the window, found ", options.overlap, " and ",
               options.window);
  const DatastoreModel model = DatastoreModel::of(engine.model());
  int64_t entries = 0;
  for (const std::vector<int32_t>& text : texts) {
    engine.check_tokens(text);
    entries += std::max<int64_t>(0, std::ssize(text) - 1);
  }
  if (entries == 0) fail("datastore: expected texts of at least 2 tokens, found none");
  const int64_t most = options.memory / (model.width * static_cast<int64_t>(sizeof(float)));
  if (entries > most)
    fail("datastore: the keys of ", entries, " tokens need more than ",
         format_bytes(static_cast<double>(options.memory)), ": expected at most ", most,
         " tokens or a higher limit");

  std::vector<float> keys;
  std::vector<int32_t> values;
  keys.reserve(entries * model.width);
  values.reserve(entries);
  for (const std::vector<int32_t>& text : texts) {
    // `done`: tokens of the text that have an entry
    for (int64_t done = 0; done + 1 < std::ssize(text);) {
      const int64_t begin = std::max<int64_t>(0, done - options.overlap);
      const int64_t end = std::min(begin + options.window, std::ssize(text) - 1);
      HiddenStates(engine).read(
          std::span(text).subspan(begin, end - begin), false,
          [&](int64_t index, std::span<const float> hidden, std::span<const float>) {
            if (begin + index < done) return;
            const std::vector<float> key = datastore_key(hidden);
            keys.insert(keys.end(), key.begin(), key.end());
            values.push_back(text[begin + index + 1]);
          },
          options.stop);
      done = end;
      if (options.progress) options.progress(std::ssize(values));
    }
  }
  return Datastore(model, keys, values, options.index);
}

KnnLm::KnnLm(std::shared_ptr<const Datastore> datastore, KnnLmOptions options)
    : datastore_(std::move(datastore)), options_(options) {
  if (options.neighbours < 1) fail_usage("kNN-LM: expected at least 1 neighbour, found ", options.neighbours);
  if (!(options.lambda >= 0 && options.lambda <= 1))
    fail_usage("kNN-LM: expected lambda from 0 to 1, found ", options.lambda);
  if (!(options.temperature > 0) || !std::isfinite(options.temperature))
    fail_usage("kNN-LM: expected a temperature above 0, found ", options.temperature);
}

std::vector<std::pair<int32_t, double>> KnnLm::distribution(std::span<const float> hidden) const {
  const std::vector<DatastoreNeighbour> neighbours = datastore_->search(datastore_key(hidden), options_.neighbours);
  std::map<int32_t, double> votes;
  double sum = 0;
  for (const DatastoreNeighbour& neighbour : neighbours) {
    const double vote = std::exp((double{neighbours[0].distance} - neighbour.distance) / options_.temperature);
    votes[neighbour.token] += vote;
    sum += vote;
  }
  std::vector<std::pair<int32_t, double>> distribution(votes.begin(), votes.end());
  for (auto& [token, probability] : distribution) probability /= sum;
  return distribution;
}

void KnnLm::mix(std::span<const float> hidden, std::span<float> logits) const {
  if (std::ssize(logits) != datastore_->model().vocabulary)
    fail("kNN-LM: expected ", datastore_->model().vocabulary, " logits, found ", logits.size());
  const double log_sum = checked_log_sum(logits);
  if (options_.lambda == 0) return;
  const auto nearest = distribution(hidden);
  if (nearest.empty()) return;                            // all scanned lists are empty
  const double log_share = std::log1p(-options_.lambda);  // −∞ for λ = 1
  for (float& logit : logits) logit = static_cast<float>(logit - log_sum + log_share);
  for (const auto& [token, probability] : nearest)
    logits[token] = static_cast<float>(std::log(std::exp(double{logits[token]}) + options_.lambda * probability));
}

}  // namespace fathom
