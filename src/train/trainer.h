#pragma once

#include <functional>
#include <limits>

#include "base/json.h"
#include "train/batch.h"
#include "train/net.h"
#include "train/schedule.h"
#include "train/train_config.h"
#include "train/trainable.h"
#include "train/updater.h"

namespace fathom::train {

/// Returns the shape of a config's net. vocabulary: size of the tokenizer's, used if model.vocabulary is 0. Throws
/// Error (usage) if both are given and differ, or both are 0.
NetConfig net_config(const TrainConfig& config, int64_t vocabulary);

/// Returns the device of a config's net. Throws Error (usage) if it is a GPU and libtorch has none.
at::Device training_device(const TrainConfig& config);

/// A held-out set: the first `batches` batches of a source.
struct HeldoutSet {
  std::string name;
  BatchSource* source = nullptr;
  int64_t batches = 1;
};

/// Trains a net or a draft source. The same config, batches, threads and machine give the same bits, with or
/// without interruptions.
class Trainer {
 public:
  /// Receives one object per event. A step: {"step", "loss", "gradient_norm", "learning_rate", "tokens",
  /// "tokens_per_second"}. "step" is the number of completed steps, "loss" the loss of the batch before the update
  /// in nats per token. An evaluation: {"step", "heldout": {name: loss}}, for drafts with
  /// "agreement": {name: [share of each step]}. A checkpoint: {"step", "checkpoint"}.
  using Log = std::function<void(const Json& line)>;

  /// All references must outlive the trainer. Sets libtorch's number of threads.
  Trainer(TrainConfig config, Trainable& net, BatchSource& batches, std::vector<HeldoutSet> heldout, Log log);

  /// Continues from the config's checkpoint file. Returns false if the file does not exist. Throws Error as
  /// read_checkpoint.
  bool resume();
  /// Trains to step `until` or to the config's last step, whichever is first. On a signal (base/interrupt.h) it
  /// writes a checkpoint and throws Error of kind kInterrupted. Throws Error if loss or gradients are not finite;
  /// the last checkpoint and the values are then unchanged.
  void run(int64_t until = std::numeric_limits<int64_t>::max());

  /// Returns the weighted mean loss of a held-out set, nats per token. Adds the agreement of a draft.
  double evaluate(const HeldoutSet& set, Agreement* agreement = nullptr);
  int64_t steps_done() const { return step_; }

 private:
  struct StepResult {
    double loss = 0, norm = 0, rate = 0;
    int64_t tokens = 0;
  };
  void run_steps(int64_t until);
  StepResult train_step();
  void log_evaluation();
  void save();

  TrainConfig config_;
  Trainable& net_;
  BatchSource& batches_;
  std::vector<HeldoutSet> heldout_;
  Log log_;
  std::unique_ptr<Updater> updater_;
  Schedule schedule_;
  at::ScalarType compute_type_;
  int64_t step_ = 0;         // completed steps
  int64_t saved_step_ = -1;  // step of the last checkpoint; -1: none
};

}  // namespace fathom::train
