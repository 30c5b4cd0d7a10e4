#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/registry.h"
#include "models/model.h"
#include "session/rows.h"

namespace fathom {

/// Threads and working memory, which engines can share. Used by one thread at a time.
class Runtime {
 public:
  /// threads 0: as many as the machine has cores. Kernels are the process's choice (FATHOM_ISA).
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
  size_t checkpoints = size_t{256} << 20;  // of them at most for checkpoints of recurrent states
};

/// What distinguishes the sequences of an engine.
struct SequenceOptions {
  std::string position = "file";  // spec of a rotary scaling
  std::string cache = "bf16";     // format of pages: bf16, q8, q4, or f32 for tests
  int64_t context = 0;  // most tokens it will hold, which chooses between LongRoPE's factors; 0: as trained
  int layers = 0;       // only the model's first layers are run; 0: all
};

/// A model with what runs it: threads, kernels, pages and rotary tables. Sequences of an engine are used by one
/// thread at a time.
class Engine {
 public:
  Engine(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, EngineOptions options = {});

  const Model& model() const { return *model_; }
  std::shared_ptr<const Model> shared_model() const { return model_; }
  Runtime& runtime() { return *runtime_; }
  const std::shared_ptr<Runtime>& shared_runtime() const { return runtime_; }
  PagePool& pages() { return pages_; }

  /// Throws Error (usage) for unknown methods and wrong numbers.
  Sequence new_sequence(const SequenceOptions& options);

  /// Makes an empty sequence begin with what other sequences of this engine have published of `tokens`, in blocks
  /// of so many tokens: returns the tokens restored, fewer than there are. Options are those that the sequence was
  /// made with.
  int64_t restore_prefix(Sequence& sequence, const SequenceOptions& options, std::span<const int32_t> tokens,
                         int64_t block);
  void publish_prefix(const Sequence& sequence, const SequenceOptions& options, int64_t block);

  /// Throws Error for a token outside the vocabulary.
  void check_tokens(std::span<const int32_t> tokens) const;

  /// The one forward pass: prefill chunks, decode steps and drafts of many sequences of engines that share model
  /// and runtime. Weights are read once for all. A member that fails (a token outside the vocabulary, memory, a
  /// stop) has its error in its result, and its sequence is as it was; the others' results stand. Throws Error for
  /// what is wrong with the batch itself: a sequence that is in it twice, or sequences that run different layers.
  void forward(std::span<Rows> batch);
  /// Of the open draft of these rows the nodes of one path stay; selectors and listeners are then shown their
  /// queries. Throws Error, keeping nothing of the draft, for what is not a path and when memory is exhausted.
  void accept(const Rows& rows, std::span<const int> path);

 private:
  struct RotaryTables {
    Rotary rotary;
    PositionRotations table;
    explicit RotaryTables(const RotaryConfig& config, int64_t context) : rotary(config, context), table(rotary) {}
  };
  std::vector<StateOptions::Rotations> rotations(const SequenceOptions& options);
  void check(const Rows& rows) const;
  struct Member {  // of a batch, opened
    Rows* rows;
    std::vector<int64_t> positions;  // of its rows
    int64_t first_row = 0;           // in the batch
  };
  Member open(Rows& rows);
  LayerHooks hooks_of(std::span<const Member> members) const;
  void run(std::span<Member> members);
  void show_logits(std::span<const Member> members);
  void show_accepted(const Rows& rows, std::span<const int> path);

  std::shared_ptr<const Model> model_;
  std::shared_ptr<Runtime> runtime_;
  PagePool pages_;
  std::shared_ptr<MemoryBudget> checkpoint_budget_;
  std::map<std::pair<std::string, int64_t>, std::vector<StateOptions::Rotations>> rotations_;
};

/// The `--cache` methods.
using CacheMethod = PageFormat(const Values&);
const MethodTable<CacheMethod>& cache_methods();

}  // namespace fathom
