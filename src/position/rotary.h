#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/registry.h"

namespace fathom {

/// The rotary positions of a model, as stated in its file. The constructor of Rotary computes the frequencies.
struct RotaryConfig {
  enum class Pairing { kInterleaved, kHalfSplit };  // pairs (2i, 2i+1) or (i, i + dims/2)
  enum class Scaling { kNone, kLinear, kNtk, kYarn, kLongRope };

  int dims = 0;  // rotated dimensions of a head; 0: the model has no rotary positions
  Pairing pairing = Pairing::kInterleaved;
  double base = 10000;
  Scaling scaling = Scaling::kNone;
  double factor = 1;            // s = target length / trained length
  double original_context = 0;  // trained length before scaling, in tokens
  double attention_factor = 1;  // multiplies cos and sin, in addition to the scaling's own factor
  double yarn_beta_fast = 32, yarn_beta_slow = 1, yarn_ext_factor = 1, yarn_attn_factor = 1;
  std::vector<float> divisors;                       // [dims/2] angle divisors (Llama-3 bands); empty: all 1
  std::vector<float> long_divisors, short_divisors;  // LongRoPE factors; the session's context selects one list
};

/// Rotation of heads by positions ("RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021). The
/// angle of pair i at position m is m · frequencies()[i], computed in double.
class Rotary {
 public:
  /// context: the longest sequence of the session in tokens; LongRoPE uses its long factors above the trained
  /// length. Throws Error if the config is invalid.
  Rotary(const RotaryConfig& config, int64_t context);

  int dims() const { return static_cast<int>(frequencies_.size()) * 2; }
  int pairs() const { return static_cast<int>(frequencies_.size()); }
  RotaryConfig::Pairing pairing() const { return pairing_; }
  const std::vector<double>& frequencies() const { return frequencies_; }  // [dims/2], radians per position
  /// Returns the factor on attention scores: the square of the factor on cos and sin, because query and key are
  /// both rotated.
  float score_factor() const { return score_factor_; }

  /// Computes the cosines and sines of the angles at `position`. cos, sin: [dims/2].
  void angles(double position, float* cos, float* sin) const;

 private:
  RotaryConfig::Pairing pairing_;
  std::vector<double> frequencies_;
  float score_factor_ = 1;
};

/// The rotations of pages by their positions. Rotations by multiples of 64 are stored; others are composed of one
/// of those and an offset below 64.
class PositionRotations {
 public:
  /// rotary must outlive the object.
  explicit PositionRotations(const Rotary& rotary);
  /// Computes the rotations for positions in [0, last]. Must not run while other threads read. Throws Error, and
  /// changes nothing, if there is not enough memory.
  void reserve(int64_t last);
  struct View {
    const float* cos;  // [dims/2]
    const float* sin;  // [dims/2]
  };
  /// Returns the rotation by a reserved position. spare: [dims] floats, used if the position is not a multiple of
  /// 64; the result then refers to it. Thread-safe.
  View at(int64_t position, float* spare) const;
  /// Returns the inverse of a rotation: its cos, and its negated sin in `sin`, [dims/2], which may be rotation.sin.
  View inverse(View rotation, float* sin) const;
  /// Returns the rotation by an offset in the page, in [0, 64). The rotations of the following offsets are adjacent
  /// in memory: [64, 2, dims/2] in total.
  View offset(int offset) const;
  int pairs() const { return pairs_; }
  const Rotary& rotary() const { return *rotary_; }

 private:
  const Rotary* rotary_;
  int pairs_;
  std::vector<float> offsets_;    // [64, 2, pairs]: cos, then sin
  std::vector<float> positions_;  // [reserved/64 + 1, 2, pairs]
};

/// A `--position` method changes the rotary config of the model file.
using PositionMethod = void(const Values&, RotaryConfig&);
/// Returns the table of the `--position` methods.
const MethodTable<PositionMethod>& position_methods();

}  // namespace fathom
