#include "decode/verify.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "decode/random.h"

namespace fathom {
namespace {

/// The token of a position, and the child that holds it, or −1.
struct VerifiedToken {
  int32_t token;
  int child;
};

enum class Verdict { kAccepted, kRejected, kExhausted };

/// The distribution p of the model at a node, from which the proposals q of rejected children are subtracted.
/// Both are stored as weights that are not normalised, so that a rejection costs O(tokens of q).
class Residual {
 public:
  /// Sets p and q. Throws Error if q is not a distribution over distinct tokens.
  void assign(const Candidates& p, size_t vocabulary, std::span<const TokenProbability> q);
  /// Tests a child with a number uniform in (0, 1). After a rejection p is the residual, and q is renormalised
  /// without the token if `removes`. kExhausted: q has no probability left for it or for any other child. Throws
  /// Error if q does not contain the token.
  Verdict test(int32_t token, double uniform, bool removes);
  /// Draws from p by inversion, in order of the ids. Ends the use of this object until the next assign().
  int32_t draw(double uniform);

 private:
  struct Proposed {
    int32_t token;
    double p, q;
  };
  double p_sum() const;
  double q_sum() const;

  std::vector<Proposed> proposed_;  // tokens of q
  std::vector<double> others_;      // [vocabulary] p of the tokens outside q, 0 for those of q
  double others_sum_ = 0;
};

void Residual::assign(const Candidates& p, size_t vocabulary, std::span<const TokenProbability> q) {
  constexpr double kTaken = -1;
  const double max = p.max_logit();
  others_.assign(vocabulary, 0);
  for (const Candidate& candidate : p.all()) others_[candidate.id] = std::exp(candidate.logit - max);
  proposed_.clear();
  for (const auto& [token, probability] : q) {
    if (!(probability >= 0) || !std::isfinite(probability))
      fail("the draft gives token ", token, " the probability ", probability, ", expected a number from 0 to 1");
    const bool known = token >= 0 && static_cast<size_t>(token) < vocabulary;
    if (known && others_[token] == kTaken) fail("the distribution of the draft contains token ", token, " twice");
    proposed_.push_back({token, known ? others_[token] : 0, probability});
    if (known) others_[token] = kTaken;
  }
  if (const double sum = q_sum(); !q.empty() && !(std::abs(sum - 1) < 1e-3))
    fail("the probabilities of the draft have the sum ", sum, ", expected 1");
  others_sum_ = 0;
  for (double& weight : others_) {
    if (weight == kTaken) weight = 0;
    others_sum_ += weight;
  }
}

double Residual::p_sum() const {
  double sum = others_sum_;
  for (const Proposed& entry : proposed_) sum += entry.p;
  return sum;
}

double Residual::q_sum() const {
  double sum = 0;
  for (const Proposed& entry : proposed_) sum += entry.q;
  return sum;
}

Verdict Residual::test(int32_t token, double uniform, bool removes) {
  const auto found = std::ranges::find(proposed_, token, &Proposed::token);
  if (found == proposed_.end())
    fail("the draft proposes token ", token, ", which is not in the distribution that it was drawn from");
  const double scale = p_sum() / q_sum();  // NaN only if found->q is 0
  if (!(found->q > 0)) return Verdict::kExhausted;
  if (uniform * found->q * scale < found->p) return Verdict::kAccepted;
  const auto rest = [scale](const Proposed& entry) { return std::max(0.0, entry.p - entry.q * scale); };
  double sum = others_sum_;
  for (const Proposed& entry : proposed_) sum += rest(entry);
  // p equals q up to rounding. A token with p = 0 is not accepted even then.
  if (!(sum > 0)) return found->p > 0 ? Verdict::kAccepted : Verdict::kExhausted;
  for (Proposed& entry : proposed_) entry.p = rest(entry);
  if (removes) found->q = 0;
  return Verdict::kRejected;
}

int32_t Residual::draw(double uniform) {
  for (const Proposed& entry : proposed_)
    if (entry.p > 0) others_[entry.token] = entry.p;
  double sum = 0;
  for (const double weight : others_) sum += weight;
  double left = uniform * sum;
  int32_t chosen = 0;
  for (size_t id = 0; id < others_.size(); ++id) {
    if (!(others_[id] > 0)) continue;
    chosen = static_cast<int32_t>(id);
    left -= others_[id];
    if (left < 0) break;
  }
  return chosen;
}

/// Samples a token as plain decoding does, and looks for it among the children.
VerifiedToken match(const Draft& draft, int node, std::span<const float> logits, Sampler& sampler,
                    std::span<const int32_t> history, int64_t position) {
  const int32_t token = sampler.sample(logits, history, position);
  return {token, draft.find_child(node, token)};
}

/// Tests the children in their order, and draws from the residual if none is accepted.
VerifiedToken test_children(const Draft& draft, int node, std::span<const float> logits, Sampler& sampler,
                            std::span<const int32_t> history, int64_t position, Residual& residual) {
  residual.assign(sampler.distribution(logits, history), logits.size(), draft.distributions[node + 1]);
  uint64_t index = 0;
  for (int child = node + 1; child < draft.size(); ++child) {
    if (draft.tree.parent(child) != node) continue;
    const double uniform = uniform_from(random_bits(sampler.seed(), RandomStream::kAccept, position, index++));
    const Verdict verdict =
        residual.test(draft.tokens[child], uniform, draft.kind == DraftKind::kWithoutReplacement);
    if (verdict == Verdict::kAccepted) return {draft.tokens[child], child};
    if (verdict == Verdict::kExhausted) break;
  }
  const uint64_t bits = random_bits(sampler.seed(), RandomStream::kResidual, position, 0);
  return {residual.draw(uniform_from(bits)), -1};
}

/// Throws Error if the arrays of the draft do not fit its tree.
void check(const Draft& draft) {
  if (std::ssize(draft.tokens) != draft.size())
    fail("the draft has ", draft.tokens.size(), " tokens, expected one for each of its ", draft.size(), " nodes");
  if (!draft.probes.empty() && (draft.kind != DraftKind::kFixed || std::ssize(draft.probes) != draft.size()))
    fail("the draft has ", draft.probes.size(), " marks of probes, expected one for each of the ", draft.size(),
         " nodes of a fixed draft");
  if (draft.kind != DraftKind::kFixed && std::ssize(draft.distributions) != draft.size() + 1) {
    fail("the draft has ", draft.distributions.size(), " distributions, expected one for the root and each of its ",
         draft.size(), " nodes");
  }
}

}  // namespace

std::vector<int> verify(const Draft& draft, const NodeLogits& logits, Sampler& sampler,
                        std::vector<int32_t>& history, int64_t position, const EmitToken& emit) {
  check(draft);
  const bool matches = draft.kind == DraftKind::kFixed || sampler.greedy();
  Residual residual;
  std::vector<int> accepted;
  for (int node = -1;; ++position) {
    const std::span<const float> row = logits(node);
    const VerifiedToken next = matches ? match(draft, node, row, sampler, history, position)
                                       : test_children(draft, node, row, sampler, history, position, residual);
    history.push_back(next.token);
    if (next.child >= 0) accepted.push_back(next.child);
    if (!emit(next.token) || next.child < 0) return accepted;
    node = next.child;
  }
}

}  // namespace fathom
