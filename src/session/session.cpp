#include "session/session.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

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

/// Returns the surprisal −ln p(token) in nats, p = softmax(logits).
float surprisal_of(std::span<const float> logits, int32_t token) {
  const float largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - largest));
  return static_cast<float>(std::log(sum) + largest - logits[token]);
}

/// Like surprisal_of, but returns NaN if there are no logits: for the first token of a sequence, or after a rewind.
float surprisal_or_nan(std::span<const float> logits, int32_t token) {
  return logits.empty() ? std::numeric_limits<float>::quiet_NaN() : surprisal_of(logits, token);
}

SequenceOptions sequence_options(const SessionOptions& options) {
  if (options.chunk < 1) fail_usage("chunk: expected at least 1 token, found ", options.chunk);
  if (options.disk_cache && options.chunk % kPageTokens != 0)
    fail_usage("--cache-disk needs a --chunk that is a multiple of ", kPageTokens, ", found ", options.chunk);
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

/// Reads one chunk. first: index of its first token in the call of append; last: whether it is the last chunk.
void Session::read_chunk(std::span<const int32_t> tokens, std::span<const int64_t> positions, int64_t first,
                         bool last, const AppendOptions& options) {
  const int64_t before = length(), count = std::ssize(tokens);
  std::vector<int32_t> read;
  add_with_landmarks(tokens, before, read);
  Rows rows = rows_of(read);
  rows.positions = positions;

  std::vector<int64_t> visited, row_of;  // tokens whose logits are used, and their rows (which include landmarks)
  std::vector<char> requested;           // for each of them, whether the caller requested its logits
  for (int64_t i = 0; i < count; ++i) {
    const bool request = options.on_logits && (!options.needs_logits || options.needs_logits(first + i));
    if (!request && !(needs_surprisal() && i + 1 < count)) continue;
    visited.push_back(i);
    requested.push_back(request);
    row_of.push_back(landmarks().with(before + i + 1) - landmarks().with(before) - 1);
  }
  std::vector<float> nats(needs_surprisal() ? count : 0);
  if (!nats.empty()) nats[0] = surprisal_or_nan(logits_, tokens[0]);
  rows.visited_rows = row_of;
  rows.visit = [&](size_t i, std::span<const float> logits) {
    const int64_t token = visited[i];
    if (!nats.empty() && token + 1 < count) nats[token + 1] = surprisal_of(logits, tokens[token + 1]);
    if (requested[i]) options.on_logits(first + token, logits);
  };
  const int64_t end = std::ssize(read) - 1;
  if (last || needs_surprisal()) rows.output_rows = {&end, 1};
  engine_->forward({&rows, 1});
  if (rows.result.error) {
    logits_.clear();
    hidden_.clear();
    rows.result.throw_if_failed();
  }
  logits_ = std::move(rows.result.logits);
  hidden_ = std::move(rows.result.hidden);
  if (!nats.empty()) report_surprisal(nats);
  evict(last);
}

void Session::append(std::span<const int32_t> tokens, const AppendOptions& options) {
  check(tokens);
  if (!options.positions.empty() && options.positions.size() != tokens.size())
    fail("positions: expected one for each of the ", tokens.size(), " tokens, found ", options.positions.size());
  if (landmarks() && !options.positions.empty())
    fail_usage("this model was trained with landmarks: expected tokens without explicit positions");
  const bool shares =
      options_.share_prefixes && !landmarks() && !evictor_ && !options.on_logits && options.positions.empty();
  const bool caches = uses_disk_cache(options);
  const int64_t block = (options_.chunk + kPageTokens - 1) / kPageTokens * kPageTokens;
  int64_t begin = 0;
  if (length() == 0) {
    if (shares) begin = engine_->restore_prefix(sequence_, sequence_options(options_), tokens, block);
    if (caches && begin == 0)
      begin = engine_->restore_from_disk(sequence_, sequence_options(options_), cache_options(), tokens);
    restored_ = begin;
    if (begin > 0 && options.progress) options.progress(begin);
  }
  for (int64_t done = begin; done < std::ssize(tokens);) {
    // With a disk cache, chunks end at multiples of their size, so that blocks do not depend on the calls.
    const int64_t limit = caches ? options_.chunk - length() % options_.chunk : options_.chunk;
    const int64_t count = std::min<int64_t>(limit, std::ssize(tokens) - done);
    const auto positions = options.positions.empty() ? options.positions : options.positions.subspan(done, count);
    read_chunk(tokens.subspan(done, count), positions, done, done + count == std::ssize(tokens), options);
    if (shares) engine_->publish_prefix(sequence_, sequence_options(options_), block);
    if (caches && length() % block == 0)
      engine_->store_on_disk(sequence_, sequence_options(options_), cache_options(), describe());
    done += count;
    if (options.progress) options.progress(done);
  }
}

/// Throws Error if the sessions cannot be read in one batch.
void Session::check_batch(std::span<const Step> steps) {
  for (size_t i = 0; i < steps.size(); ++i) {
    const Session &session = *steps[i].session, &first = *steps[0].session;
    if (&session.model() != &first.model() || &session.runtime() != &first.runtime())
      fail("step: expected sessions that share model and runtime; session ", i, " does not");
    if (session.sequence_.layers() != first.sequence_.layers())
      fail("step: expected sessions that run ", first.sequence_.layers(), " layers; session ", i, " runs ",
           session.sequence_.layers());
    for (const Step& other : steps.first(i))
      if (other.session == &session) fail("step: expected each session once; session ", i, " appears twice");
  }
}

/// Throws Error if the session cannot read a draft.
void Session::check_draft() const {
  if (landmarks()) fail_usage("this model was trained with landmarks: drafts are not supported");
  if (evictor_ && evictor_->needs_surprisal())
    fail_usage("--evict ", options_.evict, " needs the surprisal of each token: drafts are not supported");
  if (draft_shape() == DraftShape::kNone)
    fail_usage("--attend ", options_.attend, " does not work with drafts, expected ",
               or_list(attend_methods().names_with(&Capabilities::works_with_drafts)));
}

std::vector<std::exception_ptr> Session::try_steps(std::span<const Step> steps) {
  check_batch(steps);
  struct Member {
    size_t step;
    std::vector<int32_t> read;     // the token and the landmark after it
    std::unique_ptr<Draft> draft;  // null: one token
    std::vector<int64_t> output_rows;
  };
  std::vector<std::exception_ptr> errors(steps.size());
  std::vector<Member> members;
  members.reserve(steps.size());
  std::vector<Rows> batch;
  for (size_t i = 0; i < steps.size(); ++i) {
    Session& session = *steps[i].session;
    const std::span<const int32_t> tokens = steps[i].tokens;
    Member member{i, {}, {}, {}};
    try {
      if (!steps[i].draft && tokens.size() != 1) fail("step: expected one token, found ", tokens.size());
      session.check(tokens);
      if (steps[i].draft) session.check_draft();
    } catch (...) {
      errors[i] = std::current_exception();
      continue;
    }
    if (steps[i].draft) {
      member.draft = std::make_unique<Draft>();
      member.draft->open.tree = *steps[i].draft;
      member.draft->open.tokens.assign(tokens.begin(), tokens.end());
      member.draft->open.transfer = steps[i].transfer;
      member.draft->open.steps.assign(steps[i].transfer_steps.begin(), steps[i].transfer_steps.end());
      member.output_rows.resize(tokens.size());
      std::iota(member.output_rows.begin(), member.output_rows.end(), 0);
    } else {
      session.add_with_landmarks(tokens, session.length(), member.read);
      member.output_rows = {std::ssize(member.read) - 1};
    }
    members.push_back(std::move(member));
    Rows rows = session.rows_of(members.back().read);
    rows.output_rows = members.back().output_rows;
    if (members.back().draft) {
      rows.draft = &members.back().draft->open;
      rows.policy.watcher = nullptr;
    }
    batch.push_back(std::move(rows));
  }
  if (!batch.empty()) steps[members[0].step].session->engine_->forward(batch);
  for (size_t m = 0; m < members.size(); ++m) {
    Session& session = *steps[members[m].step].session;
    if (batch[m].result.error) {
      errors[members[m].step] = batch[m].result.error;
      continue;
    }
    if (members[m].draft) {
      members[m].draft->logits = std::move(batch[m].result.logits);
      members[m].draft->hidden = std::move(batch[m].result.hidden);
      session.draft_ = std::move(members[m].draft);
      continue;
    }
    const float nats =
        session.needs_surprisal() ? surprisal_or_nan(session.logits_, steps[members[m].step].tokens[0]) : 0;
    session.logits_ = std::move(batch[m].result.logits);
    session.hidden_ = std::move(batch[m].result.hidden);
    if (session.needs_surprisal()) session.report_surprisal({&nats, 1});
    session.evict(true);
  }
  return errors;
}

std::vector<std::exception_ptr> Session::try_step(std::span<Session* const> sessions,
                                                  std::span<const int32_t> tokens) {
  if (tokens.size() != sessions.size())
    fail("step: expected one token for each of the ", sessions.size(), " sessions, found ", tokens.size());
  std::vector<Step> steps;
  for (size_t i = 0; i < sessions.size(); ++i) steps.push_back({sessions[i], tokens.subspan(i, 1)});
  return try_steps(steps);
}

void Session::step(std::span<Session* const> sessions, std::span<const int32_t> tokens) {
  for (const std::exception_ptr& error : try_step(sessions, tokens))
    if (error) std::rethrow_exception(error);
}

Session::DraftShape Session::draft_shape() const {
  if (landmarks() || !attend_works_with_drafts_ || needs_surprisal()) return DraftShape::kNone;
  const bool state = sequence_.state(Sequence::StateOf::kSelector) || sequence_.has_recurrent_layers();
  return state ? DraftShape::kChain : DraftShape::kTree;
}

std::span<const float> Session::draft(const DraftTree& tree, std::span<const int32_t> tokens) {
  const Step step{this, tokens, &tree};
  if (const std::exception_ptr error = try_steps({&step, 1})[0]) std::rethrow_exception(error);
  return draft_->logits;
}

void Session::accept(std::span<const int> path) {
  if (!draft_) fail("cannot accept tokens: the session has no open draft");
  const std::unique_ptr<Draft> draft = std::move(draft_);
  Rows rows = rows_of({});
  rows.draft = &draft->open;
  engine_->accept(rows, path);
  if (path.empty()) return;
  const int64_t vocabulary = model().config().vocabulary;
  const auto row = draft->logits.begin() + path.back() * vocabulary;
  logits_.assign(row, row + vocabulary);
  const int64_t width = model().config().width, nodes = draft->open.tree.size();
  hidden_.clear();
  for (size_t i = 0; i < hidden_layers_.size(); ++i) {
    const auto from = draft->hidden.begin() + (static_cast<int64_t>(i) * nodes + path.back()) * width;
    hidden_.insert(hidden_.end(), from, from + width);
  }
  evict(true);
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
