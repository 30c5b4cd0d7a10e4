#pragma once

#include "attend/attention_form.h"
#include "attend/landmarks.h"

namespace fathom {

/// Landmark gating ("Landmark Attention: Random-Access Infinite Context Length for Transformers", 2023). Each page
/// holds one block of the sequence. Each past block has its own softmax; its result is weighted by the probability
/// of its landmark in a softmax over all landmarks and the tokens of the row's own block. Values of landmarks are
/// not read.
class LandmarkForm final : public AttentionForm {
 public:
  explicit LandmarkForm(Landmarks landmarks) : landmarks_(landmarks) {}

  /// Limits a block of rows to one landmark block, so that all its rows have the same past blocks.
  int64_t max_block_rows(int64_t token) const override { return token % landmarks_.block() + 1; }
  uint64_t unattended() const override { return landmarks_.bit(); }
  /// Counts one more pair per query and past block: its landmark.
  void count(AttentionBlock& block) const override;
  void attend(const Kernels& kernels, const AttentionBlock& block, int64_t begin, int64_t end, float* out,
              float* lse, AttentionScratch& scratch) const override;

 private:
  /// Returns whether the last page read contains the rows themselves.
  static bool reads_own_page(const AttentionBlock& block) {
    return !block.reads.empty() && block.last_page_end > block.tokens.front();
  }
  void share_by_landmarks(const Kernels& kernels, const AttentionBlock& block, int64_t begin, int64_t end,
                          float* lse, AttentionScratch& scratch) const;

  Landmarks landmarks_;
};

}  // namespace fathom
