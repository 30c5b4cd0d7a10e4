// Drafts several chains with one row per token: the row is the weighted sum of the embeddings of the chains' newest
// tokens, so they share one distribution of the next token. N-gram counts of the text decide which token suits
// which chain. The rows attend to all tokens, whatever the --attend method.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "decode/candidates.h"
#include "decode/draft.h"
#include "decode/drafts/draft_model.h"
#include "decode/superposition.h"

namespace fathom {
namespace {

constexpr size_t kMaxCounts = size_t{1} << 22;  // n-grams; about 200 MB

/// Numbers of occurrences of the 1- to 6-grams of a text that grows, by their hashes.
class NgramCounts {
 public:
  /// Adds the n-grams that end after the tokens that were not added before. Does nothing once there are too many.
  void add(std::span<const int32_t> text) {
    for (; added_ < text.size(); ++added_) {
      if (counts_.size() >= kMaxCounts) continue;
      for (size_t n = 1; n <= std::min(kNgramWeights.size() + 1, added_ + 1); ++n)
        ++counts_[hash(text.subspan(added_ + 1 - n, n), {})];
    }
  }
  /// Returns the sum over the orders n of their weight times P(token | last n − 1 tokens of `history`).
  double probability(std::span<const int32_t> history, int32_t token) const {
    double sum = 0;
    for (size_t i = 0; i < kNgramWeights.size() && i < history.size(); ++i) {
      const auto before = history.last(i + 1);
      const double contexts = count(hash(before, {}));
      if (contexts > 0) sum += kNgramWeights[i] * count(hash(before, token)) / contexts;
    }
    return sum;
  }

 private:
  static uint64_t hash(std::span<const int32_t> tokens, std::optional<int32_t> last) {
    uint64_t h = 0;
    const auto mix = [&h](int32_t token) {
      h = (h ^ (static_cast<uint32_t>(token) + 1ULL)) * 0x9e3779b97f4a7c15;
      h ^= h >> 29;
    };
    for (const int32_t token : tokens) mix(token);
    if (last) mix(*last);
    return h;
  }
  double count(uint64_t hash) const {
    const auto found = counts_.find(hash);
    return found == counts_.end() ? 0 : found->second;
  }

  std::unordered_map<uint64_t, int32_t> counts_;
  size_t added_ = 0;
};

/// One of the superposed chains.
struct SuperposedChain {
  std::vector<int32_t> tokens{};
  double score = 0;  // sum of smoothed log-probabilities
  bool ended = false;
};

std::vector<double> scores_of(std::span<const SuperposedChain> chains) {
  std::vector<double> scores;
  for (const SuperposedChain& chain : chains) scores.push_back(chain.score);
  return scores;
}

/// Returns the union of the chains. The estimate of a node is its share of the weight of its parent.
Draft draft_of(std::span<const SuperposedChain> chains) {
  Draft draft;
  std::vector<double> reach;
  const std::vector<double> weights = normalised_weights(scores_of(chains));
  for (size_t c = 0; c < chains.size(); ++c) {
    int node = -1;
    for (const int32_t token : chains[c].tokens) {
      const int found = draft.find_child(node, token);
      node = found >= 0 ? found : draft.add(node, token);
      if (found < 0) reach.push_back(0);
      reach[node] += weights[c];
    }
  }
  for (int node = 0; node < draft.size(); ++node) {
    const int parent = draft.tree.parent(node);
    const double share = reach[node] / std::max(parent < 0 ? 1 : reach[parent], std::numeric_limits<double>::min());
    draft.estimates[node] = static_cast<float>(std::clamp(share, 1e-6, 1.0));
  }
  return draft;
}

class SuperposedSource final : public DraftSource {
 public:
  SuperposedSource(const Values& values, const DraftSetup& setup)
      : chains_(static_cast<int>(values.integer("k"))),
        length_(static_cast<int>(values.integer("length"))),
        top_(static_cast<size_t>(values.integer("top"))),
        alpha_(values.number("alpha")),
        temperature_(values.number("temperature")),
        session_(setup.session),
        tokenizer_(setup.tokenizer) {
    if (values.has("file")) {
      SessionOptions options;
      if (session_) options.stop = session_->options().stop;
      model_.emplace(open_draft_model("superposed", values.string("file"), setup), setup.runtime, options);
    } else if (!session_) {
      fail_usage("--draft superposed: expected file=FILE, or a session of the model that is to be continued");
    }
    const Model& model = model_ ? model_->session().model() : session_->model();
    if (model.config().landmarks)
      fail_usage("--draft superposed: the model was trained with landmarks, expected another one");
  }

  void start(std::span<const int32_t> prompt) override {
    if (model_) model_->follow(prompt);
  }

  Draft propose(const DraftContext& context, int nodes) override {
    if (alpha_ > 0) ngrams_.add(context.tokens);
    try {
      if (model_) return model_->follow(context.tokens) ? draft(model_->session(), context.tokens, nodes) : Draft{};
      const int64_t limit = session_->options().context;
      if (session_->length() + 1 != std::ssize(context.tokens)) return {};
      if (limit > 0 && session_->length() >= limit) return {};
      Session fork = session_->fork();
      fork.append(context.tokens.last(1));
      return draft(fork, context.tokens, nodes);
    } catch (const std::bad_alloc&) {
    } catch (const Error& error) {
      if (error.kind() != Error::Kind::kOutOfMemory && error.kind() != Error::Kind::kInterrupted) throw;
    }
    return {};
  }

  void observe(const DraftOutcome& outcome) override {
    if (model_) model_->keep(outcome.tokens);
  }

 private:
  /// Drafts after the text that the session has read.
  Draft draft(const Session& session, std::span<const int32_t> text, int nodes) const {
    const int width = std::min(chains_, nodes), length = std::min(length_, nodes / width);
    Superposition superposition(session);
    std::vector<float> logits(session.logits().begin(), session.logits().end());
    std::vector<SuperposedChain> chains(1);
    for (int depth = 0;;) {
      chains = extend(chains, logits, text, static_cast<size_t>(width));
      if (++depth == length || std::ranges::all_of(chains, &SuperposedChain::ended)) return draft_of(chains);
      logits = read(superposition, chains);
    }
  }

  /// Returns the best `width` chains: extended by one token, or ended.
  std::vector<SuperposedChain> extend(std::span<const SuperposedChain> chains, std::span<const float> logits,
                                      std::span<const int32_t> text, size_t width) const {
    Candidates candidates;
    candidates.assign(logits);
    const auto best = candidates.best(std::max(top_, width));
    std::vector<double> log_p;
    double sum = 0;
    for (const Candidate& candidate : best) {
      log_p.push_back((static_cast<double>(candidate.logit) - best[0].logit) / temperature_);
      sum += std::exp(log_p.back());
    }
    std::vector<SuperposedChain> extended;
    std::vector<int32_t> history(text.begin(), text.end());
    for (const SuperposedChain& chain : chains) {
      if (chain.ended) {
        extended.push_back(chain);
        continue;
      }
      history.resize(text.size());
      history.insert(history.end(), chain.tokens.begin(), chain.tokens.end());
      for (size_t i = 0; i < best.size(); ++i) {
        SuperposedChain longer = chain;
        longer.tokens.push_back(best[i].id);
        longer.score += smoothed(log_p[i] - std::log(sum), history, best[i].id);
        longer.ended = tokenizer_ && tokenizer_->ends_generation(best[i].id);
        extended.push_back(std::move(longer));
      }
    }
    std::ranges::stable_sort(extended, std::greater(), &SuperposedChain::score);
    extended.resize(std::min(width, extended.size()));
    return extended;
  }

  double smoothed(double log_p, std::span<const int32_t> history, int32_t token) const {
    if (alpha_ == 0) return log_p;
    return smooth_log_probability(log_p, ngrams_.probability(history, token), alpha_);
  }

  /// Reads the newest tokens of the chains that have not ended. Returns the logits after them.
  static std::vector<float> read(Superposition& superposition, std::span<const SuperposedChain> chains) {
    std::vector<int32_t> newest;
    std::vector<double> scores;
    for (const SuperposedChain& chain : chains) {
      if (chain.ended) continue;
      newest.push_back(chain.tokens.back());
      scores.push_back(chain.score);
    }
    return superposition.read(newest, scores);
  }

  int chains_, length_;
  size_t top_;
  double alpha_, temperature_;
  Session* session_;
  const Tokenizer* tokenizer_;
  std::optional<DraftModel> model_;  // a small model; nothing: the session's
  NgramCounts ngrams_;
};

}  // namespace

DraftEntry superposed_draft_method() {
  using Type = Parameter::Type;
  DraftEntry entry = {
      {.name = "superposed",
       .summary = "k chains for one row per token: reads weighted sums of embeddings and separates the chains by "
                  "n-grams of the text",
       .paper = "Superposed Decoding: Multiple Generations from a Single Autoregressive Inference Pass, 2024",
       .exact = true,
       .needs = "any model; faster than plain decoding only with file",
       .time = "one pass per level of the draft",
       .memory = "O(n) for the n-grams of n tokens",
       .parameters = {{.name = "file",
                       .type = Type::kString,
                       .summary =
                           "file (GGUF) of a small model with the same vocabulary; not given: the same model"},
                      {.name = "k",
                       .type = Type::kInt,
                       .default_value = "3",
                       .summary = "chains",
                       .min = 1,
                       .max = DraftTree::kMaxNodes - 1},
                      {.name = "length",
                       .type = Type::kInt,
                       .default_value = "4",
                       .summary = "tokens of a chain; more pays off if most are accepted",
                       .min = 1,
                       .max = DraftTree::kMaxNodes - 1}}},
      [](const Values& values, const DraftSetup& setup) {
        return std::make_unique<SuperposedSource>(values, setup);
      }};
  std::ranges::copy(superposition_parameters(), std::back_inserter(entry.info.parameters));
  return entry;
}

}  // namespace fathom
