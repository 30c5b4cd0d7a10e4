#pragma once

#include <vector>

#include "attend/context.h"
#include "memory/sequence_state.h"

namespace fathom {

/// The norms ‖W_o v‖₁ of the values of one layer (output_norms). Each is computed once, because values never
/// change.
class ValueNorms {
 public:
  /// Adds the norms of the tokens read since the last call.
  void add(const PagedKv& kv, int layer, const OutputNorms& norms, ThreadPool& pool);
  /// Keeps the norms of the first `tokens` tokens.
  void rewind(int64_t tokens);
  size_t bytes() const { return bytes_of(heads_); }
  void save(ByteWriter& out) const;
  /// Restores what save() wrote, for this layer. Throws Error for norms of other heads or of later tokens.
  void load(ByteReader& in, const SequenceLayer& layer);
  /// Returns the norm of a token, by the index at which it was read; 0 if the token was masked when it was added.
  float of(int head, int64_t token) const { return heads_[head][token]; }

 private:
  std::vector<std::vector<float>> heads_;  // [kv_heads, tokens]
};

}  // namespace fathom
