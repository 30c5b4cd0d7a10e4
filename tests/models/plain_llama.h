#pragma once

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "models/tiny_model.h"

namespace fathom::test {

using Doubles = std::vector<double>;

/// x / rms(x) · weight.
inline Doubles plain_rms_norm(const Doubles& x, const std::vector<float>& weight, double eps) {
  double square = 0;
  for (const double value : x) square += value * value;
  Doubles y(x.size());
  for (size_t i = 0; i < x.size(); ++i)
    y[i] = x[i] / std::sqrt(square / static_cast<double>(x.size()) + eps) * weight[i];
  return y;
}

/// Rotates the pairs (2i, 2i + 1) of a head by position · base^(−2i / dims).
inline void plain_rotate(double* head, int dims, double base, int64_t position) {
  for (int i = 0; i < dims; i += 2) {
    const double angle = static_cast<double>(position) * std::pow(base, -static_cast<double>(i) / dims);
    const double x = head[i], y = head[i + 1];
    head[i] = x * std::cos(angle) - y * std::sin(angle);
    head[i + 1] = x * std::sin(angle) + y * std::cos(angle);
  }
}

/// Softmax attention of one query over keys and values: out, [value dims].
inline Doubles plain_attention(const double* query, const std::vector<const double*>& keys,
                               const std::vector<const double*>& values, int dims) {
  Doubles weights, out(dims);
  double sum = 0;
  for (const double* key : keys) {
    double score = 0;
    for (int d = 0; d < dims; ++d) score += query[d] * key[d];
    weights.push_back(std::exp(score / std::sqrt(static_cast<double>(dims))));
    sum += weights.back();
  }
  for (size_t i = 0; i < keys.size(); ++i)
    for (int d = 0; d < dims; ++d) out[d] += weights[i] / sum * values[i][d];
  return out;
}

inline double plain_silu(double x) { return x / (1 + std::exp(-x)); }

/// A row of PlainLlama: a token, or a state that enters in the middle of the layers.
struct PlainRow {
  int32_t token = 0;
  int64_t position = 0;
  std::vector<int> visible{};  // earlier rows that it attends to
  // A pseudo row: its state at the input of `layer` is weights · that of row `source`. source −1: a token.
  int source = -1, layer = 0;
  const float* weights = nullptr;  // [width, width]
};

/// The forward pass of a TinyFile without changes of shape, in double precision, row by row and without a cache.
class PlainLlama {
 public:
  explicit PlainLlama(const Gguf& file) {
    for (const GgufTensor& tensor : file.tensors()) {
      const auto* values = reinterpret_cast<const float*>(tensor.data);
      tensors_[std::string(tensor.name)].assign(values, values + tensor.bytes / sizeof(float));
    }
    if (!tensors_.count("output.weight")) tensors_["output.weight"] = tensors_.at("token_embd.weight");
  }

  struct Result {
    std::vector<std::vector<Doubles>> states, keys, values;  // [layers][rows]: inputs of layers; rotated keys
    std::vector<Doubles> hidden, logits;                     // [rows]
  };

  Result run(const std::vector<PlainRow>& rows) const {
    Result result;
    const size_t layers = shape_.layers;
    result.states.resize(layers + 1, std::vector<Doubles>(rows.size()));
    result.keys.resize(layers, std::vector<Doubles>(rows.size()));
    result.values.resize(layers, std::vector<Doubles>(rows.size()));
    for (size_t r = 0; r < rows.size(); ++r) {
      if (rows[r].source < 0) result.states[0][r] = embedding(rows[r].token);
      for (int layer = 0; layer < shape_.layers; ++layer) {
        if (rows[r].source >= 0 && layer < rows[r].layer) continue;
        if (rows[r].source >= 0 && layer == rows[r].layer)
          result.states[layer][r] = multiply(rows[r].weights, shape_.width, result.states[layer][rows[r].source]);
        run_layer(rows, r, layer, result);
      }
      result.hidden.push_back(plain_rms_norm(result.states[layers][r], tensors_.at("output_norm.weight"), kEps));
      result.logits.push_back(output(result.hidden.back()));
    }
    return result;
  }

  Doubles embedding(int32_t token) const {
    const float* row = tensors_.at("token_embd.weight").data() + token * shape_.width;
    return {row, row + shape_.width};
  }
  Doubles output(const Doubles& x) const {
    return multiply(tensors_.at("output.weight").data(), shape_.vocabulary, x);
  }

 private:
  static constexpr double kEps = 1e-5, kBase = 10000;

  static Doubles multiply(const float* weights, int64_t rows, const Doubles& x) {
    Doubles y(rows);
    for (int64_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < x.size(); ++c) y[r] += static_cast<double>(weights[r * x.size() + c]) * x[c];
    return y;
  }
  Doubles multiply(int layer, const std::string& name, int64_t rows, const Doubles& x) const {
    return multiply(tensors_.at("blk." + std::to_string(layer) + "." + name).data(), rows, x);
  }

  void run_layer(const std::vector<PlainRow>& rows, size_t r, int layer, Result& result) const {
    const int dim = shape_.head_dim, group = shape_.heads / shape_.kv_heads;
    const std::string blk = "blk." + std::to_string(layer) + ".";
    Doubles x = result.states[layer][r];
    const Doubles u = plain_rms_norm(x, tensors_.at(blk + "attn_norm.weight"), kEps);
    Doubles q = multiply(layer, "attn_q.weight", shape_.heads * dim, u);
    Doubles& k = result.keys[layer][r] = multiply(layer, "attn_k.weight", shape_.kv_heads * dim, u);
    result.values[layer][r] = multiply(layer, "attn_v.weight", shape_.kv_heads * dim, u);
    for (int h = 0; h < shape_.heads; ++h) plain_rotate(q.data() + h * dim, dim, kBase, rows[r].position);
    for (int h = 0; h < shape_.kv_heads; ++h) plain_rotate(k.data() + h * dim, dim, kBase, rows[r].position);
    std::vector<int> attended = rows[r].visible;
    attended.push_back(static_cast<int>(r));
    Doubles heads;
    for (int h = 0; h < shape_.heads; ++h) {
      std::vector<const double*> keys, values;
      for (const int other : attended) {
        keys.push_back(result.keys[layer][other].data() + h / group * dim);
        values.push_back(result.values[layer][other].data() + h / group * dim);
      }
      const Doubles out = plain_attention(q.data() + h * dim, keys, values, dim);
      heads.insert(heads.end(), out.begin(), out.end());
    }
    const Doubles mixed = multiply(layer, "attn_output.weight", shape_.width, heads);
    for (size_t i = 0; i < x.size(); ++i) x[i] += mixed[i];
    const Doubles f = plain_rms_norm(x, tensors_.at(blk + "ffn_norm.weight"), kEps);
    Doubles gate = multiply(layer, "ffn_gate.weight", shape_.ffn, f);
    const Doubles up = multiply(layer, "ffn_up.weight", shape_.ffn, f);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = plain_silu(gate[i]) * up[i];
    const Doubles down = multiply(layer, "ffn_down.weight", shape_.width, gate);
    for (size_t i = 0; i < x.size(); ++i) x[i] += down[i];
    result.states[layer + 1][r] = x;
  }

  TinyFile shape_;
  std::map<std::string, std::vector<float>> tensors_;
};

}  // namespace fathom::test
