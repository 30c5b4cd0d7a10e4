#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"
#include "mixers/mixer.h"
#include "models/config.h"
#include "models/weights.h"

namespace fathom {

/// Functions called between the layers of a forward pass.
struct LayerHooks {
  /// Called before each layer with its input, [rows, width], which it may change; may throw to end the pass; may be
  /// empty.
  std::function<void(int layer, float* hidden)> before;
  /// Called after each layer with its output, [rows, width]; may be empty.
  std::function<void(int layer, const float* hidden)> after;
};

/// The weights of a model and its forward pass. Immutable; shared by sessions.
class Network {
 public:
  virtual ~Network() = default;
  /// Returns the states of a new sequence, one for each of the first `layers` layers.
  virtual std::vector<std::unique_ptr<LayerState>> new_states(const StateOptions& options, int layers) const = 0;
  /// Runs the first `layers` layers and leaves the normalised output of the last one in work.normed: [rows, width].
  /// tokens: [rows], those of all sequences concatenated.
  virtual void forward(Workspace& work, std::span<const SequenceRows> sequences, std::span<const int32_t> tokens,
                       int layers, const LayerHooks& hooks) const = 0;
  /// Writes the logits of x, rows of the output of forward(): [x.rows, vocabulary]. Uses work.adapted_rows, the
  /// rows of x that have adapters.
  virtual void logits(Workspace& work, ActivationBuffer& x, float* logits) const = 0;
  /// Returns the attention shape of each layer; its page format is not set.
  virtual std::vector<AttendLayer> attention() const = 0;
  /// Returns the factor on the scores of a layer's attention, in addition to PagedKv::score_factor.
  virtual float attention_scale(int layer) const = 0;
  /// Returns Mixer::output_projection of the mixer with pages in this layer; null if there is none.
  virtual const Matrix* output_projection(int layer) const = 0;
  /// Returns the weight matrix of this name, [out, in], if an adapter can change it: a projection of a mixer, of a
  /// dense feed-forward or of a router, or the output projection if it is not the embedding. Otherwise null.
  virtual const Matrix* projection(std::string_view name) const = 0;
  /// Returns the bytes of all weights that a pass over `rows` tokens reads; with experts, the expected value.
  virtual double weight_bytes(int64_t rows) const = 0;
  /// Returns the number of multiply-adds with all weight matrices per token.
  virtual int64_t multiply_adds() const = 0;
  /// Writes the embeddings of tokens as forward() uses them, without learned positions: [tokens, width].
  virtual void embeddings(Workspace& work, std::span<const int32_t> tokens, float* out) const = 0;
};

/// An architecture: the functions that read its configuration and build its network.
struct Architecture {
  const char* name;
  ModelConfig (*read_config)(const Gguf& file);
  std::unique_ptr<Network> (*build)(const ModelConfig& config, WeightSource& weights);
};

/// Returns the architecture of a name. Throws Error listing the known ones.
const Architecture& find_architecture(std::string_view name);
/// Returns the names of all architectures, sorted.
std::vector<std::string> architecture_names();

}  // namespace fathom
