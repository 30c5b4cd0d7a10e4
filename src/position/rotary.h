#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/registry.h"

namespace fathom {

/// What a model file says of its rotary positions; the formulas stand at frequencies().
struct RotaryConfig {
  enum class Pairing { kInterleaved, kHalfSplit };  // pairs (2i, 2i+1) or (i, i + dims/2)
  enum class Scaling { kNone, kLinear, kNtk, kYarn, kLongRope };

  int dims = 0;  // rotated dimensions of a head; 0 = the model has no rotary positions
  Pairing pairing = Pairing::kInterleaved;
  double base = 10000;
  Scaling scaling = Scaling::kNone;
  double factor = 1;            // s = wanted / trained length
  double original_context = 0;  // trained length before scaling
  double attention_factor = 1;  // multiplies cos and sin on top of what the scaling itself asks for
  double yarn_beta_fast = 32, yarn_beta_slow = 1, yarn_ext_factor = 1, yarn_attn_factor = 1;
  std::vector<float> divisors;                       // [dims/2] angle divisors (Llama-3 bands); empty = 1
  std::vector<float> long_divisors, short_divisors;  // LongRoPE factors, chosen by the session's context
};

/// Rotation of heads by positions: angle of pair i at position m is m·frequency(i). All angles are formed in
/// double.
class Rotary {
 public:
  /// context: the length the session may reach (chooses between LongRoPE's factors). Throws Error if the config
  /// contradicts itself.
  Rotary(const RotaryConfig& config, int64_t context);

  int dims() const { return static_cast<int>(frequencies_.size()) * 2; }
  int pairs() const { return static_cast<int>(frequencies_.size()); }
  RotaryConfig::Pairing pairing() const { return pairing_; }
  const std::vector<double>& frequencies() const { return frequencies_; }  // [dims/2], radians per position
  /// The factor on cos and sin of both query and key, squared: it multiplies attention scores.
  float score_factor() const { return score_factor_; }

  /// cos, sin: [dims/2] of the angles at `position`.
  void angles(double position, float* cos, float* sin) const;

 private:
  RotaryConfig::Pairing pairing_;
  std::vector<double> frequencies_;
  float score_factor_ = 1;
};

/// Rotations by the places of pages: multiples of 64 are kept, others are composed from one of those and an offset
/// below 64.
class PositionRotations {
 public:
  explicit PositionRotations(const Rotary& rotary);
  /// Makes rotations for places in [0, last]. Not thread-safe against readers. Throws Error, and keeps what it has,
  /// when memory does not suffice.
  void reserve(int64_t last);
  struct View {
    const float* cos;  // [dims/2]
    const float* sin;  // [dims/2]
  };
  /// place in [0, reserved]; `spare`: [dims] floats, used for places that are no multiples of 64. Thread-safe.
  View at(int64_t place, float* spare) const;
  /// The rotation that undoes another: its cos, and its sin negated in sin: [dims/2], which may be its own.
  View inverse(View rotation, float* sin) const;
  /// The rotation by an offset inside a page, [0, 64); those of the next offsets follow: [64, 2, dims/2] in all.
  View offset(int offset) const;
  int pairs() const { return pairs_; }

 private:
  const Rotary* rotary_;
  int pairs_;
  std::vector<float> offsets_;    // [64, 2, pairs]: cos, then sin
  std::vector<float> positions_;  // [reserved/64 + 1, 2, pairs]
};

/// The `--position` methods: each changes the config that the model file gave.
using PositionMethod = void(const Values&, RotaryConfig&);
const MethodTable<PositionMethod>& position_methods();

}  // namespace fathom
