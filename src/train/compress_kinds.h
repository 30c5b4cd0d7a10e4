#pragma once

#include <memory>
#include <span>

#include "train/side_net.h"
#include "train/train_config.h"

namespace fathom::train {

/// A kind of trained compression of contexts: a value of compress.kind.
struct CompressTrainer {
  const char* name;
  /// Throws Error (usage) that names a field which does not suit the base.
  std::unique_ptr<Trainable> (*make)(const TrainConfig::Compress& config, FrozenBase base);
};
/// Returns all kinds, in the order of the documentation.
std::span<const CompressTrainer> compress_kinds();

/// Returns the compression of a config, with its initial values. Throws Error (usage) as CompressTrainer::make.
std::unique_ptr<Trainable> make_compression(const TrainConfig::Compress& config, FrozenBase base);

// The kinds, one file of compress/ each.
CompressTrainer lococo_compression();
CompressTrainer compllm_compression();
CompressTrainer arc_encoder_compression();
CompressTrainer cmr_compression();

}  // namespace fathom::train
