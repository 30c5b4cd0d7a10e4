#pragma once

#include <memory>
#include <vector>

#include "models/network.h"

namespace fathom {

/// RMS norm, or LayerNorm when there is a bias.
struct Norm {
  std::vector<float> weight;  // [width]
  std::vector<float> bias;    // empty: RMS norm
  float eps = 0;
  /// out row i = norm(x row i); x, out: [rows, width].
  void apply(Workspace& work, const float* x, int64_t rows, float* out) const;
};

/// down(silu(gate·x) ⊙ up·x), or down(gelu(up·x)) without a gate.
struct FeedForward {
  Matrix gate;  // empty: GELU
  Matrix up, down;
  std::vector<float> up_bias, down_bias;  // empty = none
  void forward(Workspace& work, ActivationBuffer& x, float* y) const;
};

struct TransformerLayer {
  Norm mixer_norm;
  std::unique_ptr<Mixer> mixer;
  Norm ffn_norm;
  FeedForward ffn;
};

/// The decoder that most architectures share: x += mixer(norm(x)); x += ffn(norm(x)).
class Transformer final : public Network {
 public:
  void forward(Workspace& work, std::span<const SequenceRows> sequences, std::span<const int32_t> tokens,
               int layers_run) const override;
  void logits(Workspace& work, ActivationBuffer& x, float* logits) const override;
  const Matrix* output_projection(int layer) const override { return layers[layer].mixer->output_projection(); }
  size_t weight_bytes() const override;
  int64_t multiply_adds() const override;

  int64_t width = 0;
  Matrix embedding;           // [vocabulary, width]
  Matrix position_embedding;  // [trained context, width]; empty = none
  std::vector<TransformerLayer> layers;
  Norm output_norm;
  Matrix output;                 // [vocabulary, width]; the embedding itself when tied
  std::vector<Matrix> matrices;  // all that decoding a token multiplies with, for accounting

 private:
  void embed(Workspace& work, std::span<const SequenceRows> sequences, std::span<const int32_t> tokens) const;
};

/// How an architecture's file differs from the common decoder.
struct DecoderParts {
  bool fused_qkv = false;   // attn_qkv instead of attn_q, attn_k, attn_v
  bool qkv_bias = false;    // required on q, k and v; when false they are used if the file has them
  bool head_norms = false;  // attn_q_norm, attn_k_norm
  bool gated = true;        // SwiGLU; otherwise GELU
  bool biases = false;      // on norms (which makes them LayerNorms), attention output and feed-forward
};

/// {arch}.block_count and its like, with checks; rotary scaling included.
ModelConfig read_common_config(const Gguf& file, RotaryConfig::Pairing pairing);
/// A decoder of config.layers layers from GGUF's tensor names; the output is tied to token_embd when output.weight
/// is absent. Throws Error naming a tensor that is missing or has another shape.
std::unique_ptr<Transformer> build_decoder(const ModelConfig& config, WeightSource& weights,
                                           const DecoderParts& parts);

}  // namespace fathom
