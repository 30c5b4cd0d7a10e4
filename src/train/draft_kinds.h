#pragma once

#include <memory>
#include <span>
#include <string>

#include "formats/gguf.h"
#include "train/side_net.h"
#include "train/train_config.h"

namespace fathom::train {

inline constexpr int64_t kMaxDraftHeads = 8;     // of draft.steps with heads
inline constexpr int64_t kMaxTransferSteps = 4;  // of draft.steps with hidden-transfer

/// A kind of trained draft source: a value of draft.kind.
struct DraftTrainer {
  const char* name;
  /// Throws Error (usage) that names a field which does not suit the base.
  std::unique_ptr<Trainable> (*make)(const TrainConfig::Draft& config, FrozenBase base);
};
/// Returns all kinds, in the order of the documentation.
std::span<const DraftTrainer> draft_kinds();

/// Returns the shape of the model in `start`. Throws Error (usage) that names a field of model.* which differs from
/// it and from the default, and Error as read_net_config.
NetConfig frozen_base_config(const TrainConfig& config, const Gguf& start);

/// Returns the draft source of a config, with its initial values. Throws Error (usage) as DraftTrainer::make.
std::unique_ptr<Trainable> make_draft(const TrainConfig::Draft& config, FrozenBase base);

// The kinds, one file of drafts/ each.
DraftTrainer heads_draft();
DraftTrainer hidden_transfer_draft();
DraftTrainer longspec_draft();
DraftTrainer lexical_unit_draft();

}  // namespace fathom::train
