#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "models/network.h"

namespace fathom {

/// A loaded model: configuration and weights. Immutable and shared by sessions.
class Model {
 public:
  /// Maps a GGUF file without copying matrices; norms and biases are copied. Throws Error naming the file and the
  /// field.
  static std::shared_ptr<const Model> open(const std::string& path);
  /// Builds the model of an open file. Throws Error like open().
  static std::shared_ptr<const Model> from(Gguf file);
  /// Makes a model of random weights in a named shape and weight type, such as "llama-1b:q4_k". Throws Error
  /// (usage) listing the known ones.
  static std::shared_ptr<const Model> random(const std::string& shape);

  const ModelConfig& config() const { return config_; }
  const Network& network() const { return *network_; }
  /// Returns a hash that identifies the model: of the size of its file, the names and shapes of tensors, and a
  /// sample of their bytes; of a random model, of its shape.
  uint64_t fingerprint() const;
  /// Returns the file, for its tokenizer and chat template; null for a random model.
  const Gguf* file() const { return file_.get(); }

 private:
  Model() = default;
  std::unique_ptr<Gguf> file_;
  std::string random_shape_;  // of a random model
  mutable std::once_flag fingerprint_once_;
  mutable uint64_t fingerprint_ = 0;
  std::vector<AlignedBuffer<std::byte>> owned_;
  ModelConfig config_;
  std::unique_ptr<Network> network_;
};

/// Writes the model that Model::random(shape) makes as a GGUF file that other engines can load for measurements:
/// with the metadata of its architecture and a placeholder vocabulary. Throws Error (usage) like random(), and
/// Error if the file cannot be written.
void write_random_model(const std::string& shape, const std::string& path);

/// Returns the names of the shapes of random models, for messages: "llama-1b, llama-8b, …".
std::string shape_names();

}  // namespace fathom
