#include "train/export_gguf.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/quantize.h"
#include "models/model_metadata.h"
#include "models/network.h"

namespace fathom::train {
namespace {

constexpr const char* kRotaryDivisors = "rope_freqs.weight";

void set_rotary(GgufWriter& writer, const std::string& arch, const RotaryConfig& rotary) {
  using Scaling = RotaryConfig::Scaling;
  const auto number = [&](const char* key, double value) {
    writer.set(arch + "rope." + key, GgufType::kF32, value);
  };
  writer.set(arch + "rope.dimension_count", GgufType::kU32, int64_t{rotary.dims});
  number("freq_base", rotary.base);
  if (rotary.attention_factor != 1) number("scaling.attn_factor", rotary.attention_factor);
  if (!rotary.divisors.empty()) {
    writer.add_tensor(kRotaryDivisors, WeightType::kF32, {rotary.dims / 2},
                      std::as_bytes(std::span(rotary.divisors)));
  }
  if (rotary.scaling == Scaling::kNone) return;
  const bool yarn = rotary.scaling == Scaling::kYarn;
  writer.set_string(arch + "rope.scaling.type", yarn ? "yarn" : "linear");
  number("scaling.factor", rotary.factor);
  if (!yarn) return;
  number("scaling.original_context_length", rotary.original_context);
  number("scaling.yarn_ext_factor", rotary.yarn_ext_factor);
  number("scaling.yarn_attn_factor", rotary.yarn_attn_factor);
  number("scaling.yarn_beta_fast", rotary.yarn_beta_fast);
  number("scaling.yarn_beta_slow", rotary.yarn_beta_slow);
}

void copy_tokenizer(GgufWriter& writer, const Gguf& from, int64_t vocabulary) {
  const auto* tokens = from.strings("tokenizer.ggml.tokens");
  if (!tokens) fail(from.name(), ": tokenizer.ggml.tokens is missing");
  if (static_cast<int64_t>(tokens->size()) != vocabulary) {
    fail(from.name(), ": the vocabulary has ", tokens->size(), " tokens, the net ", vocabulary);
  }
  for (const std::string_view key : from.keys()) {
    if (key.starts_with("tokenizer.")) writer.set_value(std::string(key), *from.find(key));
  }
}

/// Returns `requested`, or q8_0 or f16 if the row length is not a multiple of its block; f32 for vectors.
WeightType type_for(const NetParameter& parameter, WeightType requested) {
  if (parameter.rows == 0) return WeightType::kF32;
  for (const WeightType type : {requested, WeightType::kQ8_0}) {
    if (parameter.cols % info(type).block == 0) return type;
  }
  return WeightType::kF16;
}

std::vector<int64_t> gguf_shape(const NetParameter& p) {
  return p.rows == 0 ? std::vector{p.cols} : std::vector{p.cols, p.rows};
}

void add_parameter(GgufWriter& writer, const NetParameter& p, WeightType requested) {
  const WeightType type = type_for(p, requested);
  std::vector<std::byte> data(std::max<int64_t>(p.rows, 1) * row_bytes(type, p.cols));
  quantize_row(type, p.value.cpu().data_ptr<float>(), data.data(), p.size());
  writer.add_tensor(p.name, type, gguf_shape(p), data);
}

void check_all_known(const Gguf& file, const Trainable& net) {
  for (const GgufTensor& tensor : file.tensors()) {
    const auto& known = net.parameters();
    const auto same = [&](const NetParameter& p) { return p.name == tensor.name; };
    if (tensor.name != kRotaryDivisors && std::none_of(known.begin(), known.end(), same)) {
      fail(file.name(), ": tensor ", tensor.name, " is unknown to the net");
    }
  }
}

}  // namespace

void Net::set_metadata(GgufWriter& writer, const Gguf* tokenizer) const {
  const ModelConfig& c = config_.model;
  set_shape_metadata(writer, c);
  set_rotary(writer, c.architecture + ".", c.rotary);
  if (tokenizer) copy_tokenizer(writer, *tokenizer, c.vocabulary);
}

GgufWriter to_gguf(const Trainable& net, WeightType type, const Gguf* tokenizer) {
  GgufWriter writer;
  net.set_metadata(writer, tokenizer);
  for (const NetParameter& p : net.parameters()) add_parameter(writer, p, type);
  return writer;
}

NetConfig read_net_config(const Gguf& file) {
  const auto architecture = file.string("general.architecture");
  if (!architecture) fail(file.name(), ": general.architecture is missing");
  if (*architecture != "llama") {
    fail(file.name(), ": architecture '", *architecture, "' cannot be trained; expected llama");
  }
  return {find_architecture(*architecture).read_config(file), file.find_tensor("output.weight") == nullptr};
}

void import_gguf(const Gguf& file, Trainable& net) {
  check_all_known(file, net);
  const at::Tensor values = net.values().cpu();
  for (const NetParameter& p : net.parameters()) {
    const GgufTensor& tensor = file.tensor(p.name, gguf_shape(p));
    dequantize_row(tensor.type, tensor.data, values.data_ptr<float>() + p.offset, p.size());
  }
  net.values().copy_(values);
}

}  // namespace fathom::train
