#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/registry.h"
#include "decode/sampler.h"
#include "memory/draft_tree.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom {

/// How the children of a node were chosen, which decides how they are verified (verify.h).
enum class DraftKind {
  kFixed,               // by any rule that does not use the random numbers of the sampler
  kIndependent,         // each is an independent sample of the node's distribution
  kWithoutReplacement,  // samples of the node's distribution without replacement, in the order of drawing
};

/// A token and its probability.
struct TokenProbability {
  int32_t token = 0;
  float probability = 0;
};

/// Returns the logits after the root (node −1) or after a node of a draft, [vocabulary].
using NodeLogits = std::function<std::span<const float>(int node)>;

/// Tokens proposed as continuations of the pending token, which is the newest token of the text and not yet read by
/// the model. The roots of the tree are candidates for the token after it.
struct Draft {
  DraftTree tree;
  std::vector<int32_t> tokens;  // [nodes]
  /// [nodes] estimated probability that a node is accepted if its parent is, in (0, 1]. Empty: unknown.
  std::vector<float> estimates{};
  DraftKind kind = DraftKind::kFixed;
  /// [1 + nodes], for other kinds than kFixed: the distribution that the children of a node were drawn from, in any
  /// order, with sum 1. Index 0: of the roots; 1 + i: of the children of node i; empty for nodes without children.
  std::vector<std::vector<TokenProbability>> distributions{};
  std::vector<uint8_t> sources{};  // [nodes] index of the source that proposed a node; empty: all 0
  /// Pulls the target's logits toward the drafter (enriched_logits of drafts/rapid.h); the text is then not that of
  /// plain decoding.
  struct Pull {
    double strength = 0;  // 0: none
    /// [1 + nodes] the drafter's most likely tokens after the root and after each node; empty: not known
    std::vector<std::vector<TokenProbability>> likely{};
  };
  Pull pull{};
  /// [nodes] i > 0: a probe of step i, a node that is read only for the outputs of its row and never accepted, so
  /// that the text is that of plain decoding. Its parent is the probe of step i − 1, or for step 1 a candidate or
  /// the root. The estimate of a probe is the probability that it predicts a token that the next step emits. Empty:
  /// all 0. Only in kFixed drafts.
  std::vector<uint8_t> probes{};
  /// Not null: probes are pseudo rows (OpenDraft::transfer); otherwise they are read as tokens. Must outlive the
  /// draft.
  const HiddenTransfer* transfer = nullptr;

  bool is_probe(int node) const { return !probes.empty() && probes[node] > 0; }
  int size() const { return tree.size(); }
  /// Adds a child of `parent` (−1: a root) and returns its number.
  int add(int parent, int32_t token, float estimate = 1);
  /// Adds the probe that follows `parent` and returns its number.
  int add_probe(int parent, int32_t token, float estimate = 1);
  /// Returns the child of `parent` (−1: the root) that holds `token` and is no probe, or −1.
  int find_child(int parent, int32_t token) const;
  /// Returns the child of `parent` that is a probe, or −1.
  int find_probe(int parent) const;
};

/// What a source drafts from.
struct DraftContext {
  std::span<const int32_t> tokens;  // prompt and generated tokens; the last one is the pending token
  int64_t prompt = 0;               // number of tokens of the prompt
  Sampler* sampler = nullptr;
  int64_t position = 0;  // of the token after the pending one, as in Sampler::sample
  /// [layers, width] the hidden states, of DraftNeeds::hidden_layers, of the token before the pending one.
  std::span<const float> hidden{};
};

/// The result of a verification.
struct DraftOutcome {
  std::span<const int32_t> tokens;   // prompt and generated tokens, including the emitted ones
  std::span<const int32_t> emitted;  // accepted tokens of the draft and the token after them, the new pending token
  const Draft* draft = nullptr;      // the verified draft, possibly empty
  std::span<const int> accepted;     // its accepted nodes, from a root downwards
  int32_t root = 0;                  // the token of row 0: the pending token of the draft
  /// [1 + nodes, top_k] the most likely tokens after the root (row 0) and after each node (row 1 + i), best first.
  std::span<const TokenLogit> top{};
  int top_k = 0;
  /// [layers, 1 + nodes, width] the hidden states of DraftNeeds::hidden_layers.
  std::span<const float> hidden{};
  /// The logits after the root and after each node. Empty if the caller does not have them.
  NodeLogits logits{};
};

/// What a source needs from verifications.
struct DraftNeeds {
  int top_k = 0;                     // DraftOutcome::top
  std::vector<int> hidden_layers{};  // as Session::keep_hidden, ascending
  bool alone = false;                // whether the drafts cannot be united with those of other sources
};

/// What a source has learned from one text and may use for later texts of the same model. Immutable.
class DraftExperience {
 public:
  virtual ~DraftExperience() = default;
};

/// Returns the hidden states of the layers `wanted`, of `hidden`: [kept, ...] with the layers `kept`, ascending,
/// which contain those. They are copied into `buffer` unless all kept ones are wanted. Empty if `hidden` is.
std::span<const float> select_hidden(std::span<const float> hidden, std::span<const int> kept,
                                     std::span<const int> wanted, std::vector<float>& buffer);

/// Proposes drafts for one text. Results do not depend on it, unless changes_text(): a wrong draft costs time only.
/// Not thread-safe.
class DraftSource {
 public:
  virtual ~DraftSource() = default;
  virtual DraftNeeds needs() const { return {}; }
  /// Whether its drafts change the text (Draft::Pull).
  virtual bool changes_text() const { return false; }
  /// Called once, when the prompt has been read and before the first draft.
  virtual void start(std::span<const int32_t> prompt) { static_cast<void>(prompt); }
  /// Returns a draft of at most `nodes` nodes (1 to DraftTree::kMaxNodes − 1), possibly empty. The tokens before
  /// the pending token are those of earlier outcomes.
  virtual Draft propose(const DraftContext& context, int nodes) = 0;
  /// Called after each verification, also of drafts that this source did not propose, and of steps without a draft.
  virtual void observe(const DraftOutcome& outcome) { static_cast<void>(outcome); }
  /// Called once, when the text has ended. Stores what later processes may use.
  virtual void finish(std::span<const int32_t> tokens) { static_cast<void>(tokens); }
  /// Returns what later texts may use; null: nothing.
  virtual std::shared_ptr<const DraftExperience> experience() const { return nullptr; }
  /// Continues from the experience of a source that was made with the same parameters. Called before start().
  virtual void adopt(const DraftExperience& experience) { static_cast<void>(experience); }
};

class DraftMemory;

/// What a source is made for.
struct DraftSetup {
  std::shared_ptr<const Model> model;
  std::shared_ptr<Runtime> runtime;
  const Tokenizer* tokenizer = nullptr;
  Session* session = nullptr;     // of the text, for sources that draft with the same model; they fork it
  DraftMemory* memory = nullptr;  // of the texts of the model, for the drafter; null: none
};

using DraftMethod = std::unique_ptr<DraftSource>(const Values&, const DraftSetup&);
using DraftEntry = MethodTable<DraftMethod>::Entry;

/// Returns the `--draft` methods.
const MethodTable<DraftMethod>& draft_methods();

}  // namespace fathom
