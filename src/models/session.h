#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/method_specs.h"
#include "evict/evictor.h"
#include "memory/memory.h"
#include "models/model.h"

namespace fathom {

/// Threads and working memory that sessions of one caller share. Sessions of one runtime are used by one thread at
/// a time.
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

struct SessionOptions {
  int64_t context = 0;            // most tokens the session may hold; 0: no limit but memory
  int64_t chunk = 512;            // tokens read at once in prefill: bounds the working memory
  std::string attend = "dense";   // spec of a selector
  std::string position = "file";  // spec of a rotary scaling
  std::string cache = "bf16";     // format of pages: bf16, q8, q4, or f32 for tests
  std::string evict = "none";     // spec of what is dropped from memory for good
  int layers = 0;  // only the model's first layers are run, and the output reads the last of them; 0: all

  /// The defaults with these methods; `read` is not a session's.
  static SessionOptions of(const MethodSpecs& methods) {
    return {.attend = methods.attend, .position = methods.position, .cache = methods.cache, .evict = methods.evict};
  }
};

/// What to do while tokens are read.
struct AppendOptions {
  std::span<const int64_t> positions;  // of the tokens; empty: they follow the last one
  /// Asked for logits of each row for which `wants` is true (or of all rows when it is empty); index: the token's
  /// place in `tokens`.
  std::function<void(int64_t index, std::span<const float> logits)> each_row;
  std::function<bool(int64_t index)> wants;
  std::function<void(int64_t done)> progress;  // tokens read so far of this call
};

/// A sequence being read and continued: the only object that owns a model, its memory and the chosen methods
/// together. Landmarks of a model that was trained with them are put in by the session: all numbers of tokens here
/// are without, those of memory() with them.
class Session {
 public:
  /// Throws Error (usage) for unknown methods.
  Session(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, SessionOptions options = {});

  /// Reads tokens, in chunks. Afterwards logits() are those of the last one. Throws Error for no tokens, a token
  /// outside the vocabulary or more tokens than the context; on any error, interrupts included, the session holds
  /// what it held before the unfinished chunk.
  void append(std::span<const int32_t> tokens, const AppendOptions& options = {});
  /// One token each for several sessions of one runtime and model: weights are read once for all.
  static void step(std::span<Session* const> sessions, std::span<const int32_t> tokens);

  /// Of the last token read: [vocabulary]. Empty before the first token and after a rewind. A model's landmark is
  /// no likelier in them than any other token.
  std::span<const float> logits() const { return logits_; }

  /// The same sequence again, sharing pages until one of the two writes.
  Session fork() const;
  /// The same, read on under another `--attend` method. Throws Error (usage) for an unknown one.
  Session fork(const std::string& attend) const;
  /// Drops the newest n tokens.
  void rewind(int64_t n);
  /// Moves the whole sequence to start at `position`.
  void place(int64_t position);
  /// Hides tokens [begin, end) from all later ones.
  void hide(int64_t begin, int64_t end);
  /// From now on the watcher is shown what is attended to; null: nobody. Forks are not watched. Throws Error
  /// (usage) for a model with landmarks: no single softmax makes its shares.
  void watch(AttentionWatcher* watcher);
  /// Adds n tokens of random keys and values without reading anything: for measuring at a depth.
  void fill_random(int64_t n);

  /// Tokens read.
  int64_t length() const { return landmarks().without(memory_.tokens()); }
  const Model& model() const { return *model_; }
  const SessionOptions& options() const { return options_; }
  Runtime& runtime() { return *runtime_; }
  const Memory& memory() const { return memory_; }

 private:
  Session(const Session& other, Memory memory);
  const Landmarks& landmarks() const { return model_->config().landmarks; }
  /// Adds tokens that come next to `out`, with their landmarks; `before`: those that were read or added before.
  void add_with_landmarks(std::span<const int32_t> tokens, int64_t before, std::vector<int32_t>& out) const;
  /// What methods are attached to.
  AttendContext attend_context() const;
  /// Throws Error (usage) if the chosen methods do not go together.
  void check_methods() const;
  void check(std::span<const int32_t> tokens) const;
  void read_chunk(std::span<const int32_t> tokens, std::span<const int64_t> positions);
  bool wants_surprisal() const;
  void note_surprisal(std::span<const int32_t> tokens);
  void report_surprisal(std::span<const float> nats);
  void evict(bool end);
  void visit_rows(int64_t first, int64_t rows, const AppendOptions& options);
  SequenceRows open_rows(std::span<const int64_t> positions, int64_t first_row);
  void logits_of(std::span<const int64_t> rows, std::vector<float>& logits);

  std::shared_ptr<const Model> model_;
  std::shared_ptr<Runtime> runtime_;
  SessionOptions options_;
  std::shared_ptr<const Rotary> rotary_;
  std::shared_ptr<PlaceRotations> rotations_;  // shared with forks; grows between forward passes only
  std::shared_ptr<const Selector> selector_;
  std::shared_ptr<const Evictor> evictor_;  // null: none
  AttentionWatcher* watcher_ = nullptr;
  Memory memory_;
  std::vector<float> logits_;
};

/// The `--cache` methods.
using CacheMethod = PageFormat(const Values&);
const MethodTable<CacheMethod>& cache_methods();

}  // namespace fathom
