#pragma once

#include "attend/attention_form.h"
#include "attend/landmarks.h"

namespace fathom {

/// Landmark gating ("Landmark Attention: Random-Access Infinite Context Length for Transformers", 2023): pages are
/// the blocks of the sequence. Each past block is attended to by a softmax of its own and counts by the share that
/// its landmark has among landmarks and the tokens of the row's own block. Landmarks' values are never read.
class LandmarkForm final : public AttentionForm {
 public:
  explicit LandmarkForm(Landmarks landmarks) : landmarks_(landmarks) {}

  /// For all rows of a block the same blocks of the sequence are past.
  int64_t rows_together(int64_t token) const override { return token % landmarks_.block() + 1; }
  uint64_t unattended() const override { return landmarks_.bit(); }
  /// Each past block is one more pair, of its landmark.
  void count(AttentionBlock& block) const override;
  void attend(const Kernels& kernels, const AttentionBlock& block, int64_t begin, int64_t end, float* out,
              float* lse, AttentionScratch& scratch) const override;

 private:
  /// Whether the last page read is the one on which the rows themselves lie.
  static bool reads_own_page(const AttentionBlock& block) {
    return !block.reads.empty() && block.last_page_end > block.tokens.front();
  }
  void share_by_landmarks(const Kernels& kernels, const AttentionBlock& block, int64_t begin, int64_t end,
                          float* lse, AttentionScratch& scratch) const;

  Landmarks landmarks_;
};

}  // namespace fathom
