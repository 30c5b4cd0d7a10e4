// The reference version of the state-space kernels.
#include <algorithm>
#include <cassert>
#include <cmath>

#include "kernels/reference.h"

namespace fathom::reference {
namespace {

double silu_of(double v) { return v / (1.0 + std::exp(-v)); }

/// Sets h = decay · h + input · b for `n` elements and returns Σ h · c.
template <class Decay>
double step(float* h, int64_t n, const Decay& decay, double input, const float* b, const float* c) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    h[i] = static_cast<float>(decay(i) * h[i] + input * b[i]);
    sum += static_cast<double>(h[i]) * c[i];
  }
  return sum;
}
}  // namespace

void causal_conv(const ConvTask& t) {
  assert(t.width >= 1 && t.width <= kMaxConvWidth);
  const int64_t before = t.width - 1;
  for (int64_t c = t.begin; c < t.end; ++c) {
    for (int64_t r = 0; r < t.rows; ++r) {
      double sum = t.bias ? t.bias[c] : 0.0;
      for (int64_t k = 0; k < t.width; ++k) {
        const int64_t from = r - before + k;
        const float input = from < 0 ? t.ring[(from + before) * t.channels + c] : t.x[from * t.x_stride + c];
        sum += static_cast<double>(t.weight[c * t.width + k]) * input;
      }
      t.y[r * t.y_stride + c] = static_cast<float>(t.silu ? silu_of(sum) : sum);
    }
    for (int64_t k = 0; k < before; ++k) {
      const int64_t from = t.rows - before + k;
      t.ring[k * t.channels + c] = from < 0 ? t.ring[(from + before) * t.channels + c] : t.x[from * t.x_stride + c];
    }
  }
}

void selective_scan(const SelectiveScan& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t c = t.begin; c < t.end; ++c) {
      const double x = t.x[r * t.x_stride + c], dt = t.dt[r * t.dt_stride + c];
      const auto decay = [&](int64_t n) { return std::exp(dt * t.a[c * t.state + n]); };
      const double sum =
          step(t.h + c * t.state, t.state, decay, dt * x, t.b + r * t.b_stride, t.c + r * t.c_stride);
      t.y[r * t.y_stride + c] = static_cast<float>(sum + (t.d ? t.d[c] * x : 0.0));
    }
  }
}

void ssd_scan(const SsdHead& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const double dt = t.dt[r * t.dt_stride], decay = std::exp(dt * t.a);
    for (int64_t p = 0; p < t.width; ++p) {
      const double x = t.x[r * t.x_stride + p];
      const double sum = step(
          t.h + p * t.state, t.state, [&](int64_t) { return decay; }, dt * x, t.b + r * t.b_stride,
          t.c + r * t.c_stride);
      t.y[r * t.y_stride + p] = static_cast<float>(sum + t.d * x);
    }
  }
}

void ssd_chunk(const SsdHead& t, float* /*scratch*/) { ssd_scan(t); }

void ssd_products(const SsdProducts& t, float* /*scratch*/) {
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t j = r / kSsdBlock * kSsdBlock; j <= r; ++j) {
      double sum = 0;
      for (int64_t n = 0; n < t.state; ++n)
        sum += static_cast<double>(t.c[r * t.c_stride + n]) * t.b[j * t.b_stride + n];
      t.products[r * kSsdBlock + j % kSsdBlock] = static_cast<float>(sum);
    }
  }
}

void gated_group_norm(const float* x, const float* z, const float* weight, float eps, int64_t groups, int64_t width,
                      float* out) {
  for (int64_t g = 0; g < groups * width; g += width) {
    double squares = 0;
    for (int64_t i = g; i < g + width; ++i) {
      out[i] = static_cast<float>(x[i] * silu_of(z[i]));
      squares += static_cast<double>(out[i]) * out[i];
    }
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(width) + eps);
    for (int64_t i = g; i < g + width; ++i) out[i] = static_cast<float>(out[i] * inverse * weight[i]);
  }
}

}  // namespace fathom::reference
