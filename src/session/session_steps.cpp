// Forward passes of sessions: chunks of prompts, single tokens and drafts, alone and in batches.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "attend/methods.h"
#include "base/error.h"
#include "base/format.h"
#include "session/session.h"

namespace fathom {
namespace {

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

}  // namespace

struct Session::PromptChunk {
  std::vector<int32_t> tokens;   // without landmarks
  std::vector<int32_t> read;     // with landmarks
  std::vector<int64_t> visited;  // tokens whose logits are used
  std::vector<int64_t> row_of;   // their rows, which include landmarks
  std::vector<char> requested;   // for each of them, whether the caller requested its logits
  std::vector<float> nats;       // [tokens] surprisal, if a method needs it
  int64_t end = 0;               // the last row
  bool last = false;             // of the prompt
  Rows rows;
};

/// Prepares the rows of one chunk. first: index of its first token in the call of append; last: whether it is the
/// last chunk. options must outlive the chunk.
std::unique_ptr<Session::PromptChunk> Session::prepare_chunk(std::span<const int32_t> tokens,
                                                             std::span<const int64_t> positions, int64_t first,
                                                             bool last, const AppendOptions& options) {
  auto made = std::make_unique<PromptChunk>();
  PromptChunk& chunk = *made;
  const int64_t before = length(), count = std::ssize(tokens);
  chunk.tokens.assign(tokens.begin(), tokens.end());
  chunk.last = last;
  add_with_landmarks(tokens, before, chunk.read);
  chunk.rows = rows_of(chunk.read);
  chunk.rows.positions = positions;
  for (int64_t i = 0; i < count; ++i) {
    const bool request = options.on_logits && (!options.needs_logits || options.needs_logits(first + i));
    if (!request && !(needs_surprisal() && i + 1 < count)) continue;
    chunk.visited.push_back(i);
    chunk.requested.push_back(request);
    chunk.row_of.push_back(landmarks().with(before + i + 1) - landmarks().with(before) - 1);
  }
  chunk.nats.resize(needs_surprisal() ? count : 0);
  if (!chunk.nats.empty()) chunk.nats[0] = surprisal_or_nan(logits_, tokens[0]);
  chunk.rows.visited_rows = chunk.row_of;
  chunk.rows.visit = [&chunk, count, first, &options](size_t i, std::span<const float> logits) {
    const int64_t token = chunk.visited[i];
    if (!chunk.nats.empty() && token + 1 < count)
      chunk.nats[token + 1] = surprisal_of(logits, chunk.tokens[token + 1]);
    if (chunk.requested[i]) options.on_logits(first + token, logits);
  };
  chunk.end = std::ssize(chunk.read) - 1;
  if (last || needs_surprisal()) chunk.rows.output_rows = {&chunk.end, 1};
  return made;
}

/// Takes the results of a chunk that was read.
void Session::finish_chunk(const PromptChunk& chunk, RowsResult& result, const AppendOptions& options) {
  logits_ = std::move(result.logits);
  hidden_ = std::move(result.hidden);
  if (!chunk.nats.empty()) report_surprisal(chunk.nats);
  evict(chunk.last);
  keep_prefixes(options);
}

void Session::read_chunk(std::span<const int32_t> tokens, std::span<const int64_t> positions, int64_t first,
                         bool last, const AppendOptions& options) {
  const std::unique_ptr<PromptChunk> chunk = prepare_chunk(tokens, positions, first, last, options);
  engine_->forward({&chunk->rows, 1});
  if (chunk->rows.result.error) {
    logits_.clear();
    hidden_.clear();
    chunk->rows.result.throw_if_failed();
  }
  finish_chunk(*chunk, chunk->rows.result, options);
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
  const AppendOptions plain;  // of all chunks
  struct Member {
    size_t step;
    std::vector<int32_t> read;           // the token and the landmark after it
    std::unique_ptr<Draft> draft;        // null: tokens
    std::unique_ptr<PromptChunk> chunk;  // null: one token, or a draft
    std::vector<int64_t> output_rows;
  };
  std::vector<std::exception_ptr> errors(steps.size());
  std::vector<Member> members;
  members.reserve(steps.size());
  std::vector<Rows> batch;
  for (size_t i = 0; i < steps.size(); ++i) {
    Session& session = *steps[i].session;
    const std::span<const int32_t> tokens = steps[i].tokens;
    Member member{i, {}, {}, {}, {}};
    try {
      if (!steps[i].draft && !steps[i].prompt && tokens.size() != 1)
        fail("step: expected one token, found ", tokens.size());
      session.check(tokens);
      if (steps[i].draft) session.check_draft();
    } catch (...) {
      errors[i] = std::current_exception();
      continue;
    }
    if (steps[i].prompt) {
      member.chunk = session.prepare_chunk(tokens, {}, 0, steps[i].last, plain);
      batch.push_back(member.chunk->rows);
      members.push_back(std::move(member));
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
    if (members[m].chunk) {
      session.finish_chunk(*members[m].chunk, batch[m].result, plain);
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

}  // namespace fathom
