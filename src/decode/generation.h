#pragma once

#include <exception>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "decode/continuation.h"
#include "decode/drafter.h"
#include "decode/generate.h"

namespace fathom {

/// A text that is generated step by step, so that several texts can share forward passes. The tokens are the same,
/// bit by bit of the logits, with and without drafts (other than kIndependent and kWithoutReplacement ones with a
/// sampler that draws, which give the same distribution), alone and in a batch.
class Generation {
 public:
  /// As generate(). All arguments must outlive this. drafter: null for no drafts.
  Generation(Session& session, const Tokenizer& tokenizer, Sampler& sampler, std::span<const int32_t> prompt,
             const GenerateOptions& options, Drafter* drafter = nullptr,
             std::function<void(std::string_view)> on_text = nullptr);

  bool ended() const { return continuation_.ended(); }
  /// The error that ended the text; null: none.
  std::exception_ptr error() const { return error_; }
  /// Reads the newest token of each text that has not ended, and its draft, in one forward pass, and emits the
  /// tokens that follow. A text that fails ends with error(), and the others go on. The sessions share a model.
  /// prompts: chunks of other sessions that the pass reads, too; returns the error of each, or null.
  static std::vector<std::exception_ptr> advance(std::span<Generation* const> texts,
                                                 std::span<const Session::Step> prompts = {});
  /// Returns the result. Call it once, at the end.
  Generated finish();

 private:
  bool prepare();
  void take_step(std::exception_ptr error, double seconds);
  void take_outcome(double seconds);
  void report_logprobs(std::span<const float> logits, int32_t token);
  bool emit(int32_t token);
  std::span<const float> mixed(std::span<const float> logits, std::span<const float> hidden, int64_t row = 0);

  Session& session_;
  Sampler& sampler_;
  Drafter* drafter_;
  Continuation continuation_;
  std::function<void(const TokenLogprobs&)> on_logprobs_;
  size_t top_logprobs_;
  const KnnLm* knn_;
  std::vector<float> mixed_, pulled_;  // [vocabulary]
  int64_t max_tokens_;
  int64_t prompt_;
  std::vector<int32_t> history_;  // prompt and emitted tokens; the last is the pending token
  int64_t emitted_ = 0, read_ = 0, forwards_ = 0;
  double seconds_ = 0;
  std::exception_ptr error_;

  // Of the current step.
  Draft draft_;
  DraftTree tree_;  // the pending token and the draft after it
  std::vector<int32_t> tree_tokens_;
  std::vector<uint8_t> tree_probes_;
  double prepare_seconds_ = 0;
};

}  // namespace fathom
