#pragma once

#include <memory>

#include "attend/landmarks.h"
#include "train/batch.h"

namespace fathom::train {

/// The batches of another source with the landmarks that a session would put in: after every so many tokens of a
/// row, its first one counted. Rows become that much longer; a landmark weighs in the loss what the token before it
/// does.
class LandmarkBatches final : public BatchSource {
 public:
  LandmarkBatches(std::unique_ptr<BatchSource> source, Landmarks landmarks, int32_t token)
      : source_(std::move(source)), landmarks_(landmarks), token_(token) {}
  Batch batch(int64_t step) override;

 private:
  std::unique_ptr<BatchSource> source_;
  Landmarks landmarks_;
  int32_t token_;
};

}  // namespace fathom::train
