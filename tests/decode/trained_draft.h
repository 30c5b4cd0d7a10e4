#pragma once

#include <cmath>
#include <map>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "attend/context.h"
#include "formats/gguf.h"
#include "models/config.h"
#include "seed.h"
#include "written_file.h"

namespace fathom::test {

/// A draft file of random weights for a model, which tests can modify before they write it.
struct TrainedDraft {
  struct Tensor {
    int64_t rows = 0, cols = 0;  // rows 0: a vector
    std::vector<float> values{};
  };

  TrainedDraft(std::string kind_of_source, const ModelConfig& config, uint32_t seed)
      : kind(std::move(kind_of_source)), model(config), random(test::seed(seed)) {
    keys["draft.width"] = model.width;
    keys["draft.vocabulary"] = model.vocabulary;
    keys["draft.layers"] = model.layers;
  }

  /// Adds a matrix whose product with a vector of unit variance has about the variance `gain`².
  void matrix(const std::string& name, int64_t rows, int64_t cols, float gain = 1) {
    tensors[name] = {rows, cols, normal(rows * cols, gain / std::sqrt(static_cast<float>(cols)), 0)};
  }
  void vector(const std::string& name, int64_t n, float mean = 0) { tensors[name] = {0, n, normal(n, 0.1f, mean)}; }
  std::vector<float> normal(int64_t n, float deviation, float mean) {
    std::normal_distribution<float> distribution(mean, deviation);
    std::vector<float> values(n);
    for (float& value : values) value = distribution(random);
    return values;
  }

  std::vector<std::byte> bytes() const {
    GgufWriter writer;
    writer.set_string("general.type", type);
    writer.set_string("general.architecture", "fathom-draft");
    writer.set_string("draft.kind", kind);
    for (const auto& [key, value] : keys) writer.set(key, GgufType::kU32, static_cast<uint64_t>(value));
    for (const auto& [key, value] : numbers) writer.set(key, GgufType::kF32, value);
    for (const auto& [key, value] : flags) writer.set(key, GgufType::kBool, value);
    for (const auto& [key, values] : lists) writer.set_integers(key, values);
    for (const auto& [name, tensor] : tensors) {
      std::vector<int64_t> shape{tensor.cols};
      if (tensor.rows > 0) shape.push_back(tensor.rows);
      writer.add_tensor(name, WeightType::kF32, shape, std::as_bytes(std::span(tensor.values)));
    }
    return writer.bytes();
  }
  /// Writes the file, which exists until the process ends, and returns its path.
  std::string write(const std::string& name) const { return write_file(bytes(), name); }
  /// Returns a tensor · x (+ bias), in double precision.
  std::vector<double> product(const std::string& name, const std::vector<double>& x,
                              const std::string& bias = "") const {
    const Tensor& w = tensors.at(name);
    if (w.cols != std::ssize(x)) throw std::runtime_error("wrong size of " + name);
    std::vector<double> y(w.rows);
    for (int64_t r = 0; r < w.rows; ++r) {
      y[r] = bias.empty() ? 0 : tensors.at(bias).values[r];
      for (int64_t c = 0; c < w.cols; ++c) y[r] += static_cast<double>(w.values[r * w.cols + c]) * x[c];
    }
    return y;
  }

  std::string type = "draft", kind;
  ModelConfig model;
  std::mt19937 random;
  std::map<std::string, int64_t> keys;
  std::map<std::string, double> numbers;
  std::map<std::string, bool> flags;
  std::map<std::string, std::vector<int32_t>> lists;
  std::map<std::string, Tensor> tensors;
};

inline TrainedDraft random_heads(const ModelConfig& model, bool sequential, bool own_output, int steps = 3,
                                 int blocks = 2, uint32_t seed = 0) {
  TrainedDraft draft("heads", model, seed);
  draft.keys["draft.steps"] = steps;
  draft.keys["draft.blocks"] = blocks;
  draft.flags["draft.sequential"] = sequential;
  for (int i = 0; i < steps; ++i) {
    const std::string head = "head." + std::to_string(i) + ".";
    const int64_t inputs = sequential ? (i + 2) * model.width : model.width;
    if (sequential) draft.matrix(head + "residual.weight", model.width, inputs);
    for (int k = 0; k < blocks; ++k) {
      const std::string block = head + "block." + std::to_string(k) + ".";
      draft.matrix(block + "weight", model.width, k == 0 ? inputs : model.width);
      draft.vector(block + "bias", model.width);
    }
    if (own_output) draft.matrix(head + "output.weight", model.vocabulary, model.width, 2);
  }
  return draft;
}

inline TrainedDraft random_transfer(const ModelConfig& model, std::vector<int32_t> layers, uint32_t seed = 0) {
  TrainedDraft draft("hidden-transfer", model, seed);
  draft.keys["draft.steps"] = std::ssize(layers);
  for (size_t i = 0; i < layers.size(); ++i)
    draft.matrix("transfer." + std::to_string(i) + ".weight", model.width, model.width);
  draft.lists["draft.transfer.layers"] = std::move(layers);
  return draft;
}

/// layer: the last layer of the model with attention.
inline TrainedDraft random_longspec(const ModelConfig& model, const AttendLayer& layer, int window = 512,
                                    uint32_t seed = 0) {
  constexpr int64_t kHeads = 4, kKvHeads = 2, kDim = 8, kFfn = 48;
  TrainedDraft draft("longspec", model, seed);
  draft.keys["draft.heads"] = kHeads;
  draft.keys["draft.kv_heads"] = kKvHeads;
  draft.keys["draft.head_dim"] = kDim;
  draft.keys["draft.ffn_width"] = kFfn;
  draft.keys["draft.window"] = window;
  draft.numbers["draft.norm_eps"] = 1e-5;
  draft.numbers["draft.rope_base"] = 5000;
  const int64_t width = model.width;
  for (const char* norm : {"attn_norm.weight", "cross_norm.weight", "ffn_norm.weight", "output_norm.weight"})
    draft.vector(norm, width, 1);
  draft.matrix("attn_q.weight", kHeads * kDim, width, 2);
  draft.matrix("attn_k.weight", kKvHeads * kDim, width, 2);
  draft.matrix("attn_v.weight", kKvHeads * kDim, width);
  draft.matrix("attn_output.weight", width, kHeads * kDim);
  draft.matrix("cross_q.weight", int64_t{layer.heads} * layer.shape.key_dim, width, 2);
  draft.matrix("cross_output.weight", width, int64_t{layer.heads} * layer.shape.value_dim);
  draft.matrix("ffn_gate.weight", kFfn, width);
  draft.matrix("ffn_up.weight", kFfn, width);
  draft.matrix("ffn_down.weight", width, kFfn);
  return draft;
}

}  // namespace fathom::test
