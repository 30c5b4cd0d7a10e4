#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "mixers/attention_mixer.h"
#include "mixers/mamba2_mixer.h"
#include "mixers/mamba_mixer.h"

// Reference mixers in double precision. They follow the definitions: a T × T matrix per head or channel mixes
// tokens.

namespace fathom::test {

using Rows64 = std::vector<std::vector<double>>;  // [tokens, columns]
/// Maps the inputs of a whole sequence, [tokens, width], to outputs of the same shape.
using ScalarMixer = std::function<Rows64(const Rows64&)>;

inline Rows64 zeros(size_t tokens, int64_t columns) { return Rows64(tokens, std::vector<double>(columns)); }

/// A copy of a float32 matrix in double.
struct ScalarMatrix {
  ScalarMatrix() = default;
  explicit ScalarMatrix(const Matrix& m) : rows(m.rows), cols(m.cols) {
    const auto* from = reinterpret_cast<const float*>(m.data);
    values.assign(from, from + rows * cols);
  }
  Rows64 times(const Rows64& x) const {
    Rows64 y = zeros(x.size(), rows);
    for (size_t t = 0; t < x.size(); ++t)
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) y[t][r] += values[r * cols + c] * x[t][c];
    return y;
  }
  int64_t rows = 0, cols = 0;
  std::vector<double> values;
};

inline double silu(double v) { return v / (1 + std::exp(-v)); }
inline double softplus(double v) { return std::log1p(std::exp(v)); }

/// Returns columns [begin, begin + n).
inline Rows64 columns(const Rows64& x, int64_t begin, int64_t n) {
  Rows64 y;
  for (const auto& row : x) y.emplace_back(row.begin() + begin, row.begin() + begin + n);
  return y;
}

/// Returns the causal convolution of each channel, followed by SiLU.
inline Rows64 convolve(const ShortConv& conv, const Rows64& x) {
  Rows64 y = zeros(x.size(), conv.channels);
  for (size_t t = 0; t < x.size(); ++t) {
    for (int64_t c = 0; c < conv.channels; ++c) {
      double sum = conv.bias.empty() ? 0 : conv.bias[c];
      for (int k = 0; k < conv.width; ++k) {
        const auto from = static_cast<int64_t>(t) - (conv.width - 1) + k;
        if (from >= 0) sum += static_cast<double>(conv.weight[c * conv.width + k]) * x[from][c];
      }
      y[t][c] = silu(sum);
    }
  }
  return y;
}

/// Applies an RMS norm with `weight` to columns [begin, begin + n) of x. weight null: does nothing.
inline void normalise(std::vector<double>& x, int64_t begin, int64_t n, const float* weight, double eps) {
  if (!weight) return;
  double squares = 0;
  for (int64_t i = begin; i < begin + n; ++i) squares += x[i] * x[i];
  const double inverse = 1 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (int64_t i = 0; i < n; ++i) x[begin + i] *= inverse * weight[i];
}

/// Adds Σ_{j ≤ i} mix(i, j) · x[j, x_begin + c] to y[i, y_begin + c] for c < n.
template <class Mix>
void mix_columns(const Rows64& x, int64_t x_begin, int64_t n, Rows64& y, int64_t y_begin, const Mix& mix) {
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = 0; j <= i; ++j) {
      const double m = mix(i, j);
      for (int64_t c = 0; c < n; ++c) y[i][y_begin + c] += m * x[j][x_begin + c];
    }
  }
}

inline double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Rotates the pairs (2i, 2i + 1) of each head by the position of the row.
inline void rotate(Rows64& x, int heads, int dim, const std::vector<double>& frequencies) {
  for (size_t t = 0; t < x.size(); ++t) {
    for (int h = 0; h < heads; ++h) {
      for (size_t i = 0; i < frequencies.size(); ++i) {
        const double angle = static_cast<double>(t) * frequencies[i];
        double &even = x[t][h * dim + 2 * i], &odd = x[t][h * dim + 2 * i + 1];
        const double e = even, o = odd;
        even = e * std::cos(angle) - o * std::sin(angle);
        odd = e * std::sin(angle) + o * std::cos(angle);
      }
    }
  }
}

/// Returns the reference of attention without biases and norms.
inline ScalarMixer scalar_attention(const AttentionWeights& w, const Rotary& rotary) {
  struct Shape {
    int heads, group, dim;
    int64_t window;
    double scale;
  };
  return [q = ScalarMatrix(w.q), k = ScalarMatrix(w.k), v = ScalarMatrix(w.v), out = ScalarMatrix(w.out),
          frequencies = rotary.frequencies(),
          s = Shape{w.heads, w.heads / w.kv_heads, w.key_dim, w.window, w.scale}](const Rows64& x) {
    Rows64 queries = q.times(x), keys = k.times(x);
    const Rows64 values = v.times(x);
    rotate(queries, s.heads, s.dim, frequencies);
    rotate(keys, s.heads / s.group, s.dim, frequencies);
    Rows64 y = zeros(x.size(), s.heads * s.dim);
    for (int h = 0; h < s.heads; ++h) {
      const int kv = h / s.group;
      Rows64 weights = zeros(x.size(), std::ssize(x));
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t first = s.window > 0 ? std::max<int64_t>(0, static_cast<int64_t>(i) + 1 - s.window) : 0;
        double total = 0;
        for (size_t j = first; j <= i; ++j)
          total += weights[i][j] = std::exp(s.scale * dot(&queries[i][h * s.dim], &keys[j][kv * s.dim], s.dim));
        for (double& weight : weights[i]) weight /= total;
      }
      mix_columns(values, kv * s.dim, s.dim, y, h * s.dim, [&](size_t i, size_t j) { return weights[i][j]; });
    }
    return out.times(y);
  };
}

/// Returns the sum of the log-decays of tokens j + 1 to i.
template <class Time>
double log_decay(const Time& time, size_t j, size_t i, double a) {
  double sum = 0;
  for (size_t t = j + 1; t <= i; ++t) sum += time(t) * a;
  return sum;
}

/// Returns the reference of MambaMixer.
inline ScalarMixer scalar_mamba(const MambaWeights& w) {
  return [in = ScalarMatrix(w.in), select = ScalarMatrix(w.select), time = ScalarMatrix(w.time),
          out = ScalarMatrix(w.out), inner = w.inner, state = w.state, rank = w.rank, conv = w.conv,
          bias = w.time_bias, a = w.a, d = w.d, time_norm = w.time_norm, b_norm = w.b_norm, c_norm = w.c_norm,
          eps = w.norm_eps](const Rows64& u) {
    const Rows64 xz = in.times(u), x = convolve(conv, columns(xz, 0, inner));
    Rows64 coefficients = select.times(x);
    for (auto& row : coefficients) {
      normalise(row, 0, rank, time_norm.empty() ? nullptr : time_norm.data(), eps);
      normalise(row, rank, state, b_norm.empty() ? nullptr : b_norm.data(), eps);
      normalise(row, rank + state, state, c_norm.empty() ? nullptr : c_norm.data(), eps);
    }
    Rows64 steps = time.times(columns(coefficients, 0, rank));
    for (auto& row : steps)
      for (int64_t c = 0; c < inner; ++c) row[c] = softplus(row[c] + bias[c]);
    Rows64 y = zeros(u.size(), inner);
    for (int64_t c = 0; c < inner; ++c) {
      mix_columns(x, c, 1, y, c, [&](size_t i, size_t j) {
        double sum = i == j ? d[c] : 0;
        for (int64_t n = 0; n < state; ++n) {
          const double decay = log_decay([&](size_t t) { return steps[t][c]; }, j, i, a[c * state + n]);
          sum += coefficients[i][rank + state + n] * std::exp(decay) * steps[j][c] * coefficients[j][rank + n];
        }
        return sum;
      });
    }
    for (size_t t = 0; t < y.size(); ++t)
      for (int64_t c = 0; c < inner; ++c) y[t][c] *= silu(xz[t][inner + c]);
    return out.times(y);
  };
}

/// Returns the reference of Mamba2Mixer.
inline ScalarMixer scalar_mamba2(const Mamba2Weights& w) {
  return [in = ScalarMatrix(w.in), out = ScalarMatrix(w.out), inner = w.inner, heads = w.heads, groups = w.groups,
          state = w.state, conv = w.conv, bias = w.time_bias, a = w.a, d = w.d, norm = w.norm,
          eps = w.norm_eps](const Rows64& u) {
    const int64_t width = inner / heads, channels = conv.channels;
    const Rows64 all = in.times(u), xbc = convolve(conv, columns(all, inner, channels));
    Rows64 steps = columns(all, inner + channels, heads);
    for (auto& row : steps)
      for (int64_t h = 0; h < heads; ++h) row[h] = softplus(row[h] + bias[h]);
    Rows64 y = zeros(u.size(), inner);
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t b = inner + h / (heads / groups) * state, c = b + groups * state;
      mix_columns(xbc, h * width, width, y, h * width, [&](size_t i, size_t j) {
        const double decay = log_decay([&](size_t t) { return steps[t][h]; }, j, i, a[h]);
        return dot(&xbc[i][c], &xbc[j][b], state) * std::exp(decay) * steps[j][h] + (i == j ? d[h] : 0);
      });
    }
    for (size_t t = 0; t < y.size(); ++t) {
      for (int64_t i = 0; i < inner; ++i) y[t][i] *= silu(all[t][i]);
      for (int64_t g = 0; !norm.empty() && g < groups; ++g)
        normalise(y[t], g * inner / groups, inner / groups, norm.data() + g * inner / groups, eps);
    }
    return out.times(y);
  };
}

}  // namespace fathom::test
