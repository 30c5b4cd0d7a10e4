#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/method_specs.h"
#include "evict/evictor.h"
#include "session/engine.h"

namespace fathom {

struct SessionOptions {
  int64_t context = 0;            // most tokens the session may hold; 0: no limit but memory
  int64_t chunk = 512;            // tokens read at once in prefill: bounds the working memory
  std::string attend = "dense";   // spec of a selector
  std::string position = "file";  // spec of a rotary scaling
  std::string cache = "bf16";     // format of pages: bf16, q8, q4, or f32 for tests
  std::string evict = "none";     // spec of what is dropped from memory for good
  int layers = 0;  // only the model's first layers are run, and the output reads the last of them; 0: all
  /// Tokens that the engine's earlier sequences have read are not read again, if this sequence begins with them.
  /// Dense attention without eviction then gives the same bits; other methods attend to the pages as if they had
  /// just begun.
  bool share_prefixes = false;
  const StopToken* stop = nullptr;  // ends reading between layers; must outlive the session. null: nothing does

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
  std::function<void(int64_t index, std::span<const float> logits)> on_logits;
  std::function<bool(int64_t index)> needs_logits;
  std::function<void(int64_t done)> progress;  // tokens read so far of this call
};

/// A sequence being read and continued under chosen methods: a convenience over Engine::forward. Landmarks of a
/// model that was trained with them are put in by the session: all numbers of tokens here are without, those of
/// sequence() with them.
class Session {
 public:
  /// Throws Error (usage) for unknown methods.
  Session(std::shared_ptr<Engine> engine, SessionOptions options = {});
  /// The same with an engine of its own.
  Session(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, SessionOptions options = {});

  /// Reads tokens, in chunks. Afterwards logits() are those of the last one. Throws Error for no tokens, a token
  /// outside the vocabulary or more tokens than the context; on any error, interrupts included, the session holds
  /// what it held before the unfinished chunk.
  void append(std::span<const int32_t> tokens, const AppendOptions& options = {});
  /// One token each for several sessions of one runtime and model: weights are read once for all. Returns the error
  /// of each session that failed, whose state is as it was; the others have read their token. Throws Error for what
  /// is wrong with the batch itself.
  static std::vector<std::exception_ptr> try_step(std::span<Session* const> sessions,
                                                  std::span<const int32_t> tokens);
  /// The same; throws the first error.
  static void step(std::span<Session* const> sessions, std::span<const int32_t> tokens);

  /// Reads a draft behind the newest token: returns the logits of its nodes, [nodes, vocabulary]. tokens: of the
  /// nodes. Nothing else may be read until accept(). Throws Error, changing nothing, for a selector that cannot
  /// read drafts, and for branches where the model has recurrent layers.
  std::vector<float> draft(const DraftTree& tree, std::span<const int32_t> tokens);
  /// Of the draft the nodes of one path stay (none: nothing stays). Afterwards logits() are those of the last one.
  void accept(std::span<const int> path);

  /// Of the last token read: [vocabulary]. Empty before the first token and after a rewind. A model's landmark is
  /// no likelier in them than any other token.
  std::span<const float> logits() const { return logits_; }

  /// The same sequence again, sharing pages until one of the two writes.
  Session fork() const;
  /// The same, read on under another `--attend` method. Throws Error (usage) for an unknown one.
  Session fork(const std::string& attend) const;
  /// Drops the newest n tokens. Where layers are recurrent, some of those before are read again: at most max(64, n)
  /// for n up to 4k, unless the budget of checkpoints is too small, or earlier rewinds went back to checkpoints
  /// that are spaced for a longer sequence.
  void rewind(int64_t n);
  /// Moves the whole sequence to start at `position`.
  void move_to(int64_t position);
  /// Masks tokens [begin, end) for all later ones. Recurrent layers have read them all the same.
  void mask(int64_t begin, int64_t end);
  /// From now on the watcher is shown what is attended to; null: nobody. Forks are not watched. Throws Error
  /// (usage) for a model with landmarks: no single softmax makes its shares.
  void watch(AttentionWatcher* watcher);
  /// Adds n tokens of random keys, values and states without reading anything: for measuring at a depth.
  void fill_random(int64_t n);

  /// Of the tokens read: those that were restored, not read (SessionOptions::share_prefixes).
  int64_t restored() const { return restored_; }
  /// Tokens read.
  int64_t length() const { return landmarks().without(sequence_.tokens()); }
  const Model& model() const { return engine_->model(); }
  const SessionOptions& options() const { return options_; }
  Engine& engine() const { return *engine_; }
  Runtime& runtime() const { return engine_->runtime(); }
  const Sequence& sequence() const { return sequence_; }

 private:
  Session(const Session& other, Sequence sequence);
  const Landmarks& landmarks() const { return model().config().landmarks; }
  /// Adds tokens that come next to `out`, with their landmarks; `before`: those that were read or added before.
  void add_with_landmarks(std::span<const int32_t> tokens, int64_t before, std::vector<int32_t>& out) const;
  void set_selector(const std::string& attend);
  /// What methods are attached to.
  AttendContext attend_context() const;
  /// Throws Error (usage) if the chosen methods do not go together.
  void check_methods() const;
  void check(std::span<const int32_t> tokens) const;
  AttendPolicy policy() const { return {selector_.get(), evictor_.get(), watcher_}; }
  Rows rows_of(std::span<const int32_t> read);
  void read_chunk(std::span<const int32_t> tokens, std::span<const int64_t> positions, int64_t first, bool last,
                  const AppendOptions& options);
  void read_again(std::span<const int32_t> ids);
  bool needs_surprisal() const;
  void tell_surprisal(std::span<const float> nats);
  void evict(bool end);

  std::shared_ptr<Engine> engine_;
  SessionOptions options_;
  std::shared_ptr<const Selector> selector_;
  std::shared_ptr<const Evictor> evictor_;  // null: none
  AttentionWatcher* watcher_ = nullptr;
  Sequence sequence_;
  std::vector<float> logits_;
  int64_t restored_ = 0;
  struct Draft {
    DraftTree tree;
    std::vector<int32_t> tokens;
    DraftQueries queries;
    std::vector<float> logits;  // [nodes, vocabulary]
  };
  std::unique_ptr<Draft> draft_;  // open
};

}  // namespace fathom
