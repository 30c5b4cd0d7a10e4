#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "mixers/mixer.h"
#include "models/config.h"
#include "models/weights.h"

namespace fathom {

/// What a caller does between the layers of a forward pass.
struct LayerHooks {
  std::function<void()> before;  // each layer; may throw to end the pass. Empty: nothing
  /// After each layer: its output, [rows, width]. Empty: nothing.
  std::function<void(int layer, const float* hidden)> after;
};

/// The weights of a model and its forward pass. Immutable and shared.
class Network {
 public:
  virtual ~Network() = default;
  /// The states of a new sequence, one for each of the first `layers` layers.
  virtual std::vector<std::unique_ptr<LayerState>> new_states(const StateOptions& options, int layers) const = 0;
  /// tokens: [rows] of all sequences one after the other; layers: how many are run. Leaves the last one's normed
  /// output in work.normed: [rows, width].
  virtual void forward(Workspace& work, std::span<const SequenceRows> sequences, std::span<const int32_t> tokens,
                       int layers, const LayerHooks& hooks) const = 0;
  /// logits: [x.rows, vocabulary].
  virtual void logits(Workspace& work, ActivationBuffer& x, float* logits) const = 0;
  /// The attention of each layer; shapes are without a format.
  virtual std::vector<AttendLayer> attention() const = 0;
  /// Of the mixer with pages in this layer (Mixer::output_projection).
  virtual const Matrix* output_projection(int layer) const = 0;
  /// Bytes of all weights that a pass over so many tokens reads; where tokens choose experts, the expected number.
  virtual double weight_bytes(int64_t rows) const = 0;
  /// Multiply-adds of all weight matrices for one token.
  virtual int64_t multiply_adds() const = 0;
};

/// An architecture: how its file is read and its layers are built.
struct Architecture {
  const char* name;
  ModelConfig (*read_config)(const Gguf& file);
  std::unique_ptr<Network> (*build)(const ModelConfig& config, WeightSource& weights);
};

/// Throws Error listing the known ones.
const Architecture& find_architecture(std::string_view name);
/// The names of all architectures, sorted.
std::vector<std::string> architecture_names();

}  // namespace fathom
