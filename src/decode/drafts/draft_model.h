#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "decode/draft.h"
#include "decode/drafts/grow.h"
#include "session/session.h"

namespace fathom {

/// How drafts of a model are chosen if the sampler draws.
enum class DraftRule {
  kMatch,   // with the random numbers of the sampler, as kFixed drafts: the text is that of plain decoding
  kReject,  // by random numbers of their own, for rejection sampling: the text has the same distribution
};
/// The parameter `rule` of sources that run a model.
Parameter rule_parameter();
DraftRule read_rule(const Values& values);
/// Returns the distribution that the children of a node are drawn from, or the `choices` tokens that they are, best
/// first. logits: after the node; history: tokens up to the node; position: of the children.
/// - A greedy sampler: its preferred tokens, with their probabilities in the plain softmax (capped so that they do
///   not increase).
/// - kMatch: the tokens that the sampler prefers with its own random numbers of the position. The sampler draws the
///   same token if the target's logits are similar: the first one is accepted with a probability of at least
///   (1 − d) / (1 + d), where d is the total variation distance of the two distributions.
/// - kReject: what the sampler draws from.
TokenDistribution child_distribution(Sampler& sampler, std::span<const float> logits,
                                     std::span<const int32_t> history, int64_t position, DraftRule rule,
                                     int choices = 1);

/// Returns a task that grows a draft for `context`, without an `expand` function.
GrowthTask growth_task(const DraftContext& context, int nodes, DraftRule rule);

/// Opens a model file for a draft source. Throws Error if it cannot be read, and Error (usage) that names the file
/// and the target model if it does not have the same tokens. method: of the source, for the texts of errors.
std::shared_ptr<const Model> open_draft_model(const std::string& method, const std::string& file,
                                              const DraftSetup& setup);

/// How the distributions after the nodes of a draft are computed.
struct NodeOptions {
  Sampler* sampler = nullptr;
  std::span<const int32_t> history{};    // tokens that the sampler takes into account, before those of the draft
  const Tokenizer* tokenizer = nullptr;  // no tokens follow one that ends a generation; null: no token does
  bool tree = false;                     // whether the draft can have branches
  int choices = 1;                       // children per node that are not drawn
  DraftRule rule = DraftRule::kReject;
  int64_t position = 0;  // of the roots, for DraftRule::kMatch
  /// > 0: DraftModel::likely() lists the tokens with at least this share of the largest probability.
  float likely_share = 0;
};

/// A session of a model that drafts. It follows a text whose newest tokens may be replaced, and computes
/// distributions after the text and after the nodes of a draft.
class DraftModel {
 public:
  /// Throws Error (usage) as Session.
  DraftModel(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, SessionOptions options);

  /// Throws Error if the session cannot read trees: because of its --attend method, recurrent layers or landmarks.
  void check_trees();
  /// Removes the tokens that are not in `text`. Keeps the nodes of the latest tree that are.
  void keep(std::span<const int32_t> text);
  /// Reads `text`, as far as it has not been read. Returns false if this needs more memory or more context than
  /// there is, or if it was interrupted.
  bool follow(std::span<const int32_t> text);

  /// Returns GrowthTask::expand for a draft after the text of the last follow(). Must outlive the function, as must
  /// the sampler and the tokenizer.
  std::function<std::vector<TokenDistribution>(const Draft&, std::span<const int>)> expand(NodeOptions options);

  /// Returns the likely tokens after the text and after the nodes of a chain that expand() has visited, in plain
  /// softmax.
  std::vector<std::vector<TokenProbability>> likely() const { return likely_; }
  const Session& session() const { return session_; }
  int64_t forwards() const { return forwards_; }  // number of forward passes

 private:
  bool append(Session& session, std::span<const int32_t> tokens);
  /// Returns the logits after these nodes; less than requested if the session cannot read them.
  std::vector<std::span<const float>> tree_logits(const Draft& draft, std::span<const int> nodes);
  std::vector<std::span<const float>> chain_logits(const Draft& draft, int node);
  void close_tree(std::span<const int32_t> after);

  Session session_;
  std::vector<int32_t> held_;      // the tokens of session_
  std::optional<Session> branch_;  // reads chains instead of session_, which cannot be rewound cheaply
  bool recurrent_;
  bool open_ = false;            // a tree is open in session_
  Draft tree_;                   // it
  std::span<const float> rows_;  // [nodes, vocabulary] its logits
  int64_t forwards_ = 0;
  std::vector<std::vector<TokenProbability>> likely_;
};

}  // namespace fathom
