#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "models/config.h"

namespace fathom {

/// Reads the metadata of one architecture, "{architecture}.KEY", with checks. All throw Error naming file and key.
class ConfigReader {
 public:
  explicit ConfigReader(const Gguf& file);

  const Gguf& file() const { return file_; }
  /// The full name of a key.
  std::string key(const std::string& name) const { return prefix_ + name; }
  bool has(const std::string& name) const { return file_.has(key(name)); }

  /// An integer in [low, high]; `otherwise` where the key is absent, which without it is an error.
  int64_t integer(const std::string& name, int64_t low, int64_t high, std::optional<int64_t> otherwise = {}) const;
  /// The same of a key that may be one number or an array of one per layer: [layers].
  std::vector<int64_t> each_layer(const std::string& name, int64_t low, int64_t high, int layers,
                                  std::optional<int64_t> otherwise = {}) const;
  double number(const std::string& name, double otherwise) const;

  /// The rotary scaling that the file asks for ({architecture}.rope.scaling.*, and tensors of factors), added to a
  /// configuration whose dims and base are set.
  void read_rotary_scaling(RotaryConfig& rotary, int64_t trained_context) const;

  /// What all architectures have: shape, norms, rotary positions with `pairing`, and arrays by layer.
  ModelConfig common(RotaryConfig::Pairing pairing) const;
  ExpertConfig experts() const;
  StateSpaceConfig state_space() const;
  /// The same where the rank of time steps is the number of heads, which share channels and groups evenly.
  StateSpaceConfig state_space_of_heads() const;

 private:
  void read_attention_shape(ModelConfig& c) const;
  void read_each_layer(ModelConfig& c) const;
  void read_landmarks(ModelConfig& c) const;

  const Gguf& file_;
  std::string prefix_;
};

/// ConfigReader::common of a file.
ModelConfig read_common_config(const Gguf& file, RotaryConfig::Pairing pairing);

}  // namespace fathom
