#pragma once

#include <memory>
#include <vector>

#include "attend/stateful_selector.h"
#include "base/spec.h"

namespace fathom {

/// Tokens [begin, end) of a sequence.
struct TokenRange {
  int64_t begin = 0, end = 0;
};

/// What the methods share that look back by blocks.
struct BlockOptions {
  int64_t sink = 0;             // first tokens, always seen
  int64_t window = 0;           // newest tokens, always seen, the query's own included
  int64_t chunk = 0;            // queries that choose blocks together
  int64_t representatives = 0;  // tokens of a block whose mean key, for each query head, stands for the block
  bool clamp_positions = true;       // what is older than the window seems window − 1 away
};
/// The parameters sink, window, chunk, representatives and place, with these defaults.
std::vector<Parameter> block_parameters(const BlockOptions& defaults);
BlockOptions read_block_options(const Values& values);

/// Tokens that are chosen together or not at all.
struct MemoryBlock : TokenRange {
  std::shared_ptr<std::vector<float>> vector;  // [heads, key_dim], not rotated; the same for all forks
  float norm = 0;                              // of the vector
};

/// What rows [first, end) of a forward pass see of what is older than the window: in order, disjoint. The last one
/// has no end.
struct FarChoice {
  int64_t first = 0, end = 0;
  std::vector<TokenRange> ranges;
};

struct LayerBlocks {
  std::vector<MemoryBlock> blocks;  // in order, without gaps, from the sinks on
  // [tokens / 64]: the sum of the queries of 64 tokens, rotated, [heads, key_dim]; null: not seen, or long ago
  std::vector<std::shared_ptr<std::vector<float>>> query_sums;
  std::vector<FarChoice> choices;  // of the present forward pass
};

/// A fork shares vectors and sums. A rewind forgets the blocks that would not be there yet, and the queries of the
/// 64 tokens that it ends in, so that what stands for later blocks rests on a few queries less.
struct BlockState : SequenceState {
  BlockState(int layer_count, int64_t window_size) : layers(layer_count), window(window_size) {}
  std::unique_ptr<SequenceState> fork() const override { return std::make_unique<BlockState>(*this); }
  void rewind(int64_t tokens) override;

  std::vector<LayerBlocks> layers;
  int64_t window;
};

/// Some rows of a forward pass that choose together.
struct QueryChunk {
  const LayerQueries& layer;
  int64_t row, rows;  // of the layer's
  int64_t first() const { return layer.first + row; }
  /// [heads·key_dim]; r < rows
  const float* query(int64_t r) const { return layer.query(row + r, 0); }
  int64_t width() const { return static_cast<int64_t>(layer.heads) * layer.kv->shape().key_dim; }
};

/// InfLLM's two parts in one softmax: near, the newest tokens where they are; far, the first tokens, the chosen
/// blocks, and what is older than the window and fills no block yet. All heads of a layer see the same.
///
/// Far pages move along so that the first token of each seems window − 1 before the last of a block of rows: other
/// tokens and earlier rows seem nearer by up to 63 and by the rows between, but never behind a row, and no page
/// seems farther than it is.
///
/// A block stands for the keys that the queries of the next window score highest, by the sum of their products: one
/// product with the sum of the queries. Sums are of whole pages of 64 queries, from the block's end to the
/// window's. For blocks of which no such query was seen (the method came after they were read): the mean of their
/// keys.
class BlockSelector : public StatefulSelector<BlockState> {
 public:
  explicit BlockSelector(const BlockOptions& options) : options_(options) {}

 protected:
  std::unique_ptr<BlockState> make_state() const override {
    return std::make_unique<BlockState>(context().layers, options_.window);
  }
  void plan(const LayerQueries& queries, BlockState& state, ThreadPool& pool) const override;
  void select(const PageTable& table, const QueryBlock& block, const BlockState* state,
              Selection& selection) const override;

  /// The end of the block that begins at `begin`, at most `limit`; 0 if it has none yet. Must not depend on how the
  /// sequence was cut into forward passes.
  virtual int64_t block_end(int64_t begin, int64_t limit, const LayerQueries& queries, BlockState& state,
                            ThreadPool& pool) const = 0;
  /// The blocks that a chunk sees, in any order; there are some. remainder: tokens that the chunk's first row sees
  /// besides.
  virtual std::vector<uint32_t> choose(const QueryChunk& chunk, int64_t remainder, BlockState& state,
                                       ThreadPool& pool) const = 0;
  /// Called after the choice of each chunk.
  virtual void note(const QueryChunk& chunk, BlockState& state) const {
    static_cast<void>(chunk), static_cast<void>(state);
  }

  const BlockOptions& options() const { return options_; }
  /// Turns heads as queries that are window − 1 away from keys at 0. x: [heads, key_dim].
  void rotate_far(const LayerQueries& queries, float* x) const;
  /// The mean query of a chunk, so rotated.
  std::vector<float> mean_far_query(const QueryChunk& chunk, ThreadPool& pool) const;

 private:
  void add_blocks(const LayerQueries& queries, int64_t limit, BlockState& state, ThreadPool& pool) const;
  void make_vectors(const LayerQueries& queries, size_t first, LayerBlocks& layer, ThreadPool& pool) const;
  void fill_vector(const LayerQueries& queries, const LayerBlocks& layer, const MemoryBlock& block,
                   int kv_head) const;
  bool sum_queries(const LayerBlocks& layer, const MemoryBlock& block, int64_t offset,
                   std::vector<float>& sum) const;
  FarChoice choose_far(const QueryChunk& chunk, BlockState& state, ThreadPool& pool) const;
  static void add_queries(const QueryChunk& chunk, LayerBlocks& layer, ThreadPool& pool);
  void forget_queries(int64_t tokens, LayerBlocks& layer) const;
  void select_rows(const PageTable& table, const QueryBlock& block, const FarChoice& choice,
                   Selection& selection) const;

  BlockOptions options_;
};

/// A BlockSelector whose State adds to BlockState what the method itself keeps. Methods override the hooks below.
template <class State>
class BlockSelectorWith : public BlockSelector {
 public:
  using BlockSelector::BlockSelector;

 protected:
  virtual int64_t block_end(int64_t begin, int64_t limit, const LayerQueries& queries, State& state,
                            ThreadPool& pool) const = 0;
  virtual std::vector<uint32_t> choose(const QueryChunk& chunk, int64_t remainder, State& state,
                                       ThreadPool& pool) const = 0;
  virtual void note(const QueryChunk& chunk, State& state) const {
    static_cast<void>(chunk), static_cast<void>(state);
  }
  virtual void surprisal(const Surprisal& surprisal, State& state) const {
    static_cast<void>(surprisal), static_cast<void>(state);
  }

 private:
  std::unique_ptr<BlockState> make_state() const final {
    return std::make_unique<State>(context().layers, options().window);
  }
  int64_t block_end(int64_t begin, int64_t limit, const LayerQueries& queries, BlockState& state,
                    ThreadPool& pool) const final {
    return block_end(begin, limit, queries, state_as<State>(state), pool);
  }
  std::vector<uint32_t> choose(const QueryChunk& chunk, int64_t remainder, BlockState& state,
                               ThreadPool& pool) const final {
    return choose(chunk, remainder, state_as<State>(state), pool);
  }
  void note(const QueryChunk& chunk, BlockState& state) const final { note(chunk, state_as<State>(state)); }
  void surprisal(const Surprisal& surprisal, BlockState& state) const final {
    this->surprisal(surprisal, state_as<State>(state));
  }
};

/// Of each block vector with a query of the same width.
std::vector<float> block_scores(const LayerBlocks& layer, const std::vector<float>& query, ThreadPool& pool);
/// The `count` best blocks, best first; of equal ones the newer.
std::vector<uint32_t> best_blocks(const std::vector<float>& scores, int64_t count);

/// Keys of consecutive tokens of a table as they were before any rotation.
struct RawKeys {
  std::vector<float> keys;         // [tokens, key_dim]; 0 for hidden ones
  std::vector<int64_t> positions;  // [tokens]; −1: hidden
};
void read_raw_keys(const PagedKv& kv, int head, TokenRange tokens, RawKeys& raw);
/// The same keys rotated by their positions.
std::vector<float> rotated_keys(const LayerQueries& queries, const RawKeys& raw);
/// Of these tokens the `count` whose keys score highest with a query, best first. keys: [any, dim].
std::vector<int> best_tokens(const float* keys, int dim, const std::vector<int>& tokens, const float* query,
                             int64_t count);

}  // namespace fathom
