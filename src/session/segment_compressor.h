#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "formats/gguf.h"
#include "session/engine.h"

namespace fathom {

/// Turns segments of a text into fewer embeddings, which the model reads instead of the tokens (Rows::embeddings).
/// Source: "CompLLM: Compression for Long Context Q&A", 2025. The compressor is the model with an adapter; `fathom
/// train` with compress.kind compllm trains it.
class SegmentCompressor {
 public:
  /// Reads a trained file, which need not outlive the object. Throws Error that names the file, the field or
  /// tensor, and what was expected: also if it was trained for another model.
  SegmentCompressor(const Gguf& file, std::shared_ptr<const Model> model);

  int64_t segment() const { return segment_; }  // tokens of a segment
  int64_t factor() const { return factor_; }    // tokens per embedding
  /// Returns the number of embeddings of a text of this many tokens.
  int64_t embeddings_of(int64_t tokens) const;

  /// Returns the embeddings of one segment of at most segment() tokens, [⌈tokens / factor⌉, width]. They depend on
  /// these tokens alone, so they can be stored and used again. Throws Error for another number of tokens, and as
  /// Engine::forward.
  std::vector<float> compress_segment(Engine& engine, std::span<const int32_t> tokens) const;
  /// Cuts a text into segments and returns the embeddings of all, [embeddings_of(tokens), width].
  std::vector<float> compress(Engine& engine, std::span<const int32_t> tokens) const;

 private:
  std::shared_ptr<const Adapter> adapter_;
  int64_t segment_ = 0, factor_ = 0;
  int32_t end_ = 0;
  std::vector<float> concept_;  // [width, width]
};

}  // namespace fathom
