#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "models/config.h"

namespace fathom {

/// Reads and checks the metadata of one architecture, "{architecture}.KEY". All functions throw Error naming the
/// file and the key.
class ConfigReader {
 public:
  explicit ConfigReader(const Gguf& file);

  const Gguf& file() const { return file_; }
  /// Returns the full name of a key.
  std::string key(const std::string& name) const { return prefix_ + name; }
  bool has(const std::string& name) const { return file_.has(key(name)); }

  /// Returns an integer in [low, high]. If the key is absent, returns `fallback`, or throws if there is none.
  int64_t integer(const std::string& name, int64_t low, int64_t high, std::optional<int64_t> fallback = {}) const;
  /// Returns one integer per layer: [layers]. The value of the key is one number for all layers, or an array.
  std::vector<int64_t> each_layer(const std::string& name, int64_t low, int64_t high, int layers,
                                  std::optional<int64_t> fallback = {}) const;
  /// Returns a number, or `fallback` if the key is absent.
  double number(const std::string& name, double fallback) const;

  /// Adds the rotary scaling of the file ({architecture}.rope.scaling.*, and tensors of factors) to `rotary`, whose
  /// dims and base are set.
  void read_rotary_scaling(RotaryConfig& rotary, int64_t trained_context) const;

  /// Returns the configuration that all architectures have: shape, norms, rotary positions with `pairing`, and
  /// values per layer.
  ModelConfig common(RotaryConfig::Pairing pairing) const;
  /// Returns the shape of the mixture of experts.
  ExpertConfig experts() const;
  /// Returns the shape of the state-space layers.
  StateSpaceConfig state_space() const;
  /// Like state_space(), for Mamba-2, where ssm.time_step_rank is the number of heads. Throws Error unless the
  /// number of heads divides the number of channels, and the number of groups that of heads.
  StateSpaceConfig state_space_of_heads() const;

 private:
  void read_attention_shape(ModelConfig& c) const;
  void read_each_layer(ModelConfig& c) const;
  void read_landmarks(ModelConfig& c) const;

  const Gguf& file_;
  std::string prefix_;
};

/// Returns ConfigReader::common of a file.
ModelConfig read_common_config(const Gguf& file, RotaryConfig::Pairing pairing);

}  // namespace fathom
