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

/// The options of the methods that select older tokens by blocks.
struct BlockOptions {
  int64_t sink = 0;             // first tokens, always visible
  int64_t window = 0;           // newest tokens, always visible, the query's own included
  int64_t chunk = 0;            // queries that share one selection of blocks
  int64_t representatives = 0;  // keys of a block whose mean represents the block, for each query head
  bool clamp_positions = true;  // whether tokens older than the window are moved to a distance of window − 1
};
/// Returns the parameters sink, window, chunk, representatives and positions, with these defaults.
std::vector<Parameter> block_parameters(const BlockOptions& defaults);
/// Reads the parameters of block_parameters().
BlockOptions read_block_options(const Values& values);

/// A block of tokens, which is selected as a whole.
struct MemoryBlock : TokenRange {
  std::shared_ptr<std::vector<float>> vector;  // [heads, key_dim], unrotated; shared by all forks
  float norm = 0;                              // Euclidean norm of the vector
};

/// The tokens that rows [first, end) of a forward pass attend to, as ordered, disjoint ranges. The last range has
/// no end and includes the window.
struct AttendedRanges {
  int64_t first = 0, end = 0;
  std::vector<TokenRange> ranges;
};

/// The blocks of one layer.
struct LayerBlocks {
  std::vector<MemoryBlock> blocks;  // in order, without gaps, from the end of the sink on
  // [tokens / 64]: the sum of the rotated queries of 64 tokens, [heads, key_dim]; null: not recorded, or released
  std::vector<std::shared_ptr<std::vector<float>>> query_sums;
  std::vector<AttendedRanges> attended;  // of the current forward pass, by chunk; not saved

  void save(ByteWriter& out) const;
  /// Restores what save() wrote. The first block begins at `sink`; at least `window` tokens follow the last one.
  void load(ByteReader& in, const SequenceLayer& layer, int64_t sink, int64_t window);
};

/// The state of a block method. Forks share vectors and query sums. A rewind removes the blocks that did not exist
/// at that length, and the query sum of the page in which it ends. Vectors of later blocks therefore use up to 63
/// fewer queries.
struct BlockState : SequenceState {
  /// heads: query heads of each layer.
  BlockState(std::vector<int> heads, const BlockOptions& options)
      : layers(heads.size()), query_heads(std::move(heads)), sink(options.sink), window(options.window) {}
  std::unique_ptr<SequenceState> fork() const override { return std::make_unique<BlockState>(*this); }
  void rewind(int64_t tokens) override;
  size_t bytes() const override;
  void save(ByteWriter& out, const Sequence& sequence) const override;
  void load(ByteReader& in, const Sequence& sequence) override;
  SequenceLayer layer_of(const Sequence& sequence, size_t layer) const {
    return {sequence, static_cast<int>(layer), query_heads[layer]};
  }

  std::vector<LayerBlocks> layers;
  std::vector<int> query_heads;  // [layers]
  int64_t sink, window;
};

/// Rows of a forward pass that share one selection.
struct QueryChunk {
  const LayerQueries& layer;
  int64_t row, rows;  // first row in the layer's queries, and number of rows
  /// Returns the sequence index of the first row.
  int64_t first() const { return layer.first + row; }
  /// Returns the query of row r < rows: [heads · key_dim].
  const float* query(int64_t r) const { return layer.query(row + r, 0); }
  int64_t width() const { return static_cast<int64_t>(layer.heads) * layer.kv->shape().key_dim; }
};

/// Selects near and far tokens, which are attended to in one softmax ("InfLLM: Training-Free Long-Context
/// Extrapolation for LLMs with an Efficient Context Memory", 2024). Near tokens are the window, at their original
/// positions. Far tokens are the sink, the selected blocks, and tokens older than the window that no block holds
/// yet. All heads of a layer attend to the same tokens.
///
/// With clamped positions, a far page is moved so that its first token is window − 1 positions before the last row
/// of a block of rows. The page's other tokens are nearer by up to 63 positions, and earlier rows are nearer by
/// their distance to the last row. A far token never comes after a row, and no page is moved farther away than its
/// original position.
///
/// The vector of a block is, for each query head, the mean of its `representatives` keys with the highest total
/// score. The total is over the queries of the window that follows the block, computed as one product with the sum
/// of these queries. Sums cover whole pages of 64 queries, from the end of the block to the end of the window. If
/// none of these queries was recorded (the method was enabled after they were read), the vector is the mean of all
/// keys of the block.
class BlockSelector : public StatefulSelector<BlockState> {
 public:
  explicit BlockSelector(const BlockOptions& options) : options_(options) {}

 protected:
  std::unique_ptr<BlockState> make_state() const override {
    return std::make_unique<BlockState>(context().query_heads(), options_);
  }
  void plan(const LayerQueries& queries, BlockState& state, ThreadPool& pool) const override;
  void select(const PageTable& table, const QueryBlock& block, const BlockState* state,
              Selection& selection) const override;

  /// Returns the end of the block that begins at `begin` (sequence indices), or 0 if it is not known yet. The
  /// caller adds a block that ends after `limit` in a later pass. The result must not depend on how the sequence
  /// was split into forward passes.
  virtual int64_t block_end(int64_t begin, int64_t limit, const LayerQueries& queries, BlockState& state,
                            ThreadPool& pool) const = 0;
  /// Returns the blocks that a chunk attends to, in any order; the layer has at least one block. remainder: tokens
  /// older than the window of the chunk's first row that no block holds yet; they are always attended to.
  virtual std::vector<uint32_t> select_blocks(const QueryChunk& chunk, int64_t remainder, BlockState& state,
                                              ThreadPool& pool) const = 0;
  /// Called after the selection of each chunk.
  virtual void after_selection(const QueryChunk& chunk, BlockState& state) const {
    static_cast<void>(chunk), static_cast<void>(state);
  }

  const BlockOptions& options() const { return options_; }
  /// Rotates queries by window − 1 positions, so that their products with unrotated keys are scores at that
  /// distance. x: [heads, key_dim].
  void rotate_far(const LayerQueries& queries, float* x) const;
  /// Returns the mean query of a chunk, rotated by rotate_far().
  std::vector<float> mean_far_query(const QueryChunk& chunk, ThreadPool& pool) const;

 private:
  void add_blocks(const LayerQueries& queries, int64_t limit, BlockState& state, ThreadPool& pool) const;
  void make_vectors(const LayerQueries& queries, size_t first, LayerBlocks& layer, ThreadPool& pool) const;
  void fill_vector(const LayerQueries& queries, const LayerBlocks& layer, const MemoryBlock& block,
                   int kv_head) const;
  bool sum_queries(const LayerBlocks& layer, const MemoryBlock& block, int64_t offset,
                   std::vector<float>& sum) const;
  AttendedRanges select_ranges(const QueryChunk& chunk, BlockState& state, ThreadPool& pool) const;
  static void add_queries(const QueryChunk& chunk, LayerBlocks& layer, ThreadPool& pool);
  void release_queries(int64_t tokens, LayerBlocks& layer) const;
  void select_rows(const PageTable& table, const QueryBlock& block, const AttendedRanges& attended,
                   Selection& selection) const;

  BlockOptions options_;
};

/// A BlockSelector with a state type that extends BlockState. Methods override the hooks below.
template <class State>
class BlockSelectorWith : public BlockSelector {
 public:
  using BlockSelector::BlockSelector;

 protected:
  virtual int64_t block_end(int64_t begin, int64_t limit, const LayerQueries& queries, State& state,
                            ThreadPool& pool) const = 0;
  virtual std::vector<uint32_t> select_blocks(const QueryChunk& chunk, int64_t remainder, State& state,
                                              ThreadPool& pool) const = 0;
  virtual void after_selection(const QueryChunk& chunk, State& state) const {
    static_cast<void>(chunk), static_cast<void>(state);
  }
  virtual void surprisal(const Surprisal& surprisal, State& state) const {
    static_cast<void>(surprisal), static_cast<void>(state);
  }
  std::unique_ptr<BlockState> make_state() const override {
    return std::make_unique<State>(context().query_heads(), options());
  }

 private:
  int64_t block_end(int64_t begin, int64_t limit, const LayerQueries& queries, BlockState& state,
                    ThreadPool& pool) const final {
    return block_end(begin, limit, queries, state_as<State>(state), pool);
  }
  std::vector<uint32_t> select_blocks(const QueryChunk& chunk, int64_t remainder, BlockState& state,
                                      ThreadPool& pool) const final {
    return select_blocks(chunk, remainder, state_as<State>(state), pool);
  }
  void after_selection(const QueryChunk& chunk, BlockState& state) const final {
    after_selection(chunk, state_as<State>(state));
  }
  void surprisal(const Surprisal& surprisal, BlockState& state) const final {
    this->surprisal(surprisal, state_as<State>(state));
  }
};

/// Returns the dot product of each block vector with `query`: [heads · key_dim].
std::vector<float> block_scores(const LayerBlocks& layer, const std::vector<float>& query, ThreadPool& pool);
/// Returns the `count` blocks with the highest scores, best first; among equal scores the newer block comes first.
std::vector<uint32_t> best_blocks(const std::vector<float>& scores, int64_t count);

/// Unrotated keys of consecutive tokens.
struct UnrotatedKeys {
  std::vector<float> keys;         // [tokens, key_dim]; 0 for masked tokens
  std::vector<int64_t> positions;  // [tokens]; −1: masked
};
/// Reads the keys of a range of tokens of one key/value head into `raw`.
void read_unrotated_keys(const PagedKv& kv, int head, TokenRange tokens, UnrotatedKeys& raw);
/// Returns the keys rotated by their positions: [tokens, key_dim].
std::vector<float> rotated_keys(const LayerQueries& queries, const UnrotatedKeys& raw);
/// Returns the `count` tokens among `tokens` whose keys have the highest scores with a query, best first. tokens:
/// row numbers of keys; keys: [rows, dim].
std::vector<int> best_tokens(const float* keys, int dim, const std::vector<int>& tokens, const float* query,
                             int64_t count);

}  // namespace fathom
