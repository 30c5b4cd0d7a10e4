#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "train/train_config.h"
#include "train/trainable.h"

namespace fathom::train {

/// The optimizer of a net or a draft source: AdamW, or Muon for the matrices of layers and AdamW for the rest.
class Updater {
 public:
  virtual ~Updater() = default;
  /// Returns the norm of all gradients together.
  virtual double gradient_norm() const = 0;
  /// Makes one step; gradients are multiplied by gradient_scale.
  virtual void step(double learning_rate, double gradient_scale) = 0;
  /// Sets the number of completed steps.
  virtual void set_steps(int64_t steps) = 0;
  /// Return the means of gradients and of their squares, f32 [values], on the net's device. With the number of
  /// steps they are the whole state.
  virtual at::Tensor first_moments() = 0;
  virtual at::Tensor second_moments() = 0;
};

/// Returns the updater of a config. A net on the CPU uses Fathom's own loops, other nets libtorch's operations. The
/// net must outlive it.
std::unique_ptr<Updater> make_updater(const TrainConfig& config, Trainable& net);
/// Returns an updater that uses libtorch's operations on any device.
std::unique_ptr<Updater> make_tensor_updater(const TrainConfig& config, Trainable& net);

}  // namespace fathom::train
