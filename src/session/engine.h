#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/registry.h"
#include "models/adapter.h"
#include "models/model.h"
#include "session/disk_cache.h"
#include "session/rows.h"

namespace fathom {

/// A thread pool and working memory, which several engines can share. Not thread-safe: one thread uses it at a
/// time.
class Runtime {
 public:
  /// threads 0: one per hardware thread. Uses the default kernels of the process (environment variable FATHOM_ISA).
  explicit Runtime(int threads = 0);
  Runtime(int threads, const Kernels& kernels);
  ThreadPool& pool() { return pool_; }
  Workspace& work() { return work_; }

 private:
  ThreadPool pool_;
  Workspace work_;
};

struct EngineOptions {
  size_t memory = 0;                       // bytes of pages and recurrent states of all sequences; 0: no limit
  size_t checkpoints = size_t{256} << 20;  // limit in bytes for the checkpoints of recurrent states; 0: no limit
};

/// The options of one sequence of an engine.
struct SequenceOptions {
  std::string position = "file";  // spec of a --position method
  std::string cache = "bf16";     // page format: bf16, q8, q4, or f32 for tests
  int64_t context = 0;  // expected length in tokens: selects LongRoPE's short or long factors; 0: trained length
  int layers = 0;       // number of the model's first layers that are run; 0: all
  /// Adapters of the engine's model, whose updates add up. They stay those of the sequence (Sequence::adapters).
  std::vector<AdapterScale> adapters{};
};

/// A model together with its runtime, page pool and rotary tables. Not thread-safe: one thread uses an engine and
/// its sequences at a time.
class Engine {
 public:
  Engine(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, EngineOptions options = {});

  const Model& model() const { return *model_; }
  std::shared_ptr<const Model> shared_model() const { return model_; }
  Runtime& runtime() { return *runtime_; }
  const std::shared_ptr<Runtime>& shared_runtime() const { return runtime_; }
  PagePool& pages() { return pages_; }

  /// Returns an empty sequence. Throws Error (usage) for unknown methods, invalid numbers, and adapters of another
  /// model. With scale 0 an adapter has no effect: results are bit-identical to those without it.
  Sequence new_sequence(const SequenceOptions& options);

  /// Restores into an empty sequence the longest prefix of `tokens` that sequences of this engine have published,
  /// in blocks of `block` tokens (PrefixIndex). Returns the number of restored tokens, less than tokens.size().
  /// options: those the sequence was created with.
  int64_t restore_prefix(Sequence& sequence, const SequenceOptions& options, std::span<const int32_t> tokens,
                         int64_t block);
  /// Adds the complete blocks of a sequence to the prefix index.
  void publish_prefix(const Sequence& sequence, const SequenceOptions& options, int64_t block);

  /// What the pages of a disk cache depend on apart from SequenceOptions.
  struct CacheOptions {
    DiskCache* cache = nullptr;
    std::string attend;  // spec
    int64_t chunk = 0;   // tokens per prefill chunk, a multiple of 64
    int64_t block = 0;   // tokens of a block, a multiple of `chunk`
  };
  /// Restores into an empty sequence the longest prefix of `tokens` that is on disk (DiskCache::restore). The
  /// results have the bits of reading it on this instruction set.
  int64_t restore_from_disk(Sequence& sequence, const SequenceOptions& options, const CacheOptions& cache,
                            std::span<const int32_t> tokens);
  /// Stores the complete blocks of a sequence on disk (DiskCache::store).
  void store_on_disk(const Sequence& sequence, const SequenceOptions& options, const CacheOptions& cache,
                     const ContextInfo& info);

  /// Throws Error for a token id outside the vocabulary.
  void check_tokens(std::span<const int32_t> tokens) const;

  /// Runs a forward pass over a batch: any mixture of prefill chunks, decode steps and drafts of sequences whose
  /// engines share model and runtime. Weights are read once for the whole batch. If a member fails before the pass
  /// (invalid rows, memory exhausted), its result holds the error, its sequence is unchanged, and the others are
  /// run. If the pass itself fails or is stopped, all results hold the error and all sequences are unchanged. The
  /// rows of drafts, and members of at most kMatvecRows rows, get the same results alone and in a batch.
  /// Throws Error for an invalid batch: a sequence that appears twice, or sequences that run different numbers of
  /// layers.
  void forward(std::span<Rows> batch);
  /// Appends the nodes of one path of the open draft of these rows, from a root downwards, and discards the others;
  /// an empty path discards the whole draft. The selector's state becomes that after the appended tokens, and the
  /// listener receives their queries. Throws Error or std::bad_alloc, discarding the draft, if `path` is not a path
  /// of it or memory is exhausted.
  void accept(const Rows& rows, std::span<const int> path);

 private:
  struct RotaryTables {
    Rotary rotary;
    PositionRotations table;
    explicit RotaryTables(const RotaryConfig& config, int64_t context) : rotary(config, context), table(rotary) {}
  };
  std::vector<StateOptions::Rotations> rotations(const SequenceOptions& options);
  std::vector<ScaledAdapter> scaled_adapters(const SequenceOptions& options) const;
  void check(const Rows& rows) const;
  static void check_draft(const Rows& rows);
  struct Member {  // rows of one sequence in a batch, opened
    Rows* rows;
    std::vector<int64_t> positions;  // [rows]; of a draft: in its leaves
    int64_t first_row = 0;           // in the batch

    int64_t row(int64_t i) const { return first_row + (rows->draft ? rows->draft->rows[i] : i); }
  };
  Member open(Rows& rows);
  static void open_draft(Rows& rows);
  static void abandon(const Rows& rows);
  std::vector<SequenceRows> sequence_rows(std::span<Member> members, std::vector<int32_t>& tokens) const;
  LayerHooks make_hooks(std::span<const Member> members) const;
  void transfer_states(const Member& member, int layer, float* hidden) const;
  void run(std::span<Member> members);
  void compute_logits(std::span<const Member> members);
  void replay(const Rows& rows, std::span<const int> path, bool plan);

  std::shared_ptr<const Model> model_;
  std::shared_ptr<Runtime> runtime_;
  PagePool pages_;
  std::shared_ptr<MemoryBudget> checkpoint_budget_;
  std::map<std::pair<std::string, int64_t>, std::vector<StateOptions::Rotations>> rotations_;
};

/// The `--cache` methods. Each returns a page format.
using CacheMethod = PageFormat(const Values&);
const MethodTable<CacheMethod>& cache_methods();

}  // namespace fathom
