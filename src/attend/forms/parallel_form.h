#pragma once

#include "attend/attention_form.h"
#include "memory/sequence.h"

namespace fathom {

/// Attention to contexts that were read alone and to other tokens, with a correction of their shares: scores of the
/// contexts are divided by the temperature T, and their total weight, whose logarithm is z, enters the sum as
/// e^(S·T·z). With T = S = 1 this is softmax. Source: APE: Faster and Longer Context-Augmented Generation via
/// Adaptive Parallel Encoding, 2025.
class ParallelForm final : public AttentionForm {
 public:
  explicit ParallelForm(const ParallelContexts& contexts) : contexts_(contexts) {}

  /// The first pass computes z.
  bool has_second_pass() const override { return true; }
  void prepare_second_pass(AttentionBlock& block, const float* lse) const override;
  bool is_softmax() const override { return false; }
  void attend(const Kernels& kernels, const AttentionBlock& block, int64_t begin, int64_t end, float* out,
              float* lse, AttentionScratch& scratch) const override;

 private:
  /// Lists the pages block.reads[begin, end), limited to tokens of the contexts or to the others.
  void list_reads(const AttentionBlock& block, int64_t begin, int64_t end, bool of_contexts,
                  std::vector<PageRead>& reads) const;

  ParallelContexts contexts_;
};

}  // namespace fathom
