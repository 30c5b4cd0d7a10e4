#pragma once

#include <memory>

#include "attend/landmarks.h"
#include "train/batch.h"

namespace fathom::train {

/// Batches of another source with landmarks inserted as in a session: after every landmarks.tokens tokens of a row,
/// counted from its first token. Rows grow by their landmarks. A landmark has the loss weight of the token before
/// it.
class LandmarkBatches final : public BatchSource {
 public:
  /// token: id of the landmark token.
  LandmarkBatches(std::unique_ptr<BatchSource> source, Landmarks landmarks, int32_t token)
      : source_(std::move(source)), landmarks_(landmarks), token_(token) {}
  Batch batch(int64_t step) override;

 private:
  std::unique_ptr<BatchSource> source_;
  Landmarks landmarks_;
  int32_t token_;
};

}  // namespace fathom::train
