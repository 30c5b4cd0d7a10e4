#pragma once

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "models/model.h"
#include "seed.h"

namespace fathom::test {

/// A small Llama model of random float weights as a GGUF file in memory, which tests can modify.
struct TinyFile {
  int layers = 3, heads = 4, kv_heads = 2, head_dim = 16;
  int64_t width = 64, ffn = 96, vocabulary = 512, context = 512;
  std::string architecture = "llama";
  std::function<void(GgufWriter&)> extra = [](GgufWriter&) {};  // adds metadata or tensors
  std::function<bool(const std::string&)> keep = [](const std::string&) {
    return true;
  };  // which tensors are written
  std::function<void(const std::string&, std::vector<int64_t>&)> reshape = [](const std::string&,
                                                                              std::vector<int64_t>&) {};

  std::vector<std::byte> bytes() const {
    GgufWriter writer;
    const std::string a = architecture + ".";
    const auto integer = [&](const std::string& key, int64_t value) {
      writer.set(key, GgufType::kU32, static_cast<uint64_t>(value));
    };
    writer.set_string("general.architecture", architecture);
    integer(a + "block_count", layers);
    integer(a + "context_length", context);
    integer(a + "embedding_length", width);
    integer(a + "feed_forward_length", ffn);
    integer(a + "attention.head_count", heads);
    integer(a + "attention.head_count_kv", kv_heads);
    writer.set(a + "attention.layer_norm_rms_epsilon", GgufType::kF32, 1e-5);
    extra(writer);
    std::mt19937 random(test::seed(42));
    const auto tensor = [&](const std::string& name, std::vector<int64_t> shape, float deviation, float mean = 0) {
      if (!keep(name)) return;
      reshape(name, shape);
      std::normal_distribution<float> normal(mean, deviation);
      std::vector<float> values(1);
      for (const int64_t d : shape) values.resize(values.size() * d);
      for (float& v : values) v = normal(random);
      writer.add_tensor(name, WeightType::kF32, shape, std::as_bytes(std::span(values)));
    };
    tensor("token_embd.weight", {width, vocabulary}, 1.0f);
    tensor("output_norm.weight", {width}, 0.1f, 1);
    for (int i = 0; i < layers; ++i) {
      const std::string blk = "blk." + std::to_string(i) + ".";
      const float deviation = 1.5f / std::sqrt(static_cast<float>(width));
      tensor(blk + "attn_norm.weight", {width}, 0.1f, 1);
      tensor(blk + "attn_q.weight", {width, heads * head_dim}, deviation);
      tensor(blk + "attn_k.weight", {width, kv_heads * head_dim}, deviation);
      tensor(blk + "attn_v.weight", {width, kv_heads * head_dim}, deviation);
      tensor(blk + "attn_output.weight", {heads * head_dim, width}, deviation);
      tensor(blk + "ffn_norm.weight", {width}, 0.1f, 1);
      tensor(blk + "ffn_gate.weight", {width, ffn}, deviation);
      tensor(blk + "ffn_up.weight", {width, ffn}, deviation);
      tensor(blk + "ffn_down.weight", {ffn, width}, deviation);
    }
    return writer.bytes();
  }
};

/// Opens a file whose bytes exist until the program ends.
inline std::shared_ptr<const Model> open_tiny(const TinyFile& file) {
  static std::vector<std::unique_ptr<std::vector<std::byte>>> kept;
  kept.push_back(std::make_unique<std::vector<std::byte>>(file.bytes()));
  return Model::from(Gguf::parse(*kept.back(), "tiny.gguf"));
}

/// Returns the unmodified tiny model. With its float weights results differ only by float rounding; with quantised
/// weights 8-bit activations could round to a neighbouring step.
inline std::shared_ptr<const Model> floats() {
  static const auto model = open_tiny({});
  return model;
}

}  // namespace fathom::test
