#include "position/rotary.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "base/error.h"

namespace fathom {
namespace {

constexpr int kOffsets = 64;  // tokens of a page

/// Returns the (fractional) index of the pair that completes `rotations` rotations within the trained length. YaRN
/// keeps the frequencies of faster pairs and interpolates those of slower ones.
double yarn_boundary(const RotaryConfig& c, double rotations) {
  return c.dims * std::log(c.original_context / (2 * M_PI * rotations)) / (2 * std::log(c.base));
}

/// Returns the share of the interpolated frequency for a pair: 0 for fast pairs, 1 for slow pairs, with a linear
/// ramp between them ("YaRN: Efficient Context Window Extension of Large Language Models", 2023).
double yarn_share_interpolated(const RotaryConfig& c, int pair) {
  const double low = std::max(0.0, std::floor(yarn_boundary(c, c.yarn_beta_fast)));
  const double high = std::min(c.dims - 1.0, std::ceil(yarn_boundary(c, c.yarn_beta_slow)));
  const double ramp = std::clamp((pair - low) / std::max(high - low, 0.001), 0.0, 1.0);
  return 1 - (1 - ramp) * c.yarn_ext_factor;
}

bool is_positive(double x) { return x > 0 && std::isfinite(x); }

void check_yarn(const RotaryConfig& c) {
  if (!is_positive(c.yarn_beta_fast) || !is_positive(c.yarn_beta_slow)) {
    fail("YaRN's beta_fast and beta_slow must be positive, found ", c.yarn_beta_fast, " and ", c.yarn_beta_slow);
  }
  if (!is_positive(c.yarn_attn_factor)) fail("YaRN's attn_factor must be positive, found ", c.yarn_attn_factor);
  if (!std::isfinite(c.yarn_ext_factor)) fail("YaRN's ext_factor must be finite, found ", c.yarn_ext_factor);
}

void check(const RotaryConfig& c) {
  if (c.dims < 0 || c.dims % 2 != 0) fail("rotary dimensions must be even and not negative, found ", c.dims);
  if (!(c.base > 1) || !std::isfinite(c.base)) fail("rotary base must be finite and above 1, found ", c.base);
  if (!is_positive(c.factor)) fail("rotary scaling factor must be positive, found ", c.factor);
  if (!is_positive(c.attention_factor))
    fail("rotary attention factor must be positive, found ", c.attention_factor);
  const bool yarn = c.scaling == RotaryConfig::Scaling::kYarn;
  if (yarn || c.scaling == RotaryConfig::Scaling::kLongRope) {
    if (!(c.original_context >= 1) || !std::isfinite(c.original_context))
      fail("this rotary scaling needs a trained context length of at least 1, found ", c.original_context);
  }
  if (yarn) check_yarn(c);
  for (const auto* divisors : {&c.divisors, &c.long_divisors, &c.short_divisors}) {
    if (!divisors->empty() && divisors->size() != static_cast<size_t>(c.dims) / 2) {
      fail("rotary factors: expected ", c.dims / 2, " numbers, one per rotary pair, found ", divisors->size());
    }
    for (const float d : *divisors) {
      if (!(d > 0)) fail("rotary factors must be positive, found ", d);
    }
  }
}

}  // namespace

Rotary::Rotary(const RotaryConfig& c, int64_t context)
    : pairing_(c.pairing), frequencies_(std::max(c.dims, 0) / 2) {
  if (c.dims == 0) return;
  check(c);
  using Scaling = RotaryConfig::Scaling;
  const double d = c.dims;
  const double base = c.scaling == Scaling::kNtk ? c.base * std::pow(c.factor, d / (d - 2)) : c.base;
  const std::vector<float>* divisors = &c.divisors;
  if (c.scaling == Scaling::kLongRope)
    divisors = context > c.original_context ? &c.long_divisors : &c.short_divisors;
  for (int i = 0; i < c.dims / 2; ++i) {
    double frequency = std::pow(base, -2.0 * i / d);
    if (!divisors->empty()) frequency /= (*divisors)[i];
    if (c.scaling == Scaling::kLinear) frequency /= c.factor;
    if (c.scaling == Scaling::kYarn) {
      const double interpolated = yarn_share_interpolated(c, i);
      frequency = frequency / c.factor * interpolated + frequency * (1 - interpolated);
    }
    frequencies_[i] = frequency;
  }
  double scale = c.attention_factor;
  if (c.scaling == Scaling::kYarn) {
    scale *= c.yarn_attn_factor * (c.yarn_ext_factor != 0 ? 1 + 0.1 * std::log(c.factor) : 1);
  }
  score_factor_ = static_cast<float>(scale * scale);
}

void Rotary::angles(double position, float* cos, float* sin) const {
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    cos[i] = static_cast<float>(std::cos(position * frequencies_[i]));
    sin[i] = static_cast<float>(std::sin(position * frequencies_[i]));
  }
}

PositionRotations::PositionRotations(const Rotary& rotary)
    : rotary_(&rotary), pairs_(rotary.pairs()), offsets_(static_cast<size_t>(kOffsets) * 2 * pairs_) {
  for (int o = 0; o < kOffsets; ++o) {
    float* at = offsets_.data() + static_cast<size_t>(o) * 2 * pairs_;
    rotary.angles(o, at, at + pairs_);
  }
}

void PositionRotations::reserve(int64_t last) {
  const size_t row = 2 * static_cast<size_t>(pairs_);
  if (row == 0) return;
  const size_t have = positions_.size() / row, needed = static_cast<size_t>(last / kOffsets) + 1;
  if (needed <= have) return;
  if (needed > positions_.max_size() / row)
    fail("rotations for positions up to ", last, " do not fit into the address space");
  try {
    positions_.resize(needed * row);
  } catch (const std::bad_alloc&) {
    fail("out of memory: rotations for positions up to ", last, " take ", needed * row * sizeof(float), " bytes");
  }
  for (size_t p = have; p < needed; ++p) {
    float* at = positions_.data() + p * row;
    rotary_->angles(static_cast<double>(p) * kOffsets, at, at + pairs_);
  }
}

PositionRotations::View PositionRotations::offset(int offset) const {
  const float* at = offsets_.data() + static_cast<size_t>(offset) * 2 * pairs_;
  return {at, at + pairs_};
}

PositionRotations::View PositionRotations::at(int64_t position, float* spare) const {
  const float* coarse = positions_.data() + static_cast<size_t>(position / kOffsets) * 2 * pairs_;
  if (position % kOffsets == 0) return {coarse, coarse + pairs_};
  const View fine = offset(static_cast<int>(position % kOffsets));
  for (int i = 0; i < pairs_; ++i) {
    spare[i] = coarse[i] * fine.cos[i] - coarse[pairs_ + i] * fine.sin[i];
    spare[pairs_ + i] = coarse[i] * fine.sin[i] + coarse[pairs_ + i] * fine.cos[i];
  }
  return {spare, spare + pairs_};
}

PositionRotations::View PositionRotations::inverse(View rotation, float* sin) const {
  for (int i = 0; i < pairs_; ++i) sin[i] = -rotation.sin[i];
  return {rotation.cos, sin};
}

}  // namespace fathom
