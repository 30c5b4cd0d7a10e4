#pragma once

#include <functional>
#include <limits>

#include "base/json.h"
#include "train/batch.h"
#include "train/net.h"
#include "train/schedule.h"
#include "train/train_config.h"
#include "train/updater.h"

namespace fathom::train {

/// The net that a config asks for; vocabulary: the tokenizer's, which model.vocabulary 0 stands for. Throws Error
/// (usage) when both are given and differ, or none is.
NetConfig net_config(const TrainConfig& config, int64_t vocabulary);

/// Where a config's net is to be. Throws Error (usage) if it asks for a GPU and libtorch has none.
at::Device training_device(const TrainConfig& config);

/// Batches to evaluate on: the first `batches` of a source.
struct HeldoutSet {
  std::string name;
  BatchSource* source = nullptr;
  int64_t batches = 1;
};

/// Trains a net: the same config, batches, threads and machine give the same bits, with interruptions or without.
class Trainer {
 public:
  /// One object a step: {"step", "loss", "gradient_norm", "learning_rate", "tokens", "tokens_per_second"}, step:
  /// of those done, loss: of its batch before the update, nats a token; {"step", "heldout": {name: loss}} an
  /// evaluation; {"step", "checkpoint"} a checkpoint.
  using Log = std::function<void(const Json& line)>;

  /// All must outlive the trainer. Sets the process's threads for libtorch.
  Trainer(TrainConfig config, Net& net, BatchSource& batches, std::vector<HeldoutSet> heldout, Log log);

  /// Goes on from the config's checkpoint file; false when there is none yet. Throws Error as read_checkpoint.
  bool resume();
  /// Trains up to step `until` or the config's last one, whichever is first. On a signal (base/interrupt.h) it
  /// keeps a checkpoint and throws Error of kind kInterrupted. Throws Error when loss or gradients are not finite;
  /// the last checkpoint is then kept as it is, and so are the values.
  void run(int64_t until = std::numeric_limits<int64_t>::max());

  /// Mean loss of a held-out set, nats a token by their weights.
  double evaluate(const HeldoutSet& set);
  int64_t steps_done() const { return step_; }

 private:
  struct StepResult {
    double loss = 0, norm = 0, rate = 0;
    int64_t tokens = 0;
  };
  void run_steps(int64_t until);
  StepResult train_step();
  void save();

  TrainConfig config_;
  Net& net_;
  BatchSource& batches_;
  std::vector<HeldoutSet> heldout_;
  Log log_;
  std::unique_ptr<Updater> updater_;
  Schedule schedule_;
  at::ScalarType compute_type_;
  int64_t step_ = 0;         // done
  int64_t saved_step_ = -1;  // of the checkpoint; -1: none
};

}  // namespace fathom::train
