#include "train/landmark_batches.h"

namespace fathom::train {

Batch LandmarkBatches::batch(int64_t step) {
  const Batch from = source_->batch(step);
  const int64_t row_tokens = from.length + 1;
  Batch batch{.sequences = from.sequences, .length = landmarks_.with(row_tokens) - 1};
  for (int64_t row = 0; row < from.sequences; ++row) {
    for (int64_t i = 0; i < row_tokens; ++i) {
      batch.tokens.push_back(from.tokens[row * row_tokens + i]);
      if (i > 0) batch.weights.push_back(from.weights[row * from.length + i - 1]);
      if ((i + 1) % landmarks_.tokens != 0) continue;
      batch.tokens.push_back(token_);
      batch.weights.push_back(i > 0 ? from.weights[row * from.length + i - 1] : 0);
    }
  }
  return batch;
}

}  // namespace fathom::train
