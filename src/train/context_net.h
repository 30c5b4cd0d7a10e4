#pragma once

#include "train/side_net.h"

namespace fathom::train {

/// A compression of the first part of a row to fewer embeddings, which a frozen model reads in the place of tokens.
class ContextNet : public SideNet {
 public:
  /// Returns the embeddings of the compressed tokens, [sequences, any, width] f32. context: [sequences, tokens]
  /// int64.
  virtual at::Tensor compressed(const NetWeights& weights, const at::Tensor& context) = 0;
  /// Returns the residual stream after the last layer of the rows that follow a prefix of embeddings, [sequences,
  /// rows, width]. rows: their embeddings.
  at::Tensor following(const NetWeights& weights, const at::Tensor& prefix, const at::Tensor& rows);

 protected:
  /// share: of a row's tokens that are compressed. multiple: their number is a multiple of it. factor: tokens per
  /// embedding.
  ContextNet(const char* kind, FrozenBase from, double share, int64_t multiple, int64_t factor);

  /// Returns how many of a row's tokens are compressed. length: of the row. Throws Error (usage) if the row is too
  /// short.
  int64_t context_tokens(int64_t length) const;
  /// A part of a batch without the tokens that are compressed.
  struct Rest {
    at::Tensor context;  // [sequences, context tokens] int64
    at::Tensor inputs;   // [sequences, rows] int64, the tokens after the context
    at::Tensor targets;  // [sequences, rows] int64, the tokens that they predict
    at::Tensor weights;  // [sequences, rows] f32, scaled so that their sum is that of the whole part
  };
  Rest rest_of(const Part& part) const;

  /// Returns the cross-entropy of the rest, Σ weight·(−ln p), and adds to the agreement with the model that reads
  /// the whole text: that of `compressed_rows`, then that with every factor-th token of the context, and that
  /// without a context. compressed_rows: the residual stream after the last layer with the compressed context.
  at::Tensor evaluated(const Part& part, const Rest& rest, const at::Tensor& compressed_rows);
  int64_t factor() const { return factor_; }

 private:
  double share_;
  int64_t multiple_, factor_;
};

/// Returns the root mean square of a matrix of embeddings: the scale of a model's inputs.
double embedding_scale(const Net& net);

}  // namespace fathom::train
