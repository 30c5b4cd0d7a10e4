#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "mixers/mixer.h"
#include "models/config.h"
#include "models/weights.h"

namespace fathom {

/// The weights of a model and its forward pass. Immutable and shared.
class Network {
 public:
  virtual ~Network() = default;
  /// tokens: [rows] of all sequences one after the other; layers: how many are run. Leaves the last one's normed
  /// output in work.normed: [rows, width].
  virtual void forward(Workspace& work, std::span<const SequenceRows> sequences, std::span<const int32_t> tokens,
                       int layers) const = 0;
  /// logits: [x.rows, vocabulary].
  virtual void logits(Workspace& work, ActivationBuffer& x, float* logits) const = 0;
  /// Of the mixer whose keys and values lie in this layer of the memory (Mixer::output_projection).
  virtual const Matrix* output_projection(int layer) const { return static_cast<void>(layer), nullptr; }
  /// Bytes of all weight matrices that decoding one token reads.
  virtual size_t weight_bytes() const = 0;
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

}  // namespace fathom
