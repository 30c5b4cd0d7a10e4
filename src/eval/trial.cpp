#include "eval/trial.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/stopwatch.h"
#include "context/methods.h"
#include "decode/continuation.h"
#include "decode/generation.h"
#include "eval/likelihood.h"
#include "eval/machine.h"

namespace fathom::eval {
namespace {

/// Maximum number of tokens of a sample whose distributions are compared. Limits the rows of logits that are kept.
constexpr size_t kComparedTokens = 64;
/// Minimum length of a common prefix that is read once in a session of its own.
constexpr int64_t kMinShared = 64;

double rate(double tokens, double seconds) { return seconds > 0 ? tokens / seconds : 0; }

/// Returns log Σ exp(logit) of a row. Throws Error if it is not finite.
double log_sum(std::span<const float> logits) {
  const double result = log_sum_exp(logits);
  if (!std::isfinite(result)) fail("the model's logits are not finite");
  return result;
}

/// Returns KL(p ‖ q) of the softmaxes of two rows, in nats.
double divergence(std::span<const float> p, std::span<const float> q) {
  const double p_sum = log_sum(p), q_sum = log_sum(q);
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double log_p = p[i] - p_sum;
    kl += std::exp(log_p) * (log_p - (q[i] - q_sum));
  }
  return std::max(kl, 0.0);  // rounding can make it slightly negative
}

int32_t most_likely(std::span<const float> logits) {
  return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
}

/// Returns the bytes of pages and recurrent states.
size_t cache_bytes(const Sequence& sequence) {
  size_t bytes = 0;
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    if (const PagedKv* kv = sequence.paged(layer)) bytes += kv->page_bytes();
    if (const RecurrentState* state = sequence.recurrent(layer)) bytes += state->bytes();
  }
  return bytes;
}

/// Counts the attention computed since its construction.
class AttentionMeter {
 public:
  explicit AttentionMeter(Runtime& runtime) : attention_(runtime.work().attention), before_(attention_.count()) {}
  AttentionCount count() const { return attention_.count() - before_; }

 private:
  const Attention& attention_;
  AttentionCount before_;
};

}  // namespace

/// Compares an answer with the baseline's. While both answers are equal, it uses the distributions of the answer's
/// own session, after that those of a replay.
class Trial::Comparison {
 public:
  Comparison(const Baseline* baseline, bool keep) : baseline_(baseline), keep_(keep) {}

  /// Records the logits at answer token `index` and the chosen token. Returns whether the rest of the baseline's
  /// answer must be read in a replay to continue the comparison.
  bool observe(size_t index, std::span<const float> logits, int32_t token) {
    tokens_.push_back(token);
    if (keep_ && index < kComparedTokens) kept_.emplace_back(logits.begin(), logits.end());
    if (!follows_ || !compares(index)) return false;
    compare(index, logits);
    follows_ = token == baseline_->tokens[index];
    return !follows_ && compares(index + 1);
  }
  bool compares(size_t index) const { return baseline_ && index < baseline_->logits.size(); }
  void compare(size_t index, std::span<const float> logits) {
    kl_ += divergence(baseline_->logits[index], logits);
    ++compared_;
  }
  int32_t baseline_token(size_t index) const { return baseline_->tokens[index]; }

  void finish(Outcome& outcome) const {
    outcome.tokens = tokens_;
    if (!baseline_) return;
    outcome.same = outcome.answer.text == baseline_->text ? 1.0 : 0.0;
    if (compared_ > 0) outcome.kl = kl_ / static_cast<double>(compared_);
  }
  Baseline baseline(const std::string& text) { return {text, tokens_, std::move(kept_)}; }

 private:
  const Baseline* baseline_;
  bool keep_, follows_ = true;
  std::vector<int32_t> tokens_;
  std::vector<std::vector<float>> kept_;
  double kl_ = 0;
  int64_t compared_ = 0;
};

std::string method_label(const MethodSpecs& method, const TrialOptions& options) {
  std::string label = method.label();
  if (options.share_prefill) label += " prefill=dense";
  for (const std::string& draft : options.draft.methods) label += " draft=" + draft;
  return label;
}

MethodSpecs TrialOptions::reading_method(const MethodSpecs& method, const Sample& sample) const {
  MethodSpecs reader = method;
  if (share_prefill && sample.mode == Sample::Mode::kGenerate) reader.attend = "dense";
  return reader;
}

int64_t unscored_tokens(const Sample& sample, const Prompt& prompt) {
  const bool forced = sample.mode == Sample::Mode::kForced && !prompt.scored.empty();
  return forced ? prompt.scored[0] - 1 : std::ssize(prompt.tokens) - 1;
}

Trial::Trial(const EvalModel& model, std::span<const Sample> samples, std::span<const Prompt> prompts,
             TrialOptions options, std::function<void(int64_t)> progress)
    : model_(model), samples_(samples), prompts_(prompts), options_(options), progress_(std::move(progress)) {
  if (samples.size() < 2 || samples[0].group.empty() || options.share_prefill) return;
  const std::vector<int32_t>& first = prompts[0].tokens;
  size_t common = first.size();
  for (size_t i = 1; i < samples.size(); ++i) {
    if (samples[i].group != samples[0].group) return;
    common =
        std::min(common, static_cast<size_t>(std::ranges::mismatch(first, prompts[i].tokens).in1 - first.begin()));
    common = std::min(common, prompts[i].tokens.size() - 1);
  }
  common = std::min(common, first.size() - 1);
  if (static_cast<int64_t>(common) >= kMinShared) shared_tokens_ = static_cast<int64_t>(common);
}

SessionOptions Trial::session_options(const MethodSpecs& method) const {
  SessionOptions options = SessionOptions::of(method);
  options.chunk = options_.chunk;
  options.adapters = model_.adapters;
  options.stop = &interrupt_token();
  return options;
}

/// Returns how many of the first `limit` tokens of a sample's prompt are taken from the read context; 0: there is
/// none.
int64_t Trial::taken(size_t sample, int64_t limit) const {
  if (!options_.read_context) return 0;
  const int64_t needed = unscored_tokens(samples_[sample], prompts_[sample]);
  return options_.read_context->taken(prompts_[sample].tokens, std::min(limit, needed));
}

/// Returns a session that holds the first `taken` tokens of the read context; an empty one if there is none.
Session Trial::begin(const MethodSpecs& method, int64_t taken) {
  if (!options_.read_context) return Session(model_.model, model_.runtime, session_options(method));
  const std::string key = method.label();
  auto found = opened_.find(key);
  if (found == opened_.end()) {
    Session session = options_.read_context->open(model_.model, model_.runtime, session_options(method));
    found = opened_.emplace(key, std::move(session)).first;
  }
  Session session = found->second.fork();
  session.rewind(session.length() - taken);
  return session;
}

void Trial::append(Session& session, std::span<const int32_t> tokens, const AppendOptions& options) {
  AppendOptions own = options;
  const int64_t before = tokens_read_;
  own.progress = [&](int64_t done) {
    tokens_read_ = before + done;
    if (progress_) progress_(tokens_read_);
    throw_if_interrupted();
  };
  session.append(tokens, own);
}

/// Returns a fork of the session that has read the first `tokens` tokens; reads them at the first call.
Session Trial::read_shared(const MethodSpecs& method, size_t sample, int64_t tokens, Outcome& outcome) {
  const MethodSpecs reader = options_.reading_method(method, samples_[sample]);
  const std::string key = concat(options_.share_prefill ? std::to_string(sample) : "all", " ", reader.label());
  outcome.context_tokens = taken(sample, tokens);
  auto found = shared_.find(key);
  if (found == shared_.end()) {
    const AttentionMeter meter(*model_.runtime);
    Session session = begin(reader, outcome.context_tokens);
    if (outcome.context_tokens < tokens)
      append(session, std::span(prompts_[sample].tokens).subspan(session.length(), tokens - session.length()));
    outcome.reading += meter.count();
    found = shared_.emplace(key, std::move(session)).first;
  }
  return found->second.fork(method.attend);
}

/// Reads the part of a sample's context that the method keeps, then the question. Sets `text` to these tokens.
Session Trial::read_kept(const MethodSpecs& method, const Reader& reader, size_t index, Outcome& outcome,
                         std::vector<int32_t>& text) {
  const Stopwatch watch;
  const AttentionMeter meter(*model_.runtime);
  Sample sample = samples_[index];
  const auto make = [&](int layers) {
    SessionOptions options = session_options(method);
    options.layers = layers;
    return Session(model_.model, model_.runtime, std::move(options));
  };
  ReaderContext with{make, *model_.tokenizer, model_.model->config().trained_context, {}};
  const int64_t before = tokens_read_;
  with.progress = [&](int64_t tokens) {
    tokens_read_ = before + tokens;
    throw_if_interrupted();
  };
  sample.context = reader.read(sample.context, sample.question + sample.lead, with);
  text = PromptMaker(*model_.tokenizer, model_.chat).make(sample, kPositionLimit).tokens;
  Session session = make(0);
  append(session, text);
  outcome.reading += meter.count();
  // tokens of the whole text, not only of the kept part: the rate that a user experiences
  outcome.prefill_tokens_per_second = rate(static_cast<double>(prompts_[index].tokens.size()), watch.seconds());
  return session;
}

/// Reads a sample's prompt and returns the session. Sets `text` to the tokens that it holds.
Session Trial::read(const MethodSpecs& method, size_t sample, Outcome& outcome, std::vector<int32_t>& text) {
  if (const auto reader = read_methods().make(method.read))
    return read_kept(method, *reader, sample, outcome, text);
  const Prompt& prompt = prompts_[sample];
  text = prompt.tokens;
  const int64_t shared = options_.share_prefill ? prompt.context_tokens : shared_tokens_;
  const Stopwatch watch;
  const int64_t before = tokens_read_;
  // with share_prefill, a prompt without a context is read under the method, not with dense attention
  if (shared == 0 && !options_.share_prefill) outcome.context_tokens = taken(sample, std::ssize(prompt.tokens));
  Session session =
      shared > 0 ? read_shared(method, sample, shared, outcome) : begin(method, outcome.context_tokens);
  const AttentionMeter meter(*model_.runtime);
  append(session, std::span(prompt.tokens).subspan(session.length()));
  outcome.reading += meter.count();
  outcome.prefill_tokens_per_second = rate(static_cast<double>(tokens_read_ - before), watch.seconds());
  return session;
}

std::vector<GenerateOptions> Trial::generate_options(std::span<const size_t> chosen) const {
  std::vector<GenerateOptions> options(chosen.size());
  for (size_t i = 0; i < chosen.size(); ++i) {
    options[i].max_tokens = samples_[chosen[i]].reserve;
    options[i].stop = samples_[chosen[i]].stop;
  }
  return options;
}

/// Decodes the sessions together, greedily, to the end of each answer. texts: the tokens that they hold.
void Trial::answer(std::span<const size_t> chosen, std::vector<Session>& sessions,
                   std::span<const std::vector<int32_t>> texts, std::span<Outcome> outcomes, bool compare) {
  if (options_.draft.methods.empty()) return answer_plainly(chosen, sessions, outcomes, compare);
  // A comparison needs the logits of every token, which only decoding without drafts provides.
  const bool plain = compare || options_.check_drafts;
  if (plain) {
    std::vector<Session> forks;
    for (const Session& session : sessions) forks.push_back(session.fork());
    answer_plainly(chosen, forks, outcomes, compare);
  }
  answer_with_drafts(chosen, sessions, texts, outcomes, plain);
}

/// Decodes with drafts. check: `outcomes` are those of the same samples without drafts.
void Trial::answer_with_drafts(std::span<const size_t> chosen, std::vector<Session>& sessions,
                               std::span<const std::vector<int32_t>> texts, std::span<Outcome> outcomes,
                               bool check) {
  const std::vector<GenerateOptions> options = generate_options(chosen);
  Sampler greedy;
  std::deque<Drafter> drafters;
  std::deque<Generation> generations;
  std::vector<Generation*> all;
  for (Session& session : sessions)
    drafters.emplace_back(options_.draft, DraftSetup{model_.model, model_.runtime, model_.tokenizer.get(), &session,
                                                     model_.draft_memory.get()});
  const AttentionMeter meter(*model_.runtime);
  const Stopwatch watch;
  for (size_t i = 0; i < chosen.size(); ++i)
    all.push_back(
        &generations.emplace_back(sessions[i], *model_.tokenizer, greedy, texts[i], options[i], &drafters[i]));
  while (std::ranges::any_of(all, [](const Generation* text) { return !text->ended(); })) Generation::advance(all);
  const double seconds = watch.seconds();
  throw_if_interrupted();
  const AttentionCount answering = meter.count();
  int64_t steps = 0;
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (generations[i].error()) std::rethrow_exception(generations[i].error());
    Generated generated = generations[i].finish();
    std::vector<int32_t>& tokens = generated.tokens;
    // the token that ended the text was not read: it is the best one after the session's last token
    if (generated.stop == StopReason::kEos)
      tokens.push_back(greedy.sample(sessions[i].logits(), {}, sessions[i].length()));
    if (check && tokens != outcomes[i].tokens) outcomes[i].plain_text = outcomes[i].answer.text;
    outcomes[i].answer.text = generated.text;
    outcomes[i].tokens = tokens;
    outcomes[i].stop = name(generated.stop);
    outcomes[i].tokens_per_forward =
        generated.forwards > 0 ? static_cast<double>(generated.steps) / static_cast<double>(generated.forwards) : 0;
    outcomes[i].answering = answering;
    outcomes[i].cache_bytes = cache_bytes(sessions[i].sequence());
    steps += generated.steps;
  }
  for (Outcome& outcome : outcomes) outcome.decode_tokens_per_second = rate(static_cast<double>(steps), seconds);
}

/// Decodes without drafts, and compares with the baseline or becomes it.
void Trial::answer_plainly(std::span<const size_t> chosen, std::vector<Session>& sessions,
                           std::span<Outcome> outcomes, bool compare) {
  const std::vector<GenerateOptions> options = generate_options(chosen);
  std::vector<Continuation> continuations;
  std::vector<Comparison> comparisons;
  std::vector<Replay> replays;
  for (size_t i = 0; i < chosen.size(); ++i) {
    const auto baseline = baselines_.find(chosen[i]);
    comparisons.emplace_back(baseline == baselines_.end() ? nullptr : &baseline->second, first_run_ && compare);
  }
  for (size_t i = 0; i < chosen.size(); ++i) continuations.emplace_back(*model_.tokenizer, options[i]);

  Sampler greedy;
  const AttentionMeter meter(*model_.runtime);
  double seconds = 0;
  int64_t steps = 0;
  for (size_t index = 0;; ++index) {
    std::vector<Session*> active;
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < chosen.size(); ++i) {
      if (continuations[i].ended()) continue;
      const int32_t token = greedy.sample(sessions[i].logits(), {}, sessions[i].length());
      if (comparisons[i].observe(index, sessions[i].logits(), token))
        replays.push_back({i, index, sessions[i].fork()});
      if (!continuations[i].take(token)) continue;
      active.push_back(&sessions[i]);
      tokens.push_back(token);
    }
    if (active.empty()) break;
    throw_if_interrupted();
    const Stopwatch watch;
    Session::step(active, tokens);
    seconds += watch.seconds();
    steps += static_cast<int64_t>(active.size());
  }
  const AttentionCount answering = meter.count();
  replay(replays, comparisons);
  for (size_t i = 0; i < chosen.size(); ++i) {
    const Generated generated = continuations[i].finish();
    outcomes[i].answer.text = generated.text;
    outcomes[i].stop = name(generated.stop);
    outcomes[i].decode_tokens_per_second = rate(static_cast<double>(steps), seconds);
    outcomes[i].answering = answering;
    outcomes[i].cache_bytes = cache_bytes(sessions[i].sequence());
    comparisons[i].finish(outcomes[i]);
    if (first_run_ && compare) baselines_[chosen[i]] = comparisons[i].baseline(generated.text);
  }
}

/// Reads the rest of the baselines' answers token by token, as in decoding, and compares the distributions at each
/// token.
void Trial::replay(std::vector<Replay>& replays, std::vector<Comparison>& comparisons) {
  while (!replays.empty()) {
    throw_if_interrupted();
    std::vector<Session*> sessions;
    std::vector<int32_t> tokens;
    for (Replay& replay : replays) {
      sessions.push_back(&replay.session);
      tokens.push_back(comparisons[replay.sample].baseline_token(replay.index));
    }
    Session::step(sessions, tokens);
    std::vector<Replay> unfinished;
    for (Replay& replay : replays) {
      Comparison& comparison = comparisons[replay.sample];
      comparison.compare(++replay.index, replay.session.logits());
      if (comparison.compares(replay.index + 1)) unfinished.push_back(std::move(replay));
    }
    replays = std::move(unfinished);
  }
}

/// Reads a whole prompt and measures the predictions of the scored tokens.
void Trial::force(const MethodSpecs& method, size_t sample, Outcome& outcome, bool compare) {
  const Prompt& prompt = prompts_[sample];
  outcome.answer.spans.resize(samples_[sample].scored.size());
  const auto found = baselines_.find(sample);
  const Baseline* baseline = found == baselines_.end() ? nullptr : &found->second;
  Baseline own;
  double kl = 0;
  // Every stride-th scored token is compared; next: index in prompt.scored.
  const size_t stride = prompt.scored.size() / kComparedTokens + 1;
  size_t compared = 0, same = 0, next = 0;
  AppendOptions append_options;
  const int64_t taken = this->taken(sample, std::ssize(prompt.tokens));
  outcome.context_tokens = taken;
  append_options.needs_logits = [&](int64_t row) {
    return std::ranges::binary_search(prompt.scored, taken + row + 1);
  };
  append_options.on_logits = [&](int64_t read_row, std::span<const float> logits) {
    const int64_t row = taken + read_row;
    const int32_t token = prompt.tokens[row + 1], best = most_likely(logits);
    SpanScore& span = outcome.answer.spans[prompt.span_of[next]];
    if (span.tokens == 0) span.position = row + 1;
    span.nll += log_sum(logits) - logits[token];
    span.correct = span.correct && best == token;
    ++span.tokens;
    if (baseline) same += best == baseline->tokens[next] ? 1 : 0;
    if (next % stride == stride - 1) {
      if (baseline) kl += divergence(baseline->logits[compared], logits), ++compared;
      if (first_run_ && compare) own.logits.emplace_back(logits.begin(), logits.end());
    }
    own.tokens.push_back(best);
    ++next;
  };
  Session session = begin(method, taken);
  const AttentionMeter meter(*model_.runtime);
  const Stopwatch watch;
  append(session, std::span(prompt.tokens).subspan(taken), append_options);
  outcome.prefill_tokens_per_second =
      rate(static_cast<double>(prompt.tokens.size()) - static_cast<double>(taken), watch.seconds());
  outcome.reading += meter.count();
  outcome.cache_bytes = cache_bytes(session.sequence());
  outcome.tokens = own.tokens;
  for (SpanScore& span : outcome.answer.spans) span.correct = span.correct && span.tokens > 0;
  if (baseline && next > 0) outcome.same = static_cast<double>(same) / static_cast<double>(next);
  if (compared > 0) outcome.kl = kl / static_cast<double>(compared);
  if (first_run_ && compare) baselines_[sample] = std::move(own);
}

std::vector<Outcome> Trial::run(const MethodSpecs& method, std::span<const size_t> chosen, bool compare) {
  std::vector<Outcome> outcomes(chosen.size());
  reset_peak_resident_bytes();
  tokens_read_ = 0;
  for (size_t begin = 0; begin < chosen.size();) {
    const size_t count = std::min<size_t>(options_.concurrency, chosen.size() - begin);
    const auto batch = chosen.subspan(begin, count);
    const auto results = std::span(outcomes).subspan(begin, count);
    std::vector<Session> sessions;
    std::vector<std::vector<int32_t>> texts;  // of the sessions
    for (size_t i = 0; i < count; ++i) {
      if (samples_[batch[i]].mode == Sample::Mode::kForced) {
        force(method, batch[i], results[i], compare);
      } else {
        sessions.push_back(read(method, batch[i], results[i], texts.emplace_back()));
      }
    }
    if (!sessions.empty()) answer(batch, sessions, texts, results, compare);
    begin += count;
  }
  if (!options_.share_prefill) shared_.clear();  // other methods need their own prefill
  for (Outcome& outcome : outcomes) outcome.peak_rss_bytes = peak_resident_bytes();
  first_run_ = false;
  return outcomes;
}

}  // namespace fathom::eval
