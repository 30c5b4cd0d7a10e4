#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/network.h"

namespace fathom {

/// A loaded model: configuration and weights, read-only and shared by sessions.
class Model {
 public:
  /// Maps a GGUF file; nothing is copied but norms and biases. Throws Error naming the file and the field.
  static std::shared_ptr<const Model> open(const std::string& path);
  /// The same from an already opened file.
  static std::shared_ptr<const Model> from(Gguf file);
  /// A random model of a named shape in a weight type, "llama-1b:q4_k". Throws Error (usage) listing the shapes.
  static std::shared_ptr<const Model> random(const std::string& shape);

  const ModelConfig& config() const { return config_; }
  const Network& network() const { return *network_; }
  /// The file, for its tokenizer and chat template; null for a random model.
  const Gguf* file() const { return file_.get(); }

 private:
  Model() = default;
  std::unique_ptr<Gguf> file_;
  std::vector<AlignedBuffer<std::byte>> owned_;
  ModelConfig config_;
  std::unique_ptr<Network> network_;
};

/// Writes the model that Model::random(shape) makes as a GGUF file that other engines can measure too: with the
/// metadata of its architecture and a vocabulary of placeholders. Throws Error (usage) as random does, or if the
/// file cannot be written.
void write_random_model(const std::string& shape, const std::string& path);

/// The named shapes of random models, for messages: "llama-1b, llama-8b, …".
std::string shape_names();

}  // namespace fathom
