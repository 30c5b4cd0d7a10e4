// Measures kNN-LM on one text: the loss of its second part with a datastore of its first part, and what the
// datastore does to generated text. Usage: knn_lm_bench MODEL TEXT [STORED_TOKENS] [SCORED_TOKENS]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/file_map.h"
#include "base/stopwatch.h"
#include "decode/knn_lm.h"
#include "decode/sampler.h"
#include "tokens/tokenizer.h"

using namespace fathom;

namespace {

constexpr int64_t kWindow = 512;   // tokens read at once
constexpr int64_t kPrompt = 128;   // tokens of a prompt
constexpr int64_t kAnswer = 64;    // generated tokens that are compared with the text
constexpr int64_t kPrompts = 24;   // prompts from the scored part
constexpr int64_t kEntropy = 512;  // generated tokens along which entropies are measured
constexpr int64_t kEntropyRuns = 6;

struct Setup {
  Engine& engine;
  std::vector<int32_t> scored;
  std::shared_ptr<const Datastore> store;
};

double log_sum(std::span<const float> logits) {
  const float max = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - max);
  return max + std::log(sum);
}

/// Returns p_knn(token).
double probability_of(std::span<const DatastoreNeighbour> neighbours, int32_t token, double temperature) {
  double sum = 0, of_token = 0;
  for (const DatastoreNeighbour& neighbour : neighbours) {
    const double vote = std::exp((double{neighbours[0].distance} - neighbour.distance) / temperature);
    sum += vote;
    if (neighbour.token == token) of_token += vote;
  }
  return of_token / sum;
}

/// Prints loss and share of improved tokens for each temperature and lambda.
void score(const Setup& setup) {
  const std::vector<double> temperatures{1, 10, 20, 40, 80}, lambdas{0.1, 0.25, 0.5};
  std::vector<double> model;                      // p(token), by token
  std::map<double, std::vector<double>> nearest;  // p_knn(token), by temperature
  for (size_t begin = 0; begin + 1 < setup.scored.size(); begin += kWindow) {
    const auto window = std::span(setup.scored).subspan(begin);
    const size_t count = std::min<size_t>(kWindow, window.size() - 1);
    HiddenStates(setup.engine)
        .read(window.first(count), true,
              [&](int64_t i, std::span<const float> hidden, std::span<const float> logits) {
                const int32_t next = window[i + 1];
                model.push_back(std::exp(logits[next] - log_sum(logits)));
                const auto neighbours = setup.store->search(datastore_key(hidden), KnnLmOptions{}.neighbours);
                for (const double temperature : temperatures)
                  nearest[temperature].push_back(probability_of(neighbours, next, temperature));
              });
  }
  double plain = 0;
  for (const double p : model) plain -= std::log(p) / static_cast<double>(model.size());
  std::printf("%zu tokens, plain: %.4f nats, perplexity %.2f\n", model.size(), plain, std::exp(plain));
  for (const double temperature : temperatures)
    for (const double lambda : lambdas) {
      double loss = 0, better = 0;
      for (size_t i = 0; i < model.size(); ++i) {
        const double p = (1 - lambda) * model[i] + lambda * nearest[temperature][i];
        loss -= std::log(p);
        better += p > model[i] ? 1 : 0;
      }
      const auto n = static_cast<double>(model.size());
      std::printf("temperature %5g, lambda %.2f: %.4f nats, perplexity %.2f, %.1f %% of the tokens improve\n",
                  temperature, lambda, loss / n, std::exp(loss / n), 100 * better / n);
    }
}

struct Entropies {
  double model = 0, nearest = 0;
};

/// Continues a prompt. knn: null for the model alone. entropies: one per generated token; may be null.
std::vector<int32_t> continue_text(const Setup& setup, std::span<const int32_t> prompt, int64_t count,
                                   const KnnLm* knn, const std::vector<std::string>& steps, uint64_t seed,
                                   std::vector<Entropies>* entropies = nullptr) {
  Sampler sampler(steps, seed);
  HiddenStates states(setup.engine);
  std::vector<int32_t> history(prompt.begin(), prompt.end()), next(1);
  std::vector<float> newest, logits;
  const auto take = [&](int64_t, std::span<const float> hidden, std::span<const float> row) {
    newest.assign(hidden.begin(), hidden.end());
    logits.assign(row.begin(), row.end());
  };
  states.read(prompt, true, take);
  for (int64_t i = 0; i < count; ++i) {
    if (entropies) {
      Entropies& entropy = entropies->emplace_back();
      const double sum = log_sum(logits);
      for (const float logit : logits) entropy.model -= std::exp(logit - sum) * (logit - sum);
      for (const auto& [token, p] : KnnLm(setup.store).distribution(newest)) entropy.nearest -= p * std::log(p);
    }
    if (knn) knn->mix(newest, logits);
    next[0] = sampler.sample(logits, history, std::ssize(history));
    history.push_back(next[0]);
    states.read(next, true, take);
  }
  return {history.begin() + std::ssize(prompt), history.end()};
}

/// Returns the F1 of the bags of n-grams.
double overlap(std::span<const int32_t> a, std::span<const int32_t> b, int64_t n) {
  std::map<std::vector<int32_t>, int64_t> counts;
  for (int64_t i = 0; i + n <= std::ssize(b); ++i) ++counts[{b.begin() + i, b.begin() + i + n}];
  double matched = 0;
  for (int64_t i = 0; i + n <= std::ssize(a); ++i)
    matched += counts[{a.begin() + i, a.begin() + i + n}]-- > 0 ? 1 : 0;
  return 2 * matched / static_cast<double>(std::ssize(a) + std::ssize(b) - 2 * (n - 1));
}

/// Returns the share of 4-grams that occurred before.
double repetition(std::span<const int32_t> tokens) {
  std::set<std::vector<int32_t>> distinct;
  for (int64_t i = 0; i + 4 <= std::ssize(tokens); ++i)
    distinct.emplace(tokens.begin() + i, tokens.begin() + i + 4);
  return 1 - static_cast<double>(distinct.size()) / static_cast<double>(std::ssize(tokens) - 3);
}

/// Prints the mean and standard error of the overlap of generated text with the reference.
void generate(const Setup& setup) {
  const KnnLm knn(setup.store);
  const std::vector<std::pair<const char*, std::vector<std::string>>> choices{{"greedy", {}},
                                                                              {"top-p 0.95", {"top-p:p=0.95"}}};
  const int64_t step = (std::ssize(setup.scored) - kPrompt - kAnswer) / kPrompts;
  for (const auto& [name, steps] : choices) {
    std::vector<double> gains;
    double plain[3] = {}, mixed[3] = {};
    for (int64_t i = 0; i < kPrompts; ++i) {
      const auto prompt = std::span(setup.scored).subspan(i * step, kPrompt);
      const auto reference = std::span(setup.scored).subspan(i * step + kPrompt, kAnswer);
      const auto seed = static_cast<uint64_t>(i);
      const auto a = continue_text(setup, prompt, kAnswer, nullptr, steps, seed);
      const auto b = continue_text(setup, prompt, kAnswer, &knn, steps, seed);
      gains.push_back(overlap(b, reference, 1) - overlap(a, reference, 1));
      for (int64_t n = 1; n <= 2; ++n) plain[n - 1] += overlap(a, reference, n) / kPrompts;
      for (int64_t n = 1; n <= 2; ++n) mixed[n - 1] += overlap(b, reference, n) / kPrompts;
      plain[2] += repetition(a) / kPrompts;
      mixed[2] += repetition(b) / kPrompts;
    }
    double mean = 0, variance = 0;
    for (const double gain : gains) mean += gain / kPrompts;
    for (const double gain : gains) variance += (gain - mean) * (gain - mean) / (kPrompts - 1);
    std::printf(
        "%s: overlap of tokens %.3f plain, %.3f kNN-LM (difference %+.3f, standard error %.3f); of bigrams %.3f, "
        "%.3f; 4-gram repetition %.2f, %.2f\n",
        name, plain[0], mixed[0], mean, std::sqrt(variance / kPrompts), plain[1], mixed[1], plain[2], mixed[2]);
  }
}

/// Returns the slope of a least-squares line through y(0), y(1), …
double slope(std::span<const double> y) {
  const auto n = static_cast<double>(y.size());
  double mean = 0, above = 0, below = 0;
  for (const double value : y) mean += value / n;
  for (size_t i = 0; i < y.size(); ++i) {
    const double x = static_cast<double>(i) - (n - 1) / 2;
    above += x * (y[i] - mean);
    below += x * x;
  }
  return above / below;
}

/// Prints how the entropies of both distributions change along sampled text.
void follow_entropy(const Setup& setup) {
  const KnnLm knn(setup.store);
  std::vector<double> model(kEntropy), nearest(kEntropy);
  for (int64_t run = 0; run < kEntropyRuns; ++run) {
    std::vector<Entropies> entropies;
    const auto prompt = std::span(setup.scored).subspan(run * kPrompt, kPrompt);
    continue_text(setup, prompt, kEntropy, &knn, {"top-p:p=0.95"}, static_cast<uint64_t>(run), &entropies);
    for (int64_t i = 0; i < kEntropy; ++i) {
      model[i] += entropies[i].model / kEntropyRuns;
      nearest[i] += entropies[i].nearest / kEntropyRuns;
    }
  }
  const auto print = [&](const char* name, std::span<const double> y) {
    double first = 0, last = 0;
    for (int64_t i = 0; i < 64; ++i) first += y[i] / 64, last += y[kEntropy - 64 + i] / 64;
    std::printf(
        "entropy of %s: %.3f nats in the first 64 tokens, %.3f in the last 64, slope %+.3f per 100 tokens\n", name,
        first, last, 100 * slope(y));
  };
  print("the model", model);
  print("the neighbours", nearest);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::fprintf(stderr, "usage: knn_lm_bench MODEL TEXT [STORED_TOKENS] [SCORED_TOKENS]\n");
    return 2;
  }
  const auto model = Model::open(argv[1]);
  const Tokenizer tokenizer(Vocabulary::read(*model->file()));
  Engine engine(model, std::make_shared<Runtime>());
  const std::vector<int32_t> tokens = tokenizer.encode(FileMap(argv[2]).text());
  const int64_t stored = argc > 3 ? std::atoll(argv[3]) : 60'000, scored = argc > 4 ? std::atoll(argv[4]) : 6'000;
  if (stored < 2 || scored < 2 * (kPrompt + kAnswer) || std::ssize(tokens) < stored + scored)
    fail_usage(argv[2], ": expected ", stored, " + ", scored, " tokens, found ", tokens.size());
  const Stopwatch watch;
  const std::vector<std::vector<int32_t>> texts{{tokens.begin(), tokens.begin() + stored}};
  Setup setup{engine, {tokens.end() - scored, tokens.end()}, nullptr};
  setup.store = std::make_shared<Datastore>(build_datastore(engine, texts));
  std::printf("%lld entries in %lld lists, built in %.1f s\n", static_cast<long long>(setup.store->entries()),
              static_cast<long long>(setup.store->lists()), watch.seconds());
  score(setup);
  generate(setup);
  follow_entropy(setup);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
