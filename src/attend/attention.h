#pragma once

#include <span>
#include <vector>

#include "attend/listener.h"
#include "attend/selector.h"
#include "base/aligned.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace fathom {

/// What a block of queries attended to.
struct AttendedBlock {
  const Memory& memory;
  const QueryBlock& block;
  const Selection& selection;  // causality and window not yet applied
  int64_t window;              // as AttentionInput::window
  const float* lse;            // [rows, group] log Σ of the weights
  WeightForm form{};

  /// The tokens of a selected page that row `row` attended to.
  uint64_t mask(const SelectedPage& page, int row) const;
  /// The share of the weights of `query` (of rows · group) that a key with this score has.
  double share(int64_t query, double score) const;
};

/// Is shown what queries attended to. Thread-safe.
class AttentionWatcher {
 public:
  virtual ~AttentionWatcher() = default;
  virtual bool wants(int layer) const = 0;
  virtual void saw(const AttendedBlock& attended) = 0;
};

/// Attention of the newest tokens of one sequence in one layer.
struct AttentionInput {
  const Memory* memory = nullptr;
  int layer = 0;
  int heads = 0;                       // query heads, a multiple of the memory's key/value heads
  int64_t rows = 0;                    // newest tokens of the sequence; their keys and values are in memory already
  const int64_t* positions = nullptr;  // [rows]
  const float* queries =
      nullptr;  // row i at queries + i·query_stride: [heads, key_dim], unrotated, rotary pairs side by side
  int64_t query_stride = 0;
  ScoreForm form{};
  // Multiplies scores: 1/√key_dim and the rotary's score factor; of softplus ln(key_dim) and that factor, and rows
  // are multiplied besides by ln of the tokens up to them.
  float scale = 1;
  // The model's sliding window: a row attends to the newest `window` tokens at most, itself included, whatever is
  // selected. 0: no limit. Not for models with landmarks.
  int64_t window = 0;
  const PlaceRotations* rotations = nullptr;  // reserved up to memory->end_position(); also rotates the queries
  Landmarks landmarks{};                      // pages of the memory are their blocks
  const Selector* selector = nullptr;
  const AttendListener* listener = nullptr;  // null: none
  AttentionWatcher* watcher = nullptr;       // null: none
  float* out = nullptr;                      // [rows, heads, value_dim]
  float* lse = nullptr;                      // null, or [rows, heads]

  int group() const { return heads / memory->kv_heads(); }
};

/// How much was looked at: for reports and tests.
struct AttentionCount {
  int64_t attended = 0;  // (query, key) pairs
  int64_t visible = 0;   // pairs of a sequence of which nothing is hidden, read densely within the model's window
  // Nanoseconds of all threads together: of choosing, and of all that attention does.
  int64_t selecting = 0, running = 0;

  /// Of the pairs of dense reading: that were attended to. 1 for none.
  double seen_share() const { return share(attended, visible, 1); }
  /// Of the time: in which was chosen what to attend to. 0 for none.
  double selecting_share() const { return share(selecting, running, 0); }

  AttentionCount& operator+=(const AttentionCount& more) {
    attended += more.attended, visible += more.visible;
    selecting += more.selecting, running += more.running;
    return *this;
  }
  AttentionCount operator-(const AttentionCount& before) const {
    return {attended - before.attended, visible - before.visible, selecting - before.selecting,
            running - before.running};
  }

 private:
  static double share(int64_t part, int64_t whole, double of_nothing) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : of_nothing;
  }
};

/// The one attention of the engine: select, then attend exactly. Keeps working memory between calls.
class Attention {
 public:
  Attention(ThreadPool& pool, const Kernels& kernels) : pool_(pool), kernels_(kernels), scratch_(pool.threads()) {}

  /// Of several sequences at once, each with its own number of rows and pages: nothing is padded. Results depend
  /// neither on the number of threads nor on what else is in the batch.
  void run(std::span<const AttentionInput> inputs);
  const AttentionCount& count() const { return count_; }

 private:
  struct Block {  // some rows of one key/value head
    int head;
    int64_t first_row;
    int rows;
  };
  struct Prepared {  // a block with its rotated queries and the pages it reads
    Block block;
    Selection selection;
    std::vector<PageRead> reads;
    std::vector<uint64_t> row_masks;
    std::vector<float> queries, places;
    std::vector<Reweighting> reweighting;  // [rows, group]
    WeightForm form;
    bool own_block = false;  // the last of the pages is the one that the rows themselves lie on
    AttentionCount count;
  };
  struct Scratch {  // of one thread
    Prepared prepared;
    AlignedBuffer<float> floats;  // of the kernel
    std::vector<float> out, lse;
    std::vector<float> landmark_keys, shares, block_out, block_lse;  // of attend_blocks
  };
  struct Task {  // a block to attend with, or only to prepare because its pages are shared out among parts
    const AttentionInput* input;
    Block block;
    int64_t prepared;  // index in prepared_; −1: attend
  };
  struct Part {  // pages [begin, end) of a prepared block, and where its partial results go
    const AttentionInput* input;
    Prepared* prepared;
    int64_t begin, end;
    size_t out, lse;  // in partial_out_ and partial_lse_
  };

  void plan(std::span<const AttentionInput> inputs);
  void attend(std::span<const AttentionInput> inputs);
  void prepare(const AttentionInput& input, const Block& block, Prepared& prepared) const;
  QueryBlock query_block(const AttentionInput& input, const Prepared& prepared) const;
  void show(const AttentionInput& input, const Prepared& prepared, const float* lse) const;
  void rotate_queries(const AttentionInput& input, Prepared& prepared) const;
  void read_pages(const AttentionInput& input, const QueryBlock& query, Prepared& prepared) const;
  void reweigh(const AttentionInput& input, Prepared& prepared, const float* lse) const;
  void attend_pages(const AttentionInput& input, const Prepared& prepared, int64_t begin, int64_t end, float* out,
                    float* lse, Scratch& scratch) const;
  void attend_plainly(const AttentionInput& input, const Prepared& prepared, int64_t begin, int64_t end, float* out,
                      float* lse, Scratch& scratch) const;
  void attend_blocks(const AttentionInput& input, const Prepared& prepared, int64_t begin, int64_t end, float* out,
                     float* lse, Scratch& scratch) const;
  void share_by_landmarks(const AttentionInput& input, const Prepared& prepared, int64_t begin, int64_t end,
                          float* lse, Scratch& scratch) const;
  void list_tasks(std::span<const AttentionInput> inputs);
  void attend_block(const Task& task, int thread);
  /// The two passes over pages; the first finds what re-weighting needs, for inputs that ask for it.
  enum class Pass { kFirst, kLast };
  void list_parts();
  void attend_parts(Pass pass);
  void join_parts(Pass pass);
  void store(const AttentionInput& input, const Block& block, const float* out, const float* lse) const;
  void add(AttentionCount& count);

  ThreadPool& pool_;
  const Kernels& kernels_;
  std::vector<Scratch> scratch_;  // one per thread
  std::vector<Task> tasks_;
  std::vector<Prepared> prepared_;  // of the heads whose pages are shared out
  size_t prepared_count_ = 0;
  std::vector<Part> parts_;
  std::vector<float> partial_out_, partial_lse_;
  AttentionCount count_;
};

}  // namespace fathom
