#include "session/session.h"

#include <algorithm>

#include "attend/methods.h"
#include "base/error.h"
#include "base/format.h"
#include "evict/methods.h"
#include "mixers/attention_mixer.h"
#include "mixers/output_norms.h"

namespace fathom {
namespace {

/// Returns the method that `spec` names, attached to `context`; null for a method that does nothing.
template <class Table>
auto make_attached(const Table& methods, const std::string& spec, const AttendContext& context) {
  auto method = methods.make(spec);
  if (method) method->attach(context);
  return method;
}

/// Returns the function that computes output norms; empty if a layer with attention has no output projection.
OutputNorms output_norms_of(const std::shared_ptr<const Model>& model, const std::vector<AttendLayer>& attention,
                            const Kernels& table) {
  for (size_t layer = 0; layer < attention.size(); ++layer)
    if (attention[layer].heads > 0 && !model->network().output_projection(static_cast<int>(layer))) return {};
  return [model, attention, &table](int layer, int64_t rows, const float* values, float* norms, ThreadPool& pool) {
    const AttendLayer& shape = attention[layer];
    output_norms({shape.heads, shape.kv_heads, shape.shape.value_dim, model->network().output_projection(layer)},
                 rows, values, norms, pool, table);
  };
}

SequenceOptions sequence_options(const SessionOptions& options) {
  if (options.chunk < 1) fail_usage("chunk: expected at least 1 token, found ", options.chunk);
  if (options.disk_cache && options.chunk % kPageTokens != 0)
    fail_usage("--cache-disk needs a --chunk that is a multiple of ", kPageTokens, ", found ", options.chunk);
  if (options.cache_block < 0 || options.cache_block % options.chunk != 0)
    fail_usage("cache_block: expected a multiple of the chunk of ", options.chunk, " tokens, found ",
               options.cache_block);
  if (options.context < 0) fail_usage("context limit: expected 0 or more tokens, found ", options.context);
  return {options.position, options.cache, options.context, options.layers, options.adapters};
}

}  // namespace

Session::Session(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, SessionOptions options)
    : Session(std::make_shared<Engine>(std::move(model), std::move(runtime)), std::move(options)) {}

Session::Session(std::shared_ptr<Engine> engine, SessionOptions options)
    : engine_(std::move(engine)),
      options_(std::move(options)),
      sequence_(engine_->new_sequence(sequence_options(options_))) {
  set_selector(options_.attend);
  evictor_ = make_attached(evict_methods(), options_.evict, attend_context());
  if (evictor_) sequence_.set_state(Sequence::StateOf::kEvictor, evictor_->new_state());
  check_methods();
}

Session::Session(const Session& other, Sequence sequence)
    : engine_(other.engine_),
      options_(other.options_),
      selector_(other.selector_),
      evictor_(other.evictor_),
      attend_works_with_drafts_(other.attend_works_with_drafts_),
      sequence_(std::move(sequence)),
      logits_(other.logits_),
      hidden_layers_(other.hidden_layers_),
      hidden_(other.hidden_),
      files_(other.files_) {}

void Session::set_selector(const std::string& attend) {
  selector_ = make_attached(attend_methods(), attend, attend_context());
  attend_works_with_drafts_ = attend_methods().capabilities(attend).works_with_drafts;
  sequence_.set_state(Sequence::StateOf::kSelector, selector_->new_state());
}

AttendContext Session::attend_context() const {
  AttendContext context;
  context.layers = model().config().layers;
  context.attention = model().network().attention();
  context.output_norms = output_norms_of(engine_->shared_model(), context.attention, runtime().work().kernels);
  const PageFormat format = cache_methods().make(options_.cache);
  for (AttendLayer& layer : context.attention) layer.shape.format = format;
  context.softplus = model().config().softplus;
  context.landmarks = landmarks();
  return context;
}

void Session::check_methods() const {
  const Capabilities attend = attend_methods().capabilities(options_.attend),
                     evict = evict_methods().capabilities(options_.evict);
  const auto expect = [&](bool works, const char* option, const std::string& spec, const char* model,
                          const std::vector<std::string>& others) {
    if (!works) fail_usage(option, " ", spec, ": ", model, ", expected ", or_list(others));
  };
  if (landmarks()) {
    const char* trained = "this model was trained with landmarks";
    expect(attend.works_with_landmarks, "--attend", options_.attend, trained,
           attend_methods().names_with(&Capabilities::works_with_landmarks));
    expect(evict.works_with_landmarks, "--evict", options_.evict, trained,
           evict_methods().names_with(&Capabilities::works_with_landmarks));
  }
  if (sequence_.has_recurrent_layers()) {
    const char* recurrent = "this model has recurrent layers";
    expect(attend.works_on_recurrent, "--attend", options_.attend, recurrent,
           attend_methods().names_with(&Capabilities::works_on_recurrent));
    expect(evict.works_on_recurrent, "--evict", options_.evict, recurrent,
           evict_methods().names_with(&Capabilities::works_on_recurrent));
  }
  if (!evictor_ || !evictor_->moves_tokens() || attend.works_with_compacted) return;
  fail_usage("--evict ", options_.evict, " moves tokens, but --attend ", options_.attend,
             " stores their positions: expected positions=original, or --attend with ",
             or_list(attend_methods().names_with(&Capabilities::works_with_compacted)));
}

void Session::check(std::span<const int32_t> tokens) const {
  if (tokens.empty()) fail("the prompt has no tokens");
  if (draft_) fail("the session has an open draft: accept it first");
  engine_->check_tokens(tokens);
  check_length(length() + std::ssize(tokens));
}

/// Throws Error if the session cannot hold this number of tokens.
void Session::check_length(int64_t tokens) const {
  if (tokens == 0) fail("edit: it would leave no tokens");
  if (options_.context > 0 && tokens > options_.context)
    fail(tokens, " tokens are more than the context limit of ", options_.context, " (-c)");
}

void Session::add_with_landmarks(std::span<const int32_t> tokens, int64_t before, std::vector<int32_t>& out) const {
  for (const int32_t token : tokens) {
    out.push_back(token);
    if (landmarks() && ++before % landmarks().tokens == 0) out.push_back(model().config().landmark_token);
  }
}

bool Session::needs_surprisal() const {
  return selector_->needs_surprisal() || (evictor_ && evictor_->needs_surprisal());
}

void Session::report_surprisal(std::span<const float> nats) {
  const Surprisal surprisal{length() - std::ssize(nats), nats};
  if (selector_->needs_surprisal()) selector_->surprisal(surprisal, sequence_.state(Sequence::StateOf::kSelector));
  if (evictor_ && evictor_->needs_surprisal())
    evictor_->surprisal(surprisal, sequence_.state(Sequence::StateOf::kEvictor));
}

void Session::evict(bool end) {
  if (evictor_) evictor_->evict(sequence_, end, {runtime().pool(), runtime().work().kernels});
}

Rows Session::rows_of(std::span<const int32_t> read) {
  Rows rows;
  rows.sequence = &sequence_;
  rows.policy = policy();
  rows.tokens = read;
  rows.stop = options_.stop;
  rows.hidden_layers = hidden_layers_;
  return rows;
}

int64_t Session::prefix_block() const { return (options_.chunk + kPageTokens - 1) / kPageTokens * kPageTokens; }

bool Session::shares_prefixes(const AppendOptions& options) const {
  return options_.share_prefixes && !landmarks() && !evictor_ && !options.on_logits && options.positions.empty();
}

int64_t Session::restore(std::span<const int32_t> tokens, const AppendOptions& options) {
  if (length() > 0) fail("restore: expected a session without tokens, found ", length());
  if (tokens.empty()) return 0;
  restored_ = 0;
  if (shares_prefixes(options))
    restored_ = engine_->restore_prefix(sequence_, sequence_options(options_), tokens, prefix_block());
  if (restored_ == 0 && uses_disk_cache(options))
    restored_ = engine_->restore_from_disk(sequence_, sequence_options(options_), cache_options(), tokens);
  return restored_;
}

/// Keeps the complete blocks that were read, for later sessions.
void Session::keep_prefixes(const AppendOptions& options) {
  if (shares_prefixes(options)) engine_->publish_prefix(sequence_, sequence_options(options_), prefix_block());
  if (uses_disk_cache(options) && length() % disk_block() == 0)
    engine_->store_on_disk(sequence_, sequence_options(options_), cache_options(), describe());
}

int64_t Session::next_chunk(int64_t tokens, const AppendOptions& options) const {
  // With a disk cache, chunks end at multiples of their size, so that blocks do not depend on the calls.
  const int64_t most = uses_disk_cache(options) ? options_.chunk - length() % options_.chunk : options_.chunk;
  return std::min(most, tokens);
}

void Session::append(std::span<const int32_t> tokens, const AppendOptions& options) {
  check(tokens);
  if (!options.positions.empty() && options.positions.size() != tokens.size())
    fail("positions: expected one for each of the ", tokens.size(), " tokens, found ", options.positions.size());
  if (landmarks() && !options.positions.empty())
    fail_usage("this model was trained with landmarks: expected tokens without explicit positions");
  const int64_t begin = length() == 0 ? restore(tokens, options) : 0;
  if (begin > 0 && options.progress) options.progress(begin);
  for (int64_t done = begin; done < std::ssize(tokens);) {
    const int64_t count = next_chunk(std::ssize(tokens) - done, options);
    const auto positions = options.positions.empty() ? options.positions : options.positions.subspan(done, count);
    read_chunk(tokens.subspan(done, count), positions, done, done + count == std::ssize(tokens), options);
    done += count;
    if (options.progress) options.progress(done);
  }
}

int64_t Session::rewind_to_prefix(std::span<const int32_t> prompt) {
  const std::vector<int32_t> held = ids();
  const int64_t common = std::ranges::mismatch(prompt, held).in1 - prompt.begin();
  const int64_t kept = std::min(common, std::ssize(prompt) - 1);
  rewind(length() - kept);
  return kept;
}

std::vector<int32_t> Session::ids() const {
  if (!landmarks()) return sequence_.ids().copy(0, length());
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < length(); ++i) ids.push_back(sequence_.ids()[landmarks().with(i)]);
  return ids;
}

Session Session::fork() const {
  if (draft_) fail("the session has an open draft: accept it first");
  return Session(*this, sequence_.fork());
}

Session Session::fork(const std::string& attend) const {
  Session forked = fork();
  if (attend == options_.attend) return forked;
  forked.options_.attend = attend;
  forked.set_selector(attend);
  forked.check_methods();
  return forked;
}

void Session::keep_hidden(std::vector<int> layers) {
  for (const int layer : layers)
    if (layer < 0 || layer > sequence_.layers())
      fail("hidden states: expected layers from 0 to ", sequence_.layers(), ", found ", layer);
  hidden_layers_ = std::move(layers);
  hidden_.clear();
}

std::span<const float> Session::hidden_of(int layer, std::span<const float> hidden) const {
  const auto found = std::ranges::find(hidden_layers_, layer);
  if (found == hidden_layers_.end()) return {};
  const size_t size = hidden.size() / hidden_layers_.size();
  return hidden.subspan((found - hidden_layers_.begin()) * size, size);
}

void Session::watch(AttentionWatcher* watcher) {
  if (watcher && landmarks())
    fail_usage(
        "this model was trained with landmarks: its attention cannot be shown, because it is not a single softmax");
  watcher_ = watcher;
}

/// Reads tokens again, in chunks, after the recurrent layers were rewound to an earlier checkpoint.
void Session::reread(std::span<const int32_t> ids) {
  if (std::ranges::count(ids, -1) > 0)
    fail(
        "cannot rewind: this model has recurrent layers and must read tokens again, but some were read as "
        "embeddings");
  for (int64_t done = 0; done < std::ssize(ids);) {
    const int64_t count = std::min<int64_t>(options_.chunk, std::ssize(ids) - done);
    Rows rows = rows_of(ids.subspan(done, count));
    engine_->forward({&rows, 1});
    rows.result.throw_if_failed();
    done += count;
  }
}

void Session::rewind(int64_t n) {
  if (draft_) fail("the session has an open draft: accept it first");
  if (n < 0 || n > length()) fail("cannot rewind ", n, " tokens of ", length());
  const int64_t kept = landmarks().with(length() - n), floor = sequence_.floor(kept);
  if (floor == kept) {
    sequence_.truncate(kept);
  } else {
    const std::vector<int32_t> ids = sequence_.ids().copy(floor, kept);
    Session copy = fork();  // keeps this session unchanged if reading fails
    copy.sequence_.truncate(floor);
    copy.reread(ids);
    sequence_ = std::move(copy.sequence_);
  }
  if (n > 0) {
    logits_.clear();
    hidden_.clear();
  }
}

void Session::move_to(int64_t position) { sequence_.move_to(position); }

void Session::mask(int64_t begin, int64_t end) { sequence_.mask(landmarks().with(begin), landmarks().with(end)); }

}  // namespace fathom
