#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/method_specs.h"
#include "evict/evictor.h"
#include "formats/context_file.h"
#include "session/cartridge.h"
#include "session/disk_cache.h"
#include "session/engine.h"
#include "session/opened_context.h"

namespace fathom {

/// The methods and limits of a Session.
struct SessionOptions {
  int64_t context = 0;            // maximum number of tokens; 0: limited only by memory
  int64_t chunk = 512;            // tokens per prefill chunk: bounds the working memory
  std::string attend = "dense";   // spec of an --attend method
  std::string position = "file";  // spec of a --position method
  std::string cache = "bf16";     // page format: bf16, q8, q4, or f32 for tests
  std::string evict = "none";     // spec of an --evict method
  int layers = 0;  // number of the model's first layers that are run; logits come from the last of them; 0: all
  /// Whether to restore prefixes that earlier sequences of the engine have read, instead of reading them again.
  /// With dense attention and without eviction the results are bit-identical. The states of other methods start
  /// empty: they do not cover the restored tokens.
  bool share_prefixes = false;
  /// LoRA adapters, whose updates add up. They are those of the session and its forks for their whole life: the
  /// stored keys, values and states depend on them, so other scales need a new session that reads the tokens again.
  std::vector<AdapterScale> adapters{};
  /// A cache on disk, from which prefixes are restored that any process has read, and to which complete blocks of
  /// `cache_block` tokens are written; null: none. Has no effect with evictors and landmarks, and with --attend
  /// methods whose states cannot be derived from pages. Results have the bits of reading all tokens.
  std::shared_ptr<DiskCache> disk_cache{};
  int64_t cache_block = 0;          // tokens of a block in the disk cache, a multiple of `chunk`; 0: `chunk`
  const StopToken* stop = nullptr;  // stops a pass between layers; must outlive the session. null: never

  /// Returns the default options with these methods. Ignores methods.read, which is not a session option.
  static SessionOptions of(const MethodSpecs& methods) {
    return {.attend = methods.attend, .position = methods.position, .cache = methods.cache, .evict = methods.evict};
  }
};

/// Positions of the tokens of Session::append, and callbacks.
struct AppendOptions {
  std::span<const int64_t> positions;  // [tokens]; empty: consecutive after the last token
  /// Receives the logits after each token for which `needs_logits` returns true, or after all tokens if it is
  /// empty. index: of the token in `tokens`.
  std::function<void(int64_t index, std::span<const float> logits)> on_logits;
  std::function<bool(int64_t index)> needs_logits;
  std::function<void(int64_t done)> progress;  // called after each chunk; done: tokens of this call read so far
};

/// Tokens [begin, end) of a session, and the tokens that replace them.
struct TokenEdit {
  int64_t begin = 0, end = 0;
  std::vector<int32_t> tokens{};
};

/// How Session::edit treats the tokens after an edit, whose keys and values depend on the text before them.
struct EditOptions {
  /// Reads again all tokens that a plain reading of the new text would compute again: same bits, slow.
  bool exact = false;
  /// Share of the later pages, 0 to 1, that are read again: those whose keys and values in the second layer differ
  /// most from a plain reading of the new text ("CacheBlend: Fast Large Language Model Serving for RAG with Cached
  /// Knowledge Fusion", 2024, by pages instead of tokens). 0: none.
  double blend = 0;
  std::function<void(int64_t done, int64_t all)> progress{};  // tokens read so far, and in all
};

/// The tokens of an edited session.
struct EditReport {
  int64_t kept = 0;      // before the first edit: unchanged
  int64_t moved = 0;     // after an edit: only their positions changed
  int64_t read = 0;      // passed through the model
  int64_t measured = 0;  // passed through the first two layers, to choose what is read again
};

/// How Session::join places contexts that were read alone.
enum class JoinOrder {
  /// One after the other, in the given order.
  kConcat,
  /// All at the position after their common prefix, in an order that depends only on their contents, so that
  /// results do not depend on the given order ("Set-Based Prompting: Provably Solving the Language Model Order
  /// Dependency Problem", 2024).
  kSet,
  /// Like kSet, with a correction of attention to the contexts ("APE: Faster and Longer Context-Augmented
  /// Generation via Adaptive Parallel Encoding", 2025).
  kApe,
};

struct JoinOptions {
  JoinOrder order = JoinOrder::kConcat;
  /// With kConcat: the first tokens of each later context that are read again after those before them, rounded up
  /// to whole pages. 0: none.
  int64_t reread = 0;
  float temperature = 1, scale = 1;  // of kApe: ParallelContexts
};
/// The methods of --join: each returns its options.
using JoinMethod = JoinOptions(const Values&);
const MethodTable<JoinMethod>& join_methods();

/// What Session::save stores beside the session.
struct SavedText {
  std::string_view text{};                        // that was read
  std::span<const int64_t> offsets{};             // [tokens] byte offset in `text` of each token; empty: unknown
  Json notes = Json::object();                    // of the program, returned by ContextFile::info
  std::vector<std::string> adapter_paths{};       // of SessionOptions::adapters
  std::function<void(int64_t bytes)> progress{};  // called now and then with the bytes written so far
};

/// Reads and continues one sequence with the chosen methods; a thin layer over Engine::forward. For a model
/// that was trained with landmarks, the session inserts the landmark tokens: token counts and indices of this class
/// do not include them, those of sequence() do.
class Session {
 public:
  /// Throws Error (usage) for unknown methods, and for methods that do not work together or with the model.
  Session(std::shared_ptr<Engine> engine, SessionOptions options = {});
  /// Creates an engine for this session.
  Session(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, SessionOptions options = {});

  /// Reads tokens in chunks. Afterwards logits() are those of the last token. Throws Error for no tokens, a token
  /// outside the vocabulary, or more tokens than the context limit. After any error, interrupts included, the
  /// session holds the tokens before the unfinished chunk.
  void append(std::span<const int32_t> tokens, const AppendOptions& options = {});
  /// Restores the longest prefix of `tokens` that is in memory or on disk (SessionOptions::share_prefixes,
  /// disk_cache) into a session without tokens, as append() does first. Returns the number of restored tokens, less
  /// than tokens.size().
  int64_t restore(std::span<const int32_t> tokens) { return restore(tokens, {}); }
  /// Returns how many of the next `tokens` tokens of a prompt a pass should read, so that the results have the bits
  /// of append(). For Step.
  int64_t next_chunk(int64_t tokens) const { return next_chunk(tokens, {}); }
  /// The tokens that a session reads in a step: one token, a draft with this tree, or a chunk of a prompt.
  struct Step {
    Session* session = nullptr;
    std::span<const int32_t> tokens{};          // one; [nodes] of a draft; or those of the chunk
    const DraftTree* draft = nullptr;           // null: no draft. It must be accepted before the session reads on.
    const HiddenTransfer* transfer = nullptr;   // as OpenDraft::transfer; must outlive the open draft
    std::span<const uint8_t> transfer_steps{};  // as OpenDraft::steps
    bool prompt = false;                        // whether the tokens are a chunk of a prompt
    bool last = false;                          // whether it is the last one: logits() are then those after it
  };
  /// Reads one token, draft or chunk in each of several sessions that share model and runtime, in one batch:
  /// weights are read once. Results are, bit by bit, those of each session alone. Returns one entry per step: null,
  /// or the error if its session failed, which is then unchanged. Throws Error for an invalid batch.
  static std::vector<std::exception_ptr> try_steps(std::span<const Step> steps);
  /// Calls try_steps with one token per session.
  static std::vector<std::exception_ptr> try_step(std::span<Session* const> sessions,
                                                  std::span<const int32_t> tokens);
  /// Calls try_step and throws the first error.
  static void step(std::span<Session* const> sessions, std::span<const int32_t> tokens);

  /// The drafts that a session can read.
  enum class DraftShape { kNone, kChain, kTree };
  DraftShape draft_shape() const;
  /// Reads a draft after the newest token and returns the logits of its nodes, [nodes, vocabulary]. They are, bit
  /// by bit, those of reading the tokens of a node's path one by one. tokens: [nodes]. The session cannot read
  /// anything else until accept(). Throws Error, changing nothing, for a draft of a shape that draft_shape()
  /// excludes.
  std::span<const float> draft(const DraftTree& tree, std::span<const int32_t> tokens);
  /// The logits of the open draft, [nodes, vocabulary].
  std::span<const float> draft_logits() const { return draft_->logits; }
  /// Appends the nodes of one path of the draft and discards the others; an empty path discards the whole draft.
  /// Afterwards logits() are those of the last appended token. Throws Error, discarding the draft, if `path` is not
  /// a path of it.
  void accept(std::span<const int> path);

  /// Keeps hidden states of the newest token from now on. layers: as Rows::hidden_layers. Throws Error for other
  /// layers.
  void keep_hidden(std::vector<int> layers);
  std::span<const int> hidden_layers() const { return hidden_layers_; }  // of keep_hidden
  /// The hidden states of the last token, [kept layers, width]. Empty where logits() is, and without keep_hidden.
  std::span<const float> hidden() const { return hidden_; }
  /// The hidden states of the open draft, [kept layers, nodes, width].
  std::span<const float> draft_hidden() const { return draft_->hidden; }
  /// Returns the part of `hidden`, that is of hidden() or draft_hidden(), of one kept layer. Empty if `hidden` is,
  /// or if the layer is not kept.
  std::span<const float> hidden_of(int layer, std::span<const float> hidden) const;

  /// Computes softmax attention of other queries than those of the model over the keys and values of all tokens of
  /// a layer, or of those in the layer's window, with the scale and the rotary positions of the layer. positions:
  /// [rows] of the queries; queries: [rows, heads, key_dim], not rotated, rotary pairs adjacent; out: [rows, heads,
  /// value_dim]. The session has no open draft, at least one token, and attention in this layer.
  void attend(int layer, std::span<const int64_t> positions, const float* queries, float* out);

  /// The logits after the last token, [vocabulary]. Empty before the first token and after a rewind. A landmark
  /// token has the lowest logit.
  std::span<const float> logits() const { return logits_; }

  /// Writes the session to a context file, from which open() continues with the same bits in any process: tokens,
  /// pages, recurrent states, states of methods, and logits. The file appears complete or not at all. Throws Error
  /// if it cannot be written, and if the session has no tokens or an open draft.
  void save(const std::string& path, const SavedText& text = {}) const;
  /// Returns the options with which a context was read, without adapters. A session with other `--attend` and
  /// `--evict` methods can be opened as well; their states then begin empty.
  static SessionOptions options_of(const ContextFile& file);
  /// Opens a saved session. Its pages stay in the mapped file, which is never changed, and are read and checked
  /// when a pass first needs them: a damaged page is an Error then. Throws Error that says what differs for another
  /// model, other adapters, rotary positions, page format or number of layers.
  static Session open(std::shared_ptr<Engine> engine, std::shared_ptr<const ContextFile> file,
                      SessionOptions options);

  /// Returns a copy that shares pages with this session until one of the two writes to them. Throws Error if a
  /// draft is open.
  Session fork() const;
  /// Returns a copy that continues with another `--attend` method. Throws Error (usage) for an unknown or
  /// unsuitable method.
  Session fork(const std::string& attend) const;
  /// Replaces parts of the text that was read. Later pages are kept and only moved to their new positions, since
  /// stored keys are rotated by their offset in the page alone ("Let the Code LLM Edit Itself When You Edit the
  /// Code", 2024: positional integrity encoding). Read again are the inserted tokens, the tokens after each edit up
  /// to the next page (at most 63), and the last token, for its logits. Models with recurrent layers or landmarks
  /// read all later tokens again, from the last checkpoint, as with EditOptions::exact. edits: ascending, without
  /// overlap. Throws Error, changing nothing, for wrong edits, for a session with an evictor unless the edit is
  /// exact, and what append() throws.
  EditReport edit(std::span<const TokenEdit> edits, const EditOptions& options = {});
  /// Returns a session that holds the tokens of several sessions of one engine with equal options, each of which
  /// was read alone. Their common first tokens, such as BOS, are visible once. Sessions share their pages. Throws
  /// Error (usage) for no or different sessions, evictors, landmarks and recurrent layers. logits() is empty.
  static Session join(std::span<const Session* const> parts, const JoinOptions& options = {});

  /// Merges the pages that edits left partly filled and removes masked tokens (PagedKv::compact), in all layers and
  /// heads. A key that moves inside its page is rotated and rounded again. Throws Error, changing nothing, when
  /// memory is exhausted.
  void compact();

  /// Appends trained slots (append_cartridge). logits() is then empty. Throws Error, changing nothing.
  void append_slots(const Cartridge& cartridge);

  /// Removes the newest n tokens. If the model has recurrent layers, some of the tokens before them are read again:
  /// at most max(64, n) for n up to 4k, unless the checkpoint budget is too small or earlier rewinds left
  /// checkpoints that are spaced for a longer sequence. Throws Error if n is negative or more than length(). If
  /// reading them again fails, the session is unchanged.
  void rewind(int64_t n);
  /// Keeps the common prefix with a prompt, which is not empty, but never all of the prompt: its last token must be
  /// read for its logits. Returns the number of tokens that are kept. Throws what rewind() throws.
  int64_t rewind_to_prefix(std::span<const int32_t> prompt);
  /// Shifts the positions of all tokens so that the first one has this position.
  void move_to(int64_t position);
  /// Masks tokens [begin, end) for all later tokens in all attention layers. Does not change recurrent states.
  void mask(int64_t begin, int64_t end);
  /// Sets the watcher that is notified of the attention of all later passes; null: none. Forks have no watcher.
  /// Throws Error (usage) for a model with landmarks, because its attention weights are not those of a single
  /// softmax.
  void watch(AttentionWatcher* watcher);
  /// Appends n tokens with random keys, values and states without a forward pass. For benchmarks at a given length.
  void fill_random(int64_t n);

  /// Number of tokens that were restored instead of read (SessionOptions::share_prefixes, disk_cache).
  int64_t restored() const { return restored_; }
  /// Number of tokens that were in the context file that the session was opened from.
  int64_t opened() const { return opened_; }
  /// How the pages of those files were read, by this session and all others that share them.
  FilePageReads file_page_reads() const;
  /// Number of tokens, without those of an open draft.
  int64_t length() const { return landmarks().without(sequence_.committed()); }
  /// The ids of the tokens; −1: a token that was read as an embedding, or a slot. Landmarks are not among them.
  std::vector<int32_t> ids() const;
  const Model& model() const { return engine_->model(); }
  const SessionOptions& options() const { return options_; }
  Engine& engine() const { return *engine_; }
  Runtime& runtime() const { return engine_->runtime(); }
  const Sequence& sequence() const { return sequence_; }

 private:
  Session(const Session& other, Sequence sequence);
  const Landmarks& landmarks() const { return model().config().landmarks; }
  /// Appends `tokens` and the landmarks between them to `out`. before: number of tokens before them, without
  /// landmarks.
  void add_with_landmarks(std::span<const int32_t> tokens, int64_t before, std::vector<int32_t>& out) const;
  void set_selector(const std::string& attend);
  /// Returns the context that selector and evictor are attached to.
  AttendContext attend_context() const;
  /// Throws Error (usage) if the methods do not work together or with the model.
  void check_methods() const;
  void check(std::span<const int32_t> tokens) const;
  void check_length(int64_t tokens) const;
  void check_draft() const;
  static void check_batch(std::span<const Step> steps);
  AttendPolicy policy() const { return {selector_.get(), evictor_.get(), watcher_}; }
  Rows rows_of(std::span<const int32_t> read);
  std::vector<int64_t> most_changed_pages(std::span<const TokenEdit> edits, double share, EditReport& report) const;
  EditReport edit_exactly(std::span<const TokenEdit> edits, const EditOptions& options);
  ContextInfo describe() const;
  Engine::CacheOptions cache_options() const {
    return {options_.disk_cache.get(), options_.attend, options_.chunk, disk_block()};
  }
  bool uses_disk_cache(const AppendOptions& options) const;
  int64_t prefix_block() const;
  int64_t disk_block() const { return options_.cache_block > 0 ? options_.cache_block : options_.chunk; }
  bool shares_prefixes(const AppendOptions& options) const;
  int64_t restore(std::span<const int32_t> tokens, const AppendOptions& options);
  void keep_prefixes(const AppendOptions& options);
  int64_t next_chunk(int64_t tokens, const AppendOptions& options) const;
  struct PromptChunk;
  std::unique_ptr<PromptChunk> prepare_chunk(std::span<const int32_t> tokens, std::span<const int64_t> positions,
                                             int64_t first, bool last, const AppendOptions& options);
  void finish_chunk(const PromptChunk& chunk, RowsResult& result, const AppendOptions& options);
  void read_chunk(std::span<const int32_t> tokens, std::span<const int64_t> positions, int64_t first, bool last,
                  const AppendOptions& options);
  void reread(std::span<const int32_t> ids);
  bool needs_surprisal() const;
  void report_surprisal(std::span<const float> nats);
  void evict(bool end);

  std::shared_ptr<Engine> engine_;
  SessionOptions options_;
  std::shared_ptr<const Selector> selector_;
  std::shared_ptr<const Evictor> evictor_;  // null: none
  bool attend_works_with_drafts_ = false;
  AttentionWatcher* watcher_ = nullptr;
  Sequence sequence_;
  std::vector<float> logits_;
  std::vector<int> hidden_layers_;
  std::vector<float> hidden_;
  int64_t restored_ = 0, opened_ = 0;
  std::vector<std::shared_ptr<const OpenedContext>> files_;  // that tokens were opened from
  struct Draft {
    OpenDraft open;
    std::vector<float> logits;  // [nodes, vocabulary]
    std::vector<float> hidden;  // [kept layers, nodes, width]
  };
  std::unique_ptr<Draft> draft_;  // the open draft, or null
};

}  // namespace fathom
