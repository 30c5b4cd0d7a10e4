#include "models/session.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <thread>

#include "attend/methods.h"
#include "base/error.h"
#include "base/format.h"
#include "evict/methods.h"
#include "mixers/output_norms.h"

namespace fathom {
namespace {

/// Rows whose logits are made at once: 64 rows of a vocabulary of 128k take 32 MB.
constexpr size_t kLogitRows = 64;

int threads_or_all(int threads) {
  return threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::shared_ptr<PageStore> make_store(const ModelConfig& config, const std::string& cache) {
  return std::make_shared<PageStore>(PageShape{cache_methods().make(cache), config.key_dim, config.value_dim});
}

/// The method that `spec` names, attached to a session's memory; null: none.
template <class Table>
auto make_attached(const Table& methods, const std::string& spec, const AttendContext& context) {
  auto method = methods.make(spec);
  if (method) method->attach(context);
  return method;
}

std::shared_ptr<const Selector> make_selector(const std::string& spec, Memory& memory,
                                              const AttendContext& context) {
  std::shared_ptr<const Selector> selector = make_attached(attend_methods(), spec, context);
  memory.set_state(Memory::StateOf::kSelector, selector->new_state());
  return selector;
}

std::shared_ptr<const Evictor> make_evictor(const std::string& spec, Memory& memory, const AttendContext& context) {
  std::shared_ptr<const Evictor> evictor = make_attached(evict_methods(), spec, context);
  if (evictor) memory.set_state(Memory::StateOf::kEvictor, evictor->new_state());
  return evictor;
}

/// Empty if one of the layers has no output projection.
OutputNorms output_norms_of(const std::shared_ptr<const Model>& model, const Kernels& table) {
  for (int layer = 0; layer < model->config().layers; ++layer)
    if (!model->network().output_projection(layer)) return {};
  return [model, &table](int layer, int64_t rows, const float* values, float* norms, ThreadPool& pool) {
    const ModelConfig& config = model->config();
    output_norms({config.heads, config.kv_heads, config.value_dim, model->network().output_projection(layer)}, rows,
                 values, norms, pool, table);
  };
}

int layers_to_run(const ModelConfig& model, int layers) {
  if (layers < 0 || layers > model.layers)
    fail_usage("expected 1 to ", model.layers, " of the model's layers to be run, or 0 for all, found ", layers);
  return layers > 0 ? layers : model.layers;
}

/// −ln p(token); p = softmax(logits).
float nats_of(std::span<const float> logits, int32_t token) {
  const float largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - largest));
  return static_cast<float>(std::log(sum) + largest - logits[token]);
}

}  // namespace

Runtime::Runtime(int threads) : Runtime(threads, kernels()) {}
Runtime::Runtime(int threads, const Kernels& table) : pool_(threads_or_all(threads)), work_(pool_, table) {}

const MethodTable<CacheMethod>& cache_methods() {
  const auto method = [](const char* name, const char* summary, bool exact, const char* bytes, CacheMethod* make) {
    return MethodTable<CacheMethod>::Entry{{"", name, summary, "", exact, "any model", "none", bytes, {}}, make};
  };
  static const MethodTable<CacheMethod> table(
      "cache", {method("bf16", "keys and values as bfloat16", true, "2 bytes per element",
                       [](const Values&) { return PageFormat::kBF16; }),
                method("f32", "keys and values as float32, for tests", true, "4 bytes per element",
                       [](const Values&) { return PageFormat::kF32; }),
                method("q8", "keys and values in 8 bits, one scale per token and 32 dimensions", false,
                       "17/16 bytes per element", [](const Values&) { return PageFormat::kQ8; }),
                method("q4", "keys and values in 4 bits, one scale per token and 32 dimensions", false,
                       "9/16 bytes per element", [](const Values&) { return PageFormat::kQ4; })});
  return table;
}

Session::Session(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime, SessionOptions options)
    : model_(std::move(model)),
      runtime_(std::move(runtime)),
      options_(std::move(options)),
      memory_(make_store(model_->config(), options_.cache), layers_to_run(model_->config(), options_.layers),
              model_->config().kv_heads, landmarks().page_tokens()) {
  selector_ = make_selector(options_.attend, memory_, attend_context());
  evictor_ = make_evictor(options_.evict, memory_, attend_context());
  check_methods();
  if (options_.chunk < 1) fail_usage("the chunk must be at least 1 token, found ", options_.chunk);
  if (options_.context < 0) fail_usage("the context limit must not be negative, found ", options_.context);
  RotaryConfig config = model_->config().rotary;
  const Spec spec = parse_spec(options_.position);
  const auto& method = position_methods().find(spec);
  if (config.dims == 0 && !method.info.exact)
    fail_usage("--position ", options_.position, ": this model has no rotary positions");
  method.make(check_values(spec, method.info.parameters), config);
  rotary_ =
      std::make_shared<Rotary>(config, options_.context > 0 ? options_.context : model_->config().trained_context);
  rotations_ = std::make_shared<PlaceRotations>(*rotary_);
}

AttendContext Session::attend_context() const {
  return {memory_.shared_store(),
          model_->config().layers,
          model_->config().heads,
          memory_.kv_heads(),
          output_norms_of(model_, runtime_->work().kernels),
          model_->config().softplus,
          landmarks()};
}

void Session::check_methods() const {
  const Capabilities attend = attend_methods().capabilities(options_.attend);
  if (landmarks() && !attend.works_with_landmarks) {
    fail_usage("--attend ", options_.attend, ": this model was trained with landmarks, expected ",
               or_list(attend_methods().names_with(&Capabilities::works_with_landmarks)));
  }
  if (landmarks() && !evict_methods().capabilities(options_.evict).works_with_landmarks) {
    fail_usage("--evict ", options_.evict, ": this model was trained with landmarks, expected ",
               or_list(evict_methods().names_with(&Capabilities::works_with_landmarks)));
  }
  if (!evictor_ || !evictor_->moves_tokens() || attend.works_with_compacted) return;
  fail_usage("--evict ", options_.evict, " moves tokens, but --attend ", options_.attend,
             " remembers where they are: expected places=true, or --attend with ",
             or_list(attend_methods().names_with(&Capabilities::works_with_compacted)));
}

void Session::check(std::span<const int32_t> tokens) const {
  if (tokens.empty()) fail("the prompt has no tokens");
  const int64_t vocabulary = model_->config().vocabulary;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocabulary) {
      fail("token ", tokens[i], " (number ", i, ") is outside the vocabulary of ", vocabulary, " tokens");
    }
  }
  const int64_t wanted = length() + static_cast<int64_t>(tokens.size());
  if (options_.context > 0 && wanted > options_.context) {
    fail(wanted, " tokens are more than the context limit of ", options_.context, " (-c)");
  }
}

void Session::add_with_landmarks(std::span<const int32_t> tokens, int64_t before, std::vector<int32_t>& out) const {
  for (const int32_t token : tokens) {
    out.push_back(token);
    if (landmarks() && ++before % landmarks().tokens == 0) out.push_back(model_->config().landmark_token);
  }
}

/// Opens the memory for tokens at these positions; on failure it holds what it held before.
SequenceRows Session::open_rows(std::span<const int64_t> positions, int64_t first_row) {
  try {
    memory_.append(positions);
    rotations_->reserve(memory_.end_position());
  } catch (...) {
    memory_.rewind(0);
    throw;
  }
  return {&memory_,
          rotations_.get(),
          rotary_->score_factor(),
          selector_.get(),
          evictor_.get(),
          watcher_,
          first_row,
          static_cast<int64_t>(positions.size()),
          positions.data()};
}

bool Session::wants_surprisal() const {
  return selector_->wants_surprisal() || (evictor_ && evictor_->wants_surprisal());
}

/// Of the chunk just read; logits_ are those of the token before it, or empty.
void Session::note_surprisal(std::span<const int32_t> tokens) {
  if (!wants_surprisal()) return;
  std::vector<float> nats(tokens.size()), logits;
  nats[0] = logits_.empty() ? std::numeric_limits<float>::quiet_NaN() : nats_of(logits_, tokens[0]);
  const int64_t vocabulary = model_->config().vocabulary;
  std::vector<int64_t> rows;
  for (size_t begin = 0; begin + 1 < tokens.size(); begin += rows.size()) {
    rows.resize(std::min(kLogitRows, tokens.size() - 1 - begin));
    std::iota(rows.begin(), rows.end(), static_cast<int64_t>(begin));
    logits_of(rows, logits);
    runtime_->pool().parallel_for(rows.size(), [&](size_t i, int) {
      nats[begin + i + 1] = nats_of(std::span(logits).subspan(i * vocabulary, vocabulary), tokens[begin + i + 1]);
    });
  }
  report_surprisal(nats);
}

void Session::report_surprisal(std::span<const float> nats) {
  const Surprisal surprisal{length() - std::ssize(nats), nats};
  if (selector_->wants_surprisal()) selector_->surprisal(surprisal, memory_.state(Memory::StateOf::kSelector));
  if (evictor_ && evictor_->wants_surprisal())
    evictor_->surprisal(surprisal, memory_.state(Memory::StateOf::kEvictor));
}

void Session::evict(bool end) {
  if (evictor_) evictor_->evict(memory_, end, {runtime_->pool(), runtime_->work().kernels, *rotations_});
}

/// Reads one chunk; the normed output of its rows is then in the workspace.
void Session::read_chunk(std::span<const int32_t> tokens, std::span<const int64_t> positions) {
  const SequenceRows rows = open_rows(positions, 0);
  try {
    model_->network().forward(runtime_->work(), {&rows, 1}, tokens, memory_.layers());
  } catch (...) {
    memory_.rewind(static_cast<int64_t>(tokens.size()));
    logits_.clear();
    throw;
  }
}

void Session::append(std::span<const int32_t> tokens, const AppendOptions& options) {
  check(tokens);
  if (!options.positions.empty() && options.positions.size() != tokens.size()) {
    fail("expected a position for each of the ", tokens.size(), " tokens, found ", options.positions.size());
  }
  if (landmarks() && !options.positions.empty())
    fail_usage("this model was trained with landmarks: expected tokens without positions of their own");
  std::vector<int64_t> following;
  std::vector<int32_t> read;
  for (int64_t done = 0; done < static_cast<int64_t>(tokens.size());) {
    const int64_t rows = std::min<int64_t>(options_.chunk, tokens.size() - done);
    const std::span<const int32_t> chunk = tokens.subspan(done, rows);
    read.clear();
    add_with_landmarks(chunk, length(), read);
    std::span<const int64_t> positions;
    if (options.positions.empty()) {
      following.resize(read.size());
      std::iota(following.begin(), following.end(), memory_.next_position());
      positions = following;
    } else {
      positions = options.positions.subspan(done, rows);
    }
    read_chunk(read, positions);
    note_surprisal(chunk);
    logits_.clear();
    if (options.each_row) visit_rows(done, rows, options);
    done += rows;
    const bool end = done == std::ssize(tokens);
    const int64_t last = std::ssize(read) - 1;
    if (end || wants_surprisal()) logits_of({&last, 1}, logits_);
    evict(end);
    if (options.progress) options.progress(done);
  }
}

/// Logits of some rows of the chunk just read: [rows, vocabulary].
void Session::logits_of(std::span<const int64_t> rows, std::vector<float>& logits) {
  const ModelConfig& config = model_->config();
  Workspace& work = runtime_->work();
  work.chosen.resize(static_cast<int64_t>(rows.size()), config.width);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(work.normed.row(rows[i]), config.width, work.chosen.row(static_cast<int64_t>(i)));
  }
  logits.resize(rows.size() * config.vocabulary);
  model_->network().logits(work, work.chosen, logits.data());
  if (!landmarks()) return;
  for (size_t i = 0; i < rows.size(); ++i) {  // when a landmark comes is not the caller's business
    const std::span row = std::span(logits).subspan(i * config.vocabulary, config.vocabulary);
    row[config.landmark_token] = *std::ranges::min_element(row);
  }
}

/// Hands on the logits of the wanted rows of the chunk just read, made a few rows at a time.
void Session::visit_rows(int64_t first, int64_t rows, const AppendOptions& options) {
  const int64_t vocabulary = model_->config().vocabulary;
  const int64_t before = length() - rows;  // tokens before the chunk
  std::vector<int64_t> wanted, read_rows;  // of the tokens; where what follows them was read
  for (int64_t r = 0; r < rows; ++r) {
    if (options.wants && !options.wants(first + r)) continue;
    wanted.push_back(r);
    read_rows.push_back(landmarks().with(before + r + 1) - landmarks().with(before) - 1);
  }
  std::vector<float> logits;
  for (size_t begin = 0; begin < wanted.size(); begin += kLogitRows) {
    const size_t count = std::min(kLogitRows, wanted.size() - begin);
    logits_of(std::span(read_rows).subspan(begin, count), logits);
    for (size_t i = 0; i < count; ++i) {
      options.each_row(first + wanted[begin + i], std::span(logits).subspan(i * vocabulary, vocabulary));
    }
  }
}

void Session::step(std::span<Session* const> sessions, std::span<const int32_t> tokens) {
  if (tokens.size() != sessions.size())
    fail("expected a token for each of the ", sessions.size(), " sessions, found ", tokens.size());
  if (sessions.empty()) return;
  Session& lead = *sessions[0];
  std::vector<int32_t> read;
  std::vector<int64_t> positions, last;  // of all rows; each session's last row
  for (size_t i = 0; i < sessions.size(); ++i) {
    if (sessions[i]->model_ != lead.model_ || sessions[i]->runtime_ != lead.runtime_)
      fail("sessions that step together must share model and runtime");
    if (sessions[i]->memory_.layers() != lead.memory_.layers())
      fail("sessions that step together must run the same layers");
    if (std::find(sessions.begin(), sessions.begin() + i, sessions[i]) != sessions.begin() + i)
      fail("session ", i, " is in this step twice: a session reads one token a step");
    sessions[i]->check(tokens.subspan(i, 1));
    sessions[i]->add_with_landmarks(tokens.subspan(i, 1), sessions[i]->length(), read);
    int64_t position = sessions[i]->memory_.next_position();
    while (positions.size() < read.size()) positions.push_back(position++);
    last.push_back(std::ssize(read) - 1);
  }
  std::vector<SequenceRows> rows;
  Workspace& work = lead.runtime_->work();
  try {
    for (size_t i = 0; i < sessions.size(); ++i) {
      const int64_t begin = i > 0 ? last[i - 1] + 1 : 0;
      rows.push_back(sessions[i]->open_rows(std::span(positions).subspan(begin, last[i] + 1 - begin), begin));
    }
    lead.model_->network().forward(work, rows, read, lead.memory_.layers());
  } catch (...) {
    for (size_t i = 0; i < rows.size(); ++i) sessions[i]->memory_.rewind(rows[i].rows);
    throw;
  }
  const ModelConfig& config = lead.model_->config();
  std::vector<float> logits;
  lead.logits_of(last, logits);
  for (size_t i = 0; i < sessions.size(); ++i) {
    Session& session = *sessions[i];
    if (session.wants_surprisal()) {
      const float nats =
          session.logits_.empty() ? std::numeric_limits<float>::quiet_NaN() : nats_of(session.logits_, tokens[i]);
      session.report_surprisal({&nats, 1});
    }
    session.logits_.assign(logits.begin() + i * config.vocabulary, logits.begin() + (i + 1) * config.vocabulary);
    session.evict(true);
  }
}

Session::Session(const Session& other, Memory memory)
    : model_(other.model_),
      runtime_(other.runtime_),
      options_(other.options_),
      rotary_(other.rotary_),
      rotations_(other.rotations_),
      selector_(other.selector_),
      evictor_(other.evictor_),
      memory_(std::move(memory)),
      logits_(other.logits_) {}

Session Session::fork() const { return Session(*this, memory_.fork()); }

Session Session::fork(const std::string& attend) const {
  Session forked = fork();
  if (attend == options_.attend) return forked;
  forked.options_.attend = attend;
  forked.selector_ = make_selector(attend, forked.memory_, attend_context());
  forked.check_methods();
  return forked;
}

void Session::watch(AttentionWatcher* watcher) {
  if (watcher && landmarks())
    fail_usage(
        "this model was trained with landmarks: what it attends to cannot be shown, as no single softmax makes "
        "its shares");
  watcher_ = watcher;
}

void Session::rewind(int64_t n) {
  memory_.rewind(memory_.tokens() - landmarks().with(length() - n));
  if (n > 0) logits_.clear();
}

void Session::place(int64_t position) {
  memory_.place(position);
  rotations_->reserve(memory_.end_position());
}

void Session::fill_random(int64_t n) {
  const ModelConfig& config = model_->config();
  std::vector<float> noise(std::max(config.key_dim, config.value_dim));
  uint32_t state = 12345;
  for (float& v : noise) {
    state = state * 1664525u + 1013904223u;
    v = static_cast<float>(state >> 8) / static_cast<float>(1 << 23) - 1.0f;
  }
  n = landmarks().with(length() + n) - memory_.tokens();
  std::vector<int64_t> positions(n);
  std::iota(positions.begin(), positions.end(), memory_.next_position());
  open_rows(positions, 0);
  runtime_->pool().parallel_for(static_cast<size_t>(memory_.layers()) * memory_.kv_heads(), [&](size_t lane, int) {
    // stride 0: one key and value for all tokens, which the rotations by their offsets make different. A key for
    // each token would scatter what selectors choose more than text does: they would be timed as too slow.
    memory_.write(runtime_->work().kernels, static_cast<int>(lane) / memory_.kv_heads(),
                  static_cast<int>(lane) % memory_.kv_heads(), n, noise.data(), 0, noise.data(), 0, *rotations_);
  });
  logits_.clear();
}

void Session::hide(int64_t begin, int64_t end) {
  memory_.hide(-1, 0, landmarks().with(begin), landmarks().with(end));
}

}  // namespace fathom
