#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "decode/drafts/draft_file.h"
#include "mixers/mixer.h"
#include "position/rotary.h"

namespace fathom {

/// A drafter of one layer, which attends to a window of its own keys and values, and to those of the target's last
/// layer with attention. Its memory does not depend on the length of the text. Source: LongSpec: Long-Context
/// Speculative Decoding with Efficient Drafting and Verification, 2025. Not thread-safe.
class LongDrafter {
 public:
  /// file: of kind "longspec". session: of the text. Throws Error like DraftFile, and Error (usage) if the model
  /// has no layer with attention.
  LongDrafter(DraftFile file, Session& session);

  /// Begins a draft after the tokens that the session has read. text: those tokens; pending: the token after them.
  /// The newest tokens that were not in the text of the previous call are added to the window.
  void begin(std::span<const int32_t> text, int32_t pending);
  /// Computes the logits of the tokens after nodes of the draft (−1: after the pending token): [nodes, vocabulary].
  /// The ancestors of the nodes must have been computed. Valid until the next call.
  std::span<const float> logits(const Draft& draft, std::span<const int> nodes);

  /// Bytes of the keys and values of the window.
  size_t window_bytes() const { return (keys_.size() + values_.size()) * sizeof(float); }

 private:
  struct Node {
    int64_t index = 0;                    // of its token in the text
    int parent = 0;                       // index in nodes_; −1: the text
    std::vector<float> keys{}, values{};  // [kv_heads, head_dim]
  };
  Workspace& work() const { return session_.runtime().work(); }
  void read_embeddings(std::span<const int32_t> tokens);
  void normalise(const std::vector<float>& norm);
  void add_product(ActivationBuffer& x, const Matrix& weights);
  void rotate(float* heads, int count, int64_t position) const;
  void extend_window(std::span<const int32_t> text);
  void attend_window(std::span<const int> rows);
  void attend_model(std::span<const int> rows);
  void feed_forward();
  void attend_head(int node, int head, const float* query, float* out) const;

  DraftFile file_;
  Session& session_;
  int64_t width_, kv_heads_, heads_, head_dim_, window_, ffn_width_;
  float eps_;
  Rotary rotary_;
  int layer_;  // of the model, whose keys and values are attended to
  AttendLayer cross_;
  bool half_split_;  // whether the model's rotary pairs are (i, i + dims / 2)
  int rotary_dims_;  // of the model's heads
  std::vector<float> attn_norm_, cross_norm_, ffn_norm_, output_norm_;
  Matrix q_, k_, v_, out_, cross_q_, cross_out_, gate_, up_, down_;

  std::vector<float> keys_, values_;  // [window, kv_heads, head_dim] of token i of the text in row i % window
  int64_t read_ = 0;                  // number of tokens of the text
  int64_t shift_ = 0;                 // position minus index of the tokens
  int32_t pending_ = 0;
  std::vector<Node> nodes_;  // the pending token, then the nodes of the draft

  // Of the current rows.
  std::vector<float> x_;                        // [rows, width] residual stream
  ActivationBuffer normed_, attended_, inner_;  // [rows, width | heads · dim | ffn_width]
  std::vector<float> q_rows_, k_rows_, v_rows_, update_, up_rows_, logits_;
};

}  // namespace fathom
