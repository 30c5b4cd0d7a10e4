#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "train/net.h"
#include "train/train_config.h"

namespace fathom::train {

/// How gradients move a net's values, as the config's optimizer says: AdamW, or Muon for the matrices of layers and
/// AdamW for the rest.
class Updater {
 public:
  virtual ~Updater() = default;
  /// The norm of all gradients together.
  virtual double gradient_norm() const = 0;
  /// One step; the gradients count times gradient_scale.
  virtual void step(double learning_rate, double gradient_scale) = 0;
  virtual void set_steps(int64_t steps) = 0;
  /// Means of gradients and of their squares, f32 [values], where the net is; with the steps all the state there
  /// is.
  virtual at::Tensor first_moments() = 0;
  virtual at::Tensor second_moments() = 0;
};

/// Over Fathom's own loops where the net is in the CPU's memory, otherwise by libtorch's operations. The net must
/// outlive it.
std::unique_ptr<Updater> make_updater(const TrainConfig& config, Net& net);
/// By libtorch's operations wherever the net is.
std::unique_ptr<Updater> make_tensor_updater(const TrainConfig& config, Net& net);

}  // namespace fathom::train
