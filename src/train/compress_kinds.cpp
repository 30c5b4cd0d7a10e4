#include "train/compress_kinds.h"

#include <algorithm>
#include <array>

namespace fathom::train {

std::span<const CompressTrainer> compress_kinds() {
  static const std::array kinds{lococo_compression(), compllm_compression(), arc_encoder_compression(),
                                cmr_compression()};
  return kinds;
}

std::unique_ptr<Trainable> make_compression(const TrainConfig::Compress& config, FrozenBase base) {
  const auto kind =
      std::ranges::find(compress_kinds(), config.kind, [](const CompressTrainer& k) { return k.name; });
  return kind->make(config, std::move(base));
}

}  // namespace fathom::train
