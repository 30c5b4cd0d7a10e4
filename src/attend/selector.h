#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "attend/landmarks.h"
#include "base/registry.h"
#include "base/thread_pool.h"
#include "memory/memory.h"

namespace fathom {

/// The first tokens of a sequence count from here: a packed lane begins with them.
inline int64_t first_token(const Lane& lane) { return lane.empty() ? 0 : lane.front().first; }

/// The query rows for which pages are to be selected: consecutive tokens of one sequence, one key/value head of one
/// layer.
struct QueryBlock {
  int layer = 0;
  int head = 0;       // key/value head
  int group = 1;      // query heads that share it
  int64_t first = 0;  // sequence index of row 0; row r is token first + r
  int rows = 0;
  int64_t visible_from = 0;            // no row may attend to tokens before this one: pages need not be selected
  const int64_t* positions = nullptr;  // [rows]
  const float* queries =
      nullptr;  // [rows, group, key_dim], rotated by their positions and scaled, rotary pairs side by side
  const PlaceRotations* rotations = nullptr;  // of the sequence
  const Kernels* kernels = nullptr;           // of the attention that runs: what a selector computes with
  SequenceState* state = nullptr;             // the selector's, of the sequence; null if it keeps none
};

/// All queries of one sequence in one layer of a forward pass: its newest tokens, whose keys and values are in
/// memory already.
struct LayerQueries {
  const Memory* memory = nullptr;
  int layer = 0;
  int heads = 0;      // query heads, a multiple of the memory's key/value heads
  int64_t first = 0;  // sequence index of row 0
  int64_t rows = 0;
  const int64_t* positions = nullptr;  // [rows]
  const float* queries = nullptr;  // row i at queries + i·stride: [heads, key_dim], neither rotated nor scaled,
                                   // rotary pairs side by side
  int64_t stride = 0;
  float scale = 1;                            // multiplies scores
  const PlaceRotations* rotations = nullptr;  // of the sequence
  const Kernels* kernels = nullptr;           // of the attention that runs
  SequenceState* state = nullptr;             // the selector's or listener's, of the sequence

  int group() const { return heads / memory->kv_heads(); }
  const float* query(int64_t row, int head) const {
    return queries + row * stride + static_cast<int64_t>(head) * memory->store().shape().key_dim;
  }
};

/// How surprising tokens were: −ln of the probability that the model gave each, in nats.
struct Surprise {
  int64_t first = 0;            // sequence index of the first
  std::span<const float> nats;  // the first token of a sequence, or after a rewind, has none: NaN
};

/// ‖W_o v‖₁ of values of a layer, on all threads: what of them reaches the width of the model. values: [kv_heads,
/// rows, value_dim]; norms: [kv_heads, rows], the mean over the heads that share a value.
using OutputNorms =
    std::function<void(int layer, int64_t rows, const float* values, float* norms, ThreadPool& pool)>;

/// The model and the memory that a selector will work with.
struct AttendContext {
  std::shared_ptr<const PageStore> store;
  int layers = 0;
  int heads = 0;               // query heads of a layer
  int kv_heads = 0;            // key/value heads of a layer
  OutputNorms output_norms{};  // empty: the model's layers have no output projection
  bool softplus = false;       // the model was trained with softplus attention, not with softmax
  Landmarks landmarks{};
};

/// A page to be attended to, where it sits for these queries, and which of its tokens count.
struct SelectedPage {
  uint32_t slot = 0;  // index into the lane
  int64_t place =
      0;  // position of its token 0 as the queries shall see it (≥ 0; the lane's own place is the true one)
  uint64_t mask = 0;
  int64_t row_masks = -1;  // index into Selection::row_masks of `rows` words, or −1: all rows see the mask
  // Keys to be read instead of the page's own, in its format; they stay until the layer is planned again. null: its
  // own.
  const std::byte* keys = nullptr;
};

/// What a block of queries attends to. Selectors need regard neither causality nor the model's sliding window: both
/// are applied to their selection.
struct Selection {
  std::vector<SelectedPage> pages;
  std::vector<uint64_t> row_masks;
  void clear() {
    pages.clear();
    row_masks.clear();
  }
};

/// Chooses which pages of a lane a block of queries sees. Thread-safe; a selector without state gives the same
/// selection for the same pages and queries, whatever was selected before. What it remembers of a sequence is in
/// the state, which belongs to the sequence's memory.
class Selector {
 public:
  virtual ~Selector() = default;
  /// Called once, before the first selection. Throws Error (usage) for what does not suit the model.
  virtual void attach(const AttendContext& context) { static_cast<void>(context); }
  /// For a new sequence, or one that is there already; null: the method keeps none.
  virtual std::unique_ptr<SequenceState> new_state() const { return nullptr; }
  /// Comes before the selections of a layer, once for each sequence: choices that heads share, notes for later.
  virtual void plan(const LayerQueries& queries, ThreadPool& pool) const {
    static_cast<void>(queries), static_cast<void>(pool);
  }
  /// Whether surprise() is to be called: logits of all tokens are made for it.
  virtual bool wants_surprise() const { return false; }
  /// Comes after tokens were read.
  virtual void surprise(const Surprise& surprise, SequenceState* state) const {
    static_cast<void>(surprise), static_cast<void>(state);
  }
  /// Multiplies the scores of a layer besides 1/√key_dim: 1/temperature.
  virtual float score_factor(int layer) const { return static_cast<void>(layer), 1.0f; }
  /// How the scores of a layer become weights; `own`: what the model asks for.
  virtual ScoreForm score_form(int layer, const ScoreForm& own) const { return static_cast<void>(layer), own; }
  /// Thread-safe. Fills `selection` (empty on entry).
  virtual void select(const Lane& lane, const QueryBlock& block, Selection& selection) const = 0;
};

/// Receives the queries of each layer of a forward pass, once for each sequence: after Selector::plan and before
/// any selection of that layer. Keys and values of the pass are in memory already.
class AttendListener {
 public:
  virtual ~AttendListener() = default;
  virtual void listen(const LayerQueries& queries, ThreadPool& pool) const = 0;
};

using SelectorMethod = std::unique_ptr<Selector>(const Values&);
/// The `--attend` methods.
const MethodTable<SelectorMethod>& attend_methods();

MethodInfo actqkv_info();
std::unique_ptr<Selector> make_actqkv(const Values& values);
MethodInfo dense_info();
std::unique_ptr<Selector> make_dense(const Values& values);
MethodInfo em_llm_info();
std::unique_ptr<Selector> make_em_llm(const Values& values);
MethodInfo hip_info();
std::unique_ptr<Selector> make_hip(const Values& values);
MethodInfo infllm_info();
std::unique_ptr<Selector> make_infllm(const Values& values);
MethodInfo landmark_info();
std::unique_ptr<Selector> make_landmark(const Values& values);
MethodInfo layers_info();
std::unique_ptr<Selector> make_layers(const Values& values);
MethodInfo lm_infinite_info();
std::unique_ptr<Selector> make_lm_infinite(const Values& values);
MethodInfo quest_info();
std::unique_ptr<Selector> make_quest(const Values& values);
MethodInfo recycled_info();
std::unique_ptr<Selector> make_recycled(const Values& values);
MethodInfo shadowkv_info();
std::unique_ptr<Selector> make_shadowkv(const Values& values);
MethodInfo softplus_info();
std::unique_ptr<Selector> make_softplus(const Values& values);
MethodInfo squeezed_info();
std::unique_ptr<Selector> make_squeezed(const Values& values);
MethodInfo tempscale_info();
std::unique_ptr<Selector> make_tempscale(const Values& values);
MethodInfo tokenselect_info();
std::unique_ptr<Selector> make_tokenselect(const Values& values);
MethodInfo window_info();
std::unique_ptr<Selector> make_window(const Values& values);
/// Selects the first `sink` tokens and the newest `size`, the query's own included.
std::unique_ptr<Selector> make_window(int64_t sink, int64_t size);

}  // namespace fathom
