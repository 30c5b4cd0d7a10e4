// The reference version of every kernel, which the fast versions are compared with.
#include "kernels/reference.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/quantize.h"

namespace fathom {
namespace {

void quantize_activations(const float* x, int64_t cols, int8_t* q, float* scale, float* sum, float* pair_sum) {
  const int64_t padded = padded_columns(cols);
  for (int64_t begin = 0; begin < padded; begin += 32) {
    const int64_t end = std::min(begin + 32, cols);
    float largest = 0;
    for (int64_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float s = largest / 127.0f;
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    int sums[2] = {0, 0};
    for (int64_t i = begin; i < begin + 32; ++i) {
      q[i] = i < end ? static_cast<int8_t>(std::nearbyint(x[i] * inverse)) : 0;
      sums[(i - begin) / 16] += q[i];
    }
    for (int half = 0; half < 2; ++half) {
      scale[begin / 16 + half] = s;
      sum[begin / 16 + half] = s * static_cast<float>(sums[half]);
    }
    pair_sum[begin / 32] = s * static_cast<float>(sums[0] + sums[1]);
  }
}

/// Returns W[r]·x with float weights, summed in double.
float dot_float(const Matrix& w, int64_t r, const float* x) {
  double total = 0;
  float block[256];
  for (int64_t begin = 0; begin < w.cols; begin += 256) {
    const int64_t n = std::min<int64_t>(256, w.cols - begin);
    dequantize_row(w.type, w.row(r) + row_bytes(w.type, begin), block, n);
    for (int64_t k = 0; k < n; ++k) total += static_cast<double>(block[k]) * x[begin + k];
  }
  return static_cast<float>(total);
}

/// Returns W[r]·x with quantised weights: Σ over groups of 16 of scale_w·scale_x·Σ q_w·q_x. dequantize_row defines
/// the weights.
float dot_quantised(const Matrix& w, int64_t r, const int8_t* q, const float* scale) {
  double total = 0;
  float block[256];
  for (int64_t begin = 0; begin < w.cols; begin += 256) {
    const int64_t n = std::min<int64_t>(256, w.cols - begin);
    dequantize_row(w.type, w.row(r) + row_bytes(w.type, begin), block, n);
    for (int64_t k = 0; k < n; ++k)
      total += static_cast<double>(block[k]) * (static_cast<double>(scale[(begin + k) / 16]) * q[begin + k]);
  }
  return static_cast<float>(total);
}

void matvec(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  const int64_t padded = padded_columns(w.cols);
  for (int64_t i = 0; i < x.rows; ++i) {
    for (int64_t r = begin; r < end; ++r) {
      y[i * y_stride + r] = is_float(w.type) ? dot_float(w, r, x.f32 + i * w.cols)
                                             : dot_quantised(w, r, x.q + i * padded, x.scale + i * padded / 16);
    }
  }
}

/// Returns q·k for one token of a page, the key rotated by the page's position.
double score(const AttendTask& task, const float* query, const PageRead& page, int token) {
  double total = 0;
  for (int pair = 0; pair < task.key_dim / 2; ++pair) {
    const double even = page_key(task.format, task.key_dim, page.keys, token, 2 * pair);
    const double odd = page_key(task.format, task.key_dim, page.keys, token, 2 * pair + 1);
    const bool rotates = page.cos && pair < task.rotary_dim / 2;
    const double c = rotates ? page.cos[pair] : 1, s = rotates ? page.sin[pair] : 0;
    total += query[2 * pair] * (even * c - odd * s) + query[2 * pair + 1] * (even * s + odd * c);
  }
  return total;
}

void softplus_weights(const float* constants, const float* query, int64_t count, float* scores) {
  constexpr double kLowScore = -30;  // below it, ln(1 + e^x) equals e^x to the last digit
  for (int64_t i = 0; i < count; ++i) {
    const double score = scores[i], softplus = std::max(score, 0.0) + std::log1p(std::exp(-std::fabs(score)));
    const double log_softplus = score < kLowScore ? score : std::log(softplus);
    scores[i] = static_cast<float>(log_softplus);
    if (!query) continue;
    const SoftplusQuery row{query[0], query[1], query[2]};
    const double above = row.tokens * std::exp(log_softplus - row.lse) - row.offset;
    scores[i] =
        above > 0 ? static_cast<float>(constants[0] * std::log(above)) : -std::numeric_limits<float>::infinity();
  }
}

void capped_weights(const float* constants, const float* /*query*/, int64_t count, float* scores) {
  for (int64_t i = 0; i < count; ++i) scores[i] = constants[0] * std::tanh(scores[i] / constants[0]);
}

/// Returns dimension d of a token's value.
float value(const AttendTask& task, const PageRead& page, int token, int d) {
  if (task.value_offset < 0) return page_value(task.format, task.value_dim, page.values, token, d);
  return page_key(task.format, task.key_dim, page.values, token, task.value_offset + d);
}

void attend(const AttendTask& task, float* /*scratch*/) {
  const double minus_infinity = -std::numeric_limits<double>::infinity();
  for (int i = 0; i < task.rows * task.group; ++i) {
    const float* query = task.queries + static_cast<int64_t>(i) * task.key_dim;
    const auto visible = [&](const PageRead& page) {
      return page.row_masks ? page.mask & page.row_masks[i / task.group] : page.mask;
    };
    const auto log_weight_of = [&](const PageRead& page, int t) {
      const double dot = score(task, query, page, t);
      if (!task.weights.apply) return dot;
      auto log_weight = static_cast<float>(dot);
      task.weights(i, 1, &log_weight);
      return static_cast<double>(log_weight);
    };
    double largest = minus_infinity, total = 0;
    for (int64_t p = 0; p < task.page_count; ++p) {
      for (int t = 0; t < kPageTokens; ++t) {
        if (visible(task.pages[p]) >> t & 1) largest = std::max(largest, log_weight_of(task.pages[p], t));
      }
    }
    const bool any = largest > minus_infinity;
    std::vector<double> sums(task.value_dim, 0.0);
    for (int64_t p = 0; p < task.page_count; ++p) {
      double page_total = 0;
      for (int t = 0; t < kPageTokens; ++t) {
        if (!any || !(visible(task.pages[p]) >> t & 1)) continue;
        const double weight = std::exp(log_weight_of(task.pages[p], t) - largest);
        page_total += weight;
        for (int d = 0; task.out && d < task.value_dim; ++d) sums[d] += weight * value(task, task.pages[p], t, d);
      }
      total += page_total;
      if (task.mass) task.mass[i * task.page_count + p] = static_cast<float>(page_total);
    }
    for (int d = 0; task.out && d < task.value_dim; ++d)
      task.out[i * task.value_dim + d] = any ? static_cast<float>(sums[d] / total) : 0;
    task.lse[i] = static_cast<float>(any ? largest + std::log(total) : minus_infinity);
    for (int64_t p = 0; task.mass && any && p < task.page_count; ++p)
      task.mass[i * task.page_count + p] /= static_cast<float>(total);
    if (std::all_of(query, query + task.key_dim, [](float x) { return std::isfinite(x); })) continue;
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    if (task.out) std::fill_n(task.out + static_cast<int64_t>(i) * task.value_dim, task.value_dim, kNan);
    task.lse[i] = kNan;
    if (task.mass) std::fill_n(task.mass + i * task.page_count, task.page_count, kNan);
  }
}

void score_page(const ScoreTask& task, float* /*scratch*/) {
  for (int i = 0; i < task.queries_count; ++i) {
    const float* query = task.queries + static_cast<int64_t>(i) * task.key_dim;
    for (int t = 0; t < kPageTokens; ++t) {
      double total = 0;
      for (int d = 0; d < task.key_dim; ++d)
        total += static_cast<double>(query[d]) * page_key(task.format, task.key_dim, task.keys, t, d);
      task.scores[static_cast<int64_t>(i) * kPageTokens + t] = static_cast<float>(total);
    }
  }
}

void largest_bounds(const BoundTask& task) {
  std::fill_n(task.out, task.pages * task.columns, -std::numeric_limits<float>::infinity());
  for (int64_t p = 0; p < task.pages; ++p) {
    for (int q = 0; q < task.count; ++q) {
      std::array<double, 4> sums{};
      for (int64_t i = 0; i < task.n; ++i) {
        const uint32_t word = task.bounds[p * task.n + i];
        const float minimum = bf16_to_f32(static_cast<uint16_t>(word)),
                    maximum = bf16_to_f32(static_cast<uint16_t>(word >> 16));
        sums[i % task.columns] += static_cast<double>(task.below[q * task.n + i]) * minimum +
                                  static_cast<double>(task.above[q * task.n + i]) * maximum;
      }
      for (int c = 0; c < task.columns; ++c) {
        float& out = task.out[p * task.columns + c];
        out = std::max(out, static_cast<float>(sums[c]));
      }
    }
  }
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  const auto inverse = static_cast<float>(1.0 / std::sqrt(squares / n + eps));
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * inverse * weight[i];
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out) {
  double mean = 0, variance = 0;
  for (int64_t i = 0; i < n; ++i) mean += x[i];
  mean /= n;
  for (int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
  const double inverse = 1.0 / std::sqrt(variance / n + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>((x[i] - mean) * inverse) * weight[i] + bias[i];
}

void rotate_pairs(float* x, const float* cos, const float* sin, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float even = x[2 * i], odd = x[2 * i + 1];
    x[2 * i] = even * cos[i] - odd * sin[i];
    x[2 * i + 1] = even * sin[i] + odd * cos[i];
  }
}

void swiglu(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

double gelu_of(double v) {
  const double root = std::sqrt(2.0 / M_PI);
  return 0.5 * v * (1.0 + std::tanh(root * (v + 0.044715 * v * v * v)));
}

void gelu(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(gelu_of(x[i]));
}

void geglu(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = static_cast<float>(gelu_of(gate[i]) * up[i]);
}

void swiglu_oai(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double g = std::min(gate[i], 7.0f), u = std::clamp(up[i], -7.0f, 7.0f);
    gate[i] = static_cast<float>(g / (1.0 + std::exp(-1.702 * g)) * (u + 1.0));
  }
}

void silu(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(x[i] / (1.0 + std::exp(-static_cast<double>(x[i]))));
}

void relu_squared(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = std::max(x[i], 0.0f) * std::max(x[i], 0.0f);
}

void softplus(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] <= 20) x[i] = static_cast<float>(std::log1p(std::exp(static_cast<double>(x[i]))));
  }
}

void add(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

float softmax(float* x, int64_t n) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, x[i]);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    x[i] = std::exp(x[i] - largest);
    total += x[i];
  }
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(x[i] / total);
  return largest + static_cast<float>(std::log(total));
}

void rms_norm_backward(const float* x, const float* weight, const float* dy, float eps, int64_t n, float* dx,
                       float* dweight) {
  double squares = 0, dot = 0;
  for (int64_t i = 0; i < n; ++i) {
    squares += static_cast<double>(x[i]) * x[i];
    dot += static_cast<double>(weight[i]) * dy[i] * x[i];
  }
  const double inverse = 1.0 / std::sqrt(squares / n + eps);
  for (int64_t i = 0; i < n; ++i) {
    dweight[i] += static_cast<float>(dy[i] * x[i] * inverse);
    dx[i] = static_cast<float>(inverse * (weight[i] * dy[i] - x[i] * inverse * inverse * dot / n));
  }
}

void swiglu_backward(const float* gate, const float* up, const float* dy, int64_t n, float* dgate, float* dup) {
  for (int64_t i = 0; i < n; ++i) {
    const double g = gate[i], sigmoid = 1.0 / (1.0 + std::exp(-g));
    dup[i] = static_cast<float>(dy[i] * g * sigmoid);
    dgate[i] = static_cast<float>(dy[i] * up[i] * sigmoid * (1.0 + g * (1.0 - sigmoid)));
  }
}

void softmax_backward(float lse, float dy_dot_p, int64_t n, float* x, float* dy) {
  for (int64_t i = 0; i < n; ++i) {
    x[i] = std::exp(x[i] - lse);
    dy[i] = x[i] * (dy[i] - dy_dot_p);
  }
}

float exponentials(float* x, int64_t n, float* sum) {
  const float largest = *std::max_element(x, x + n);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += x[i] = std::exp(x[i] - largest);
  *sum = static_cast<float>(total);
  return largest;
}

void scale(float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

int64_t peak(int64_t n, float* sink) {
  double sums[8] = {0, 1, 2, 3, 4, 5, 6, 7};  // different, or the compiler would merge them into one
  for (int64_t i = 0; i < n; i += 8) {
    for (double& sum : sums) sum = sum * 0.999 + 1e-3;
  }
  for (const double sum : sums) *sink += static_cast<float>(sum);
  return (n + 7) / 8 * 8;
}

uint32_t read(const std::byte* bytes, size_t n) {
  uint32_t sum = 0;
  for (size_t i = 0; i < n; i += sizeof(uint32_t)) {
    uint32_t word;
    std::memcpy(&word, bytes + i, sizeof(word));
    sum += word;
  }
  return sum;
}

void multiply(const FloatProduct& p, float* /*scratch*/) {
  for (int64_t i = 0; i < p.rows; ++i) {
    for (int64_t j = 0; j < p.cols; ++j) {
      float sum = p.add ? p.y[i * p.y_stride + j] : 0.0f;
      for (int64_t k = 0; k < p.depth; ++k) {
        sum += p.a[p.a_transposed ? k * p.a_stride + i : i * p.a_stride + k] *
               p.b[p.b_transposed ? j * p.b_stride + k : k * p.b_stride + j];
      }
      p.y[i * p.y_stride + j] = sum;
    }
  }
}

}  // namespace

Kernels reference_kernels() {
  return {.isa = "reference",
          .quantize_activations = quantize_activations,
          .matvec = matvec,
          .matmul = matvec,
          .panel_rows = 16,
          .multiply = multiply,
          .attend = attend,
          .softplus_weights = softplus_weights,
          .capped_weights = capped_weights,
          .score_page = score_page,
          .largest_bounds = largest_bounds,
          .write_page = write_page,
          .rms_norm = rms_norm,
          .layer_norm = layer_norm,
          .rotate_pairs = rotate_pairs,
          .swiglu = swiglu,
          .geglu = geglu,
          .swiglu_oai = swiglu_oai,
          .gelu = gelu,
          .silu = silu,
          .relu_squared = relu_squared,
          .softplus = softplus,
          .add = add,
          .softmax = softmax,
          .causal_conv = reference::causal_conv,
          .selective_scan = reference::selective_scan,
          .ssd_scan = reference::ssd_scan,
          .ssd_chunk = reference::ssd_chunk,
          .ssd_products = reference::ssd_products,
          .gated_group_norm = reference::gated_group_norm,
          .rms_norm_backward = rms_norm_backward,
          .swiglu_backward = swiglu_backward,
          .softmax_backward = softmax_backward,
          .exponentials = exponentials,
          .scale = scale,
          .peak = peak,
          .peak_f32 = peak,
          .peak_bf16 = nullptr,
          .read = read};
}

}  // namespace fathom
