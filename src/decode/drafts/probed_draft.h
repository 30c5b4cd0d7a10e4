#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "decode/draft.h"
#include "decode/drafts/acceptance.h"

namespace fathom {

/// How drafts with probes are built.
struct ProbeOptions {
  int steps = 1;                             // probes after a node
  int candidates = 1;                        // most candidates of a draft
  int topk = 1;                              // most children of a candidate
  double threshold = 0;                      // candidates have a higher probability
  int32_t token = 0;                         // of the probes
  const HiddenTransfer* transfer = nullptr;  // as Draft::transfer
  bool chain = false;                        // whether drafts have no branches
  const Tokenizer* tokenizer = nullptr;      // no candidates follow one that ends a generation; null: no token does
};

/// Drafts of a model that predicts later tokens in the rows of probes. The probes after the last accepted node of a
/// verification predict the tokens after the next pending token: they are the candidates of the next draft. Each
/// candidate, and the root, are followed by probes of their own, as far as they are worth their rows.
class ProbedDrafts {
 public:
  static constexpr int kMaxSteps = 8;
  explicit ProbedDrafts(const ProbeOptions& options) : options_(options) {}

  Draft propose(const DraftContext& context, int nodes);
  void observe(const DraftOutcome& outcome);

 private:
  Draft candidates(const DraftContext& context, int nodes) const;
  Draft with_probes(const Draft& candidates, int nodes) const;

  ProbeOptions options_;
  std::vector<std::vector<float>> logits_;  // [found probes][vocabulary] of the last accepted node
  size_t tokens_ = 0;                       // number of tokens of the text that they continue
  DepthCalibration calibration_;
  std::array<AcceptanceRate, kMaxSteps> rates_;  // by step: whether a candidate of this probe is the emitted token
};

}  // namespace fathom
