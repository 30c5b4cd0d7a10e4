#include "session/engine.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <thread>

#include "base/content_hash.h"
#include "base/error.h"

namespace fathom {
namespace {

/// Rows whose logits are computed at once: 64 rows of a vocabulary of 128k take 32 MB.
constexpr size_t kLogitRows = 64;

int thread_count(int threads) {
  return threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int layers_to_run(const ModelConfig& model, int layers) {
  if (layers < 0 || layers > model.layers)
    fail_usage("expected 1 to ", model.layers, " of the model's layers, or 0 for all, found ", layers);
  return layers > 0 ? layers : model.layers;
}

}  // namespace

void append_top_logits(std::span<const float> logits, int k, std::vector<TokenLogit>& top) {
  const auto begin = std::ssize(top);
  const auto count = std::min<int64_t>(k, std::ssize(logits));
  for (int32_t id = 0; id < std::ssize(logits); ++id) {
    const float logit = logits[id];
    const bool full = std::ssize(top) - begin == count;
    if (full && !(logit > top.back().logit)) continue;
    if (full) top.pop_back();
    auto at = top.end();
    while (at - top.begin() > begin && logit > (at - 1)->logit) --at;
    top.insert(at, {id, logit});
  }
}

Runtime::Runtime(int threads) : Runtime(threads, kernels()) {}
Runtime::Runtime(int threads, const Kernels& table) : pool_(thread_count(threads)), work_(pool_, table) {}

Engine::Engine(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, EngineOptions options)
    : model_(std::move(model)),
      runtime_(std::move(runtime)),
      pages_(options.memory),
      checkpoint_budget_(std::make_shared<MemoryBudget>(options.checkpoints, "--checkpoints")) {}

/// Returns the model's rotary tables under a `--position` method, followed by a table without rotation. Caches
/// them.
std::vector<StateOptions::Rotations> Engine::rotations(const SequenceOptions& options) {
  const ModelConfig& model = model_->config();
  const int64_t context = options.context > 0 ? options.context : model.trained_context;
  std::vector<StateOptions::Rotations>& tables = rotations_[{options.position, context}];
  if (!tables.empty()) return tables;
  std::vector<RotaryConfig> configs = model.rotaries();
  const Spec spec = parse_spec(options.position);
  const auto& method = position_methods().find(spec);
  if (configs[0].dims == 0 && !method.info.exact)
    fail_usage("--position ", options.position, ": this model has no rotary positions, expected --position file");
  // Only the first config is scaled: windowed layers with their own rotary base never attend over long distances.
  method.make(check_values(spec, method.info.parameters), configs[0]);
  configs.emplace_back();
  std::vector<StateOptions::Rotations> made;
  for (const RotaryConfig& config : configs) {
    const auto both = std::make_shared<RotaryTables>(config, context);
    made.push_back({std::shared_ptr<PositionRotations>(both, &both->table), both->rotary.score_factor()});
  }
  tables = std::move(made);
  return tables;
}

/// Returns the adapters that have an effect.
std::vector<ScaledAdapter> Engine::scaled_adapters(const SequenceOptions& options) const {
  std::vector<ScaledAdapter> scaled;
  for (const AdapterScale& given : options.adapters) {
    if (!given.adapter || &given.adapter->model() != model_.get())
      fail_usage("adapter: expected one that was opened for the model of the engine");
    if (!std::isfinite(given.scale)) fail_usage("adapter: expected a finite scale, found ", given.scale);
    if (given.scale == 0) continue;
    // shares the ownership of the adapter, and with it of the model whose weights it refers to
    scaled.push_back({{given.adapter, &given.adapter->weights()}, given.scale});
  }
  return scaled;
}

Sequence Engine::new_sequence(const SequenceOptions& options) {
  const std::vector<StateOptions::Rotations> tables = rotations(options);
  const StateOptions states{pages_, cache_methods().make(options.cache), model_->config().landmarks.page_tokens(),
                            tables};
  return Sequence(model_->network().new_states(states, layers_to_run(model_->config(), options.layers)),
                  {.budget = checkpoint_budget_}, scaled_adapters(options), pages_.budget());
}

namespace {

/// Returns a hash of everything but the tokens on which blocks of a disk cache depend.
uint64_t disk_space(uint64_t prefix_space, const Engine::CacheOptions& cache, const std::string& isa) {
  ContentHash hash;
  hash.add(prefix_space);
  hash.add(cache.attend);
  hash.add(static_cast<uint64_t>(cache.chunk));
  hash.add(isa);
  return hash.value();
}

/// Returns a hash of the options on which the pages of given tokens depend. adapters: of the sequence.
uint64_t prefix_space(const SequenceOptions& options, std::span<const ScaledAdapter> adapters) {
  ContentHash hash;
  hash.add(options.position);
  hash.add(options.cache);
  hash.add(static_cast<uint64_t>(options.context));
  hash.add(static_cast<uint64_t>(options.layers));
  for (const ScaledAdapter& adapter : adapters) {
    hash.add(adapter.weights->hash());
    hash.add(uint64_t{std::bit_cast<uint32_t>(adapter.scale)});
  }
  return hash.value();
}

}  // namespace

int64_t Engine::restore_prefix(Sequence& sequence, const SequenceOptions& options, std::span<const int32_t> tokens,
                               int64_t block) {
  return pages_.prefixes(block).restore(sequence, tokens, prefix_space(options, sequence.adapters()));
}

void Engine::publish_prefix(const Sequence& sequence, const SequenceOptions& options, int64_t block) {
  pages_.prefixes(block).publish(sequence, prefix_space(options, sequence.adapters()));
}

int64_t Engine::restore_from_disk(Sequence& sequence, const SequenceOptions& options, const CacheOptions& cache,
                                  std::span<const int32_t> tokens) {
  const uint64_t space =
      disk_space(prefix_space(options, sequence.adapters()), cache, runtime_->work().kernels.isa);
  return cache.cache->restore(sequence, tokens, model_->fingerprint(), space, cache.block);
}

void Engine::store_on_disk(const Sequence& sequence, const SequenceOptions& options, const CacheOptions& cache,
                           const ContextInfo& info) {
  const uint64_t space =
      disk_space(prefix_space(options, sequence.adapters()), cache, runtime_->work().kernels.isa);
  cache.cache->store(sequence, space, cache.block, info);
}

void Engine::check_tokens(std::span<const int32_t> tokens) const {
  const int64_t vocabulary = model_->config().vocabulary;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocabulary) {
      fail("token ", i, ": expected an id from 0 to ", vocabulary - 1, ", found ", tokens[i]);
    }
  }
}

void Engine::check(const Rows& rows) const {
  const ModelConfig& model = model_->config();
  const int64_t count = rows.count(model.width);
  if (count == 0) fail("the prompt has no tokens");
  if (!rows.embeddings.empty() && std::ssize(rows.embeddings) != count * model.width)
    fail("embeddings: expected a multiple of the model width ", model.width, ", found ", rows.embeddings.size(),
         " numbers");
  if (rows.embeddings.empty()) check_tokens(rows.tokens);
  if (!rows.positions.empty() && std::ssize(rows.positions) != count)
    fail("positions: expected one for each of the ", count, " tokens, found ", rows.positions.size());
  for (const std::span<const int64_t> outputs : {rows.output_rows, rows.visited_rows}) {
    if (!outputs.empty() && (outputs.front() < 0 || outputs.back() >= count || !std::ranges::is_sorted(outputs)))
      fail("output rows: expected ascending indices from 0 to ", count - 1);
  }
  for (const int layer : rows.hidden_layers)
    if (layer < 0 || layer > rows.sequence->layers())
      fail("hidden states: expected layers from 0 to ", rows.sequence->layers(), ", found ", layer);
  if (rows.sequence->is_open()) fail("the sequence has an open draft: accept or abandon it first");
  if (rows.draft) check_draft(rows);
}

/// Discards the opened tokens of a member of a batch.
void Engine::abandon(const Rows& rows) {
  Sequence& sequence = *rows.sequence;
  sequence.abandon();
  if (OpenDraft* draft = rows.draft) {
    if (draft->selector_state) sequence.set_state(Sequence::StateOf::kSelector, std::move(draft->selector_state));
    draft->leaves.clear();
  }
}

/// Opens the sequence for its rows and extends the rotary tables to their positions. If it throws, the sequence is
/// unchanged.
Engine::Member Engine::open(Rows& rows) {
  check(rows);
  Sequence& sequence = *rows.sequence;
  Member member{&rows, {rows.positions.begin(), rows.positions.end()}};
  if (rows.draft) {
    open_draft(rows);
  } else {
    if (rows.positions.empty()) {
      member.positions.resize(rows.count(model_->config().width));
      std::iota(member.positions.begin(), member.positions.end(), sequence.next_position());
    }
    sequence.open(member.positions, rows.tokens);
  }
  int64_t end = sequence.end_position();
  if (rows.draft)
    for (const OpenDraft::Leaf& leaf : rows.draft->leaves) end = std::max(end, leaf.positions.back() + 1);
  try {
    for (int i = 0; i < sequence.layers(); ++i)
      if (PagedKv* kv = sequence.paged(i)) kv->reserve_rotations(end);
  } catch (...) {
    abandon(rows);
    throw;
  }
  return member;
}

void Engine::forward(std::span<Rows> batch) {
  for (Rows& rows : batch) {
    for (const Rows& other : batch.first(&rows - batch.data()))
      if (other.sequence == rows.sequence) fail("batch: expected each sequence once, found one twice");
    if (rows.sequence->layers() != batch[0].sequence->layers())
      fail("batch: expected sequences that run ", batch[0].sequence->layers(), " layers, found one that runs ",
           rows.sequence->layers());
  }
  std::vector<Member> members;
  members.reserve(batch.size());
  for (Rows& rows : batch) {
    rows.result = {};
    try {
      members.push_back(open(rows));
    } catch (...) {
      rows.result.error = std::current_exception();
    }
  }
  if (!members.empty()) run(members);
}

/// Returns hooks that stop the pass between layers once all members request it, that compute the states of pseudo
/// rows, and that copy the requested hidden states.
LayerHooks Engine::make_hooks(std::span<const Member> members) const {
  LayerHooks hooks;
  const auto transfers = [](const Member& m) { return m.rows->draft && m.rows->draft->transfer; };
  const bool stoppable = std::ranges::all_of(members, [](const Member& m) { return m.rows->stop != nullptr; });
  if (stoppable || std::ranges::any_of(members, transfers)) {
    hooks.before = [this, members, stoppable, transfers](int layer, float* hidden) {
      const auto stops = [](const Member& m) { return m.rows->stop->stop_requested(); };
      if (stoppable && std::ranges::all_of(members, stops)) members[0].rows->stop->throw_if_requested();
      for (const Member& member : members)
        if (transfers(member)) transfer_states(member, layer, hidden);
    };
  }
  if (std::ranges::any_of(members, [](const Member& m) { return !m.rows->hidden_layers.empty(); })) {
    hooks.after = [members, width = model_->config().width](int layer, const float* hidden) {
      for (const Member& member : members) {
        Rows& rows = *member.rows;
        if (!std::ranges::count(rows.hidden_layers, layer)) continue;
        for (const int64_t row : rows.output_rows) {
          const float* from = hidden + member.row(row) * width;
          rows.result.hidden.insert(rows.result.hidden.end(), from, from + width);
        }
      }
    };
  }
  return hooks;
}

/// Numbers the rows of the batch, and lists their tokens and the sequences that they belong to. Draft rows and
/// short members come first (ActivationBuffer::step_rows).
std::vector<SequenceRows> Engine::sequence_rows(std::span<Member> members, std::vector<int32_t>& tokens) const {
  std::vector<SequenceRows> sequences;
  const auto add_member = [&](Member& member) {
    const Rows& rows = *member.rows;
    member.first_row = std::ssize(tokens);
    SequenceRows s;
    s.policy = rows.policy;
    if (!rows.draft) {
      s.sequence = rows.sequence;
      s.first_row = member.first_row;
      s.rows = std::ssize(member.positions);
      s.positions = member.positions.data();
      s.embeddings = rows.embeddings.empty() ? nullptr : rows.embeddings.data();
      tokens.insert(tokens.end(), rows.tokens.begin(), rows.tokens.end());
      tokens.resize(member.first_row + s.rows);  // embeddings have no ids
      sequences.push_back(s);
      return;
    }
    s.draft = true;
    s.draft_queries = rows.draft->queries.layers.empty() ? nullptr : &rows.draft->queries;
    for (OpenDraft::Leaf& leaf : rows.draft->leaves) {
      s.sequence = leaf.fork ? leaf.fork.get() : rows.sequence;
      s.first_row = std::ssize(tokens);
      s.rows = std::ssize(leaf.path) - leaf.shared;
      s.positions = leaf.positions.data() + leaf.shared;
      s.draft_row = s.first_row - member.first_row;
      leaf.shared_rows.clear();
      for (const int node : std::span(leaf.path).first(leaf.shared)) leaf.shared_rows.push_back(member.row(node));
      s.shared_rows = leaf.shared_rows;
      for (const int node : std::span(leaf.path).subspan(leaf.shared)) tokens.push_back(rows.draft->tokens[node]);
      sequences.push_back(s);
    }
  };
  const auto steps = [](const Member& m) { return m.rows->draft || std::ssize(m.positions) <= kMatvecRows; };
  for (Member& member : members)
    if (steps(member)) add_member(member);
  for (Member& member : members)
    if (!steps(member)) add_member(member);
  return sequences;
}

void Engine::run(std::span<Member> members) {
  std::vector<int32_t> tokens;
  const std::vector<SequenceRows> sequences = sequence_rows(members, tokens);
  const int layers = members[0].rows->sequence->layers();
  try {
    model_->network().forward(runtime_->work(), sequences, tokens, layers, make_hooks(members));
  } catch (...) {
    for (const Member& member : members) {
      abandon(*member.rows);
      member.rows->result = {};
      member.rows->result.error = std::current_exception();
    }
    return;
  }
  for (const Member& member : members) {
    if (!member.rows->draft) member.rows->sequence->commit();
    if (std::ranges::count(member.rows->hidden_layers, layers) == 0) continue;
    for (const int64_t row : member.rows->output_rows) {
      const float* from = runtime_->work().normed.row(member.row(row));
      member.rows->result.hidden.insert(member.rows->result.hidden.end(), from, from + model_->config().width);
    }
  }
  compute_logits(members);
}

namespace {

/// Lists the rows with adapters. owners: of each row.
void set_adapted_rows(std::span<Rows* const> owners, std::vector<AdaptedRows>& adapted) {
  adapted.clear();
  for (int64_t row = 0; row < std::ssize(owners); ++row) {
    const auto adapters = owners[row]->sequence->adapters();
    if (adapters.empty()) continue;
    if (!adapted.empty() && adapted.back().end == row && adapted.back().adapters.data() == adapters.data()) {
      ++adapted.back().end;
    } else {
      adapted.push_back({row, row + 1, adapters});
    }
  }
}

}  // namespace

/// Passes the logits of visited rows to their callbacks, then stores those of output rows; kLogitRows rows at a
/// time.
void Engine::compute_logits(std::span<const Member> members) {
  Workspace& work = runtime_->work();
  const ModelConfig& model = model_->config();
  std::vector<float> logits;
  // owners: of each row. step_rows: see ActivationBuffer. Output rows may be those of steps and
  // drafts; many visited rows are not.
  const auto compute = [&](std::span<const int64_t> rows, std::span<Rows* const> owners, int64_t step_rows) {
    work.logit_rows.resize(std::ssize(rows), model.width, step_rows);
    for (size_t i = 0; i < rows.size(); ++i)
      std::copy_n(work.normed.row(rows[i]), model.width, work.logit_rows.row(static_cast<int64_t>(i)));
    set_adapted_rows(owners, work.adapted_rows);
    logits.resize(rows.size() * model.vocabulary);
    model_->network().logits(work, work.logit_rows, logits.data());
    if (!model.landmarks) return;
    // The session inserts landmarks itself, so a landmark must never be sampled: it gets the lowest logit of the
    // row.
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::span row = std::span(logits).subspan(i * model.vocabulary, model.vocabulary);
      row[model.landmark_token] = *std::ranges::min_element(row);
    }
  };
  const auto row_of = [&](size_t i) {
    return std::span<const float>(logits).subspan(i * model.vocabulary, model.vocabulary);
  };
  for (const Member& member : members) {
    const Rows& rows = *member.rows;
    for (size_t begin = 0; rows.visit && begin < rows.visited_rows.size(); begin += kLogitRows) {
      std::vector<int64_t> some;
      for (const int64_t row :
           rows.visited_rows.subspan(begin, std::min(kLogitRows, rows.visited_rows.size() - begin)))
        some.push_back(member.row(row));
      compute(some, std::vector<Rows*>(some.size(), member.rows), 0);
      for (size_t i = 0; i < some.size(); ++i) rows.visit(begin + i, row_of(i));
    }
  }
  std::vector<int64_t> outputs;
  std::vector<Rows*> owners;
  for (const Member& member : members) {
    for (const int64_t row : member.rows->output_rows) {
      outputs.push_back(member.row(row));
      owners.push_back(member.rows);
    }
  }
  for (size_t begin = 0; begin < outputs.size(); begin += kLogitRows) {
    const std::span<const int64_t> some =
        std::span(outputs).subspan(begin, std::min(kLogitRows, outputs.size() - begin));
    compute(some, std::span(owners).subspan(begin, some.size()), std::ssize(some));
    for (size_t i = 0; i < some.size(); ++i) {
      RowsResult& result = owners[begin + i]->result;
      const std::span<const float> row = row_of(i);
      if (owners[begin + i]->top_k > 0) {
        append_top_logits(row, owners[begin + i]->top_k, result.top);
      } else {
        result.logits.insert(result.logits.end(), row.begin(), row.end());
      }
    }
  }
}

}  // namespace fathom
