#pragma once

#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "kernels/quantize.h"
#include "models/adapter.h"
#include "seed.h"

namespace fathom::test {

/// A LoRA adapter of random factors as a GGUF file in memory, which tests can modify.
struct TinyAdapter {
  std::string architecture = "llama", general_type = "adapter", type = "lora";
  std::vector<std::string> weights = {"blk.0.attn_q.weight",  "blk.0.attn_v.weight",   "blk.1.attn_k.weight",
                                      "blk.1.ffn_up.weight",  "blk.1.ffn_down.weight", "blk.2.attn_output.weight",
                                      "blk.2.ffn_gate.weight"};
  int64_t rank = 4;
  double alpha = 8;
  WeightType factors = WeightType::kF32;
  uint32_t seed = 1;
  std::function<void(GgufWriter&)> extra = [](GgufWriter&) {};  // adds metadata or tensors
  std::function<bool(const std::string&)> keep = [](const std::string&) { return true; };
  std::function<void(const std::string&, std::vector<int64_t>&)> reshape = [](const std::string&,
                                                                              std::vector<int64_t>&) {};

  /// shapes: of the model whose weights are named.
  std::vector<std::byte> bytes(const Model& model) const {
    GgufWriter writer;
    writer.set_string("general.type", general_type);
    writer.set_string("general.architecture", architecture);
    writer.set_string("adapter.type", type);
    writer.set("adapter.lora.alpha", GgufType::kF32, alpha);
    extra(writer);
    std::mt19937 random(test::seed(seed));
    const auto tensor = [&](const std::string& name, std::vector<int64_t> shape, float deviation) {
      if (!keep(name)) return;
      reshape(name, shape);
      std::normal_distribution<float> normal(0, deviation);
      std::vector<float> values(shape[0] * shape[1]);
      for (float& v : values) v = normal(random);
      std::vector<std::byte> data(shape[1] * row_bytes(factors, shape[0]));
      for (int64_t r = 0; r < shape[1]; ++r)
        quantize_row(factors, values.data() + r * shape[0], data.data() + r * row_bytes(factors, shape[0]),
                     shape[0]);
      writer.add_tensor(name, factors, shape, data);
    };
    for (const std::string& name : weights) {
      const Matrix* w = model.network().projection(name);
      const int64_t in = w ? w->cols : 64, out = w ? w->rows : 64;
      tensor(name + ".lora_a", {in, rank}, 1 / std::sqrt(static_cast<float>(in)));
      tensor(name + ".lora_b", {rank, out}, 0.3f / std::sqrt(static_cast<float>(rank)));
    }
    return writer.bytes();
  }

  std::shared_ptr<const Adapter> open(const std::shared_ptr<const Model>& model) const {
    const std::vector<std::byte> file = bytes(*model);
    return Adapter::from(Gguf::parse(file, "tiny-adapter.gguf"), model);
  }
};

/// Returns the floats of a tensor, [dim(1), dim(0)].
inline std::vector<float> floats_of(const GgufTensor& tensor) {
  const int64_t cols = tensor.dim(0), rows = tensor.dim(1);
  std::vector<float> values(rows * cols);
  for (int64_t r = 0; r < rows; ++r)
    dequantize_row(tensor.type, tensor.data + r * row_bytes(tensor.type, cols), values.data() + r * cols, cols);
  return values;
}

/// Returns the model with W + scale · α / rank · B·A, computed in double, for each weight of the adapter file.
inline std::shared_ptr<const Model> merge_adapter(const Gguf& model, const Gguf& adapter, double scale) {
  GgufWriter writer;
  for (const std::string_view key : model.keys()) writer.set_value(std::string(key), *model.find(key));
  for (const GgufTensor& tensor : model.tensors()) {
    const std::string name(tensor.name);
    const GgufTensor *a = adapter.find_tensor(name + ".lora_a"), *b = adapter.find_tensor(name + ".lora_b");
    if (!a) {
      writer.add_tensor(name, tensor.type, tensor.shape, {tensor.data, tensor.bytes});
      continue;
    }
    std::vector<float> w = floats_of(tensor);
    const std::vector<float> a_values = floats_of(*a), b_values = floats_of(*b);
    const int64_t in = tensor.dim(0), out = tensor.dim(1), rank = a->dim(1);
    const double factor = scale * *adapter.number("adapter.lora.alpha") / static_cast<double>(rank);
    for (int64_t r = 0; r < out; ++r) {
      for (int64_t c = 0; c < in; ++c) {
        double sum = 0;
        for (int64_t k = 0; k < rank; ++k) sum += double{b_values[r * rank + k]} * a_values[k * in + c];
        w[r * in + c] = static_cast<float>(w[r * in + c] + factor * sum);
      }
    }
    writer.add_tensor(name, WeightType::kF32, tensor.shape, std::as_bytes(std::span(w)));
  }
  static std::vector<std::unique_ptr<std::vector<std::byte>>> kept;
  kept.push_back(std::make_unique<std::vector<std::byte>>(writer.bytes()));
  return Model::from(Gguf::parse(*kept.back(), "merged.gguf"));
}

}  // namespace fathom::test
