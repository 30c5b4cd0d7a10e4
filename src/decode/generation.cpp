#include "decode/generation.h"

#include <algorithm>

#include "base/error.h"
#include "base/stopwatch.h"
#include "decode/drafts/rapid.h"
#include "decode/knn_lm.h"

namespace fathom {

Generation::Generation(Session& session, const Tokenizer& tokenizer, Sampler& sampler,
                       std::span<const int32_t> prompt, const GenerateOptions& options, Drafter* drafter,
                       std::function<void(std::string_view)> on_text)
    : session_(session),
      sampler_(sampler),
      drafter_(drafter && *drafter ? drafter : nullptr),
      continuation_(tokenizer, options, std::move(on_text)),
      on_logprobs_(options.on_logprobs),
      top_logprobs_(options.top_logprobs),
      knn_(options.knn),
      max_tokens_(options.max_tokens),
      prompt_(std::ssize(prompt)),
      history_(prompt.begin(), prompt.end()) {
  if (ended()) return;
  if (drafter_) drafter_->start(prompt);
  history_.push_back(sampler_.sample(mixed(session_.logits(), session_.hidden()), history_, session_.length()));
  emit(history_.back());
  report_logprobs(session_.logits(), history_.back());
}

/// Reports the probability of a token of the text. logits: of the model, after the tokens before it.
void Generation::report_logprobs(std::span<const float> logits, int32_t token) {
  if (on_logprobs_ && !continuation_.is_end(token)) on_logprobs_(token_logprobs(logits, token, top_logprobs_));
}

bool Generation::emit(int32_t token) {
  ++emitted_;
  return continuation_.take(token);
}

/// Returns the logits of the target distribution after a token, without Draft::Pull. hidden: Session::hidden or
/// draft_hidden; row: of the token in it. Valid until the next call.
std::span<const float> Generation::mixed(std::span<const float> logits, std::span<const float> hidden,
                                         int64_t row) {
  if (!knn_) return logits;
  const ModelConfig& model = session_.model().config();
  mixed_.assign(logits.begin(), logits.end());
  const std::span<const float> states = session_.hidden_of(model.layers - 1, hidden);
  knn_->mix(states.empty() ? states : states.subspan(row * model.width, model.width), mixed_);
  return mixed_;
}

/// Prepares the next step: proposes a draft. Returns false if the text has ended.
bool Generation::prepare() {
  if (ended()) return false;
  const Stopwatch watch;
  const int64_t context = session_.options().context, length = session_.length();
  const StopToken* stop = session_.options().stop;
  if (context > 0 && length >= context) {
    continuation_.end(StopReason::kLength);
    return false;
  }
  if (stop && stop->stop_requested()) {
    continuation_.end(StopReason::kInterrupted);
    return false;
  }
  draft_ = {};
  if (drafter_) {
    int64_t most = std::min<int64_t>(DraftTree::kMaxNodes - 1, max_tokens_ - emitted_ - 1);
    if (context > 0) most = std::min(most, context - length - 1);
    if (most > 0) draft_ = drafter_->propose({history_, prompt_, &sampler_, length + 1}, static_cast<int>(most));
  }
  tree_tokens_.assign(1, history_.back());
  tree_probes_.assign(1, 0);
  if (draft_.size() > 0) tree_ = DraftTree::chain(1);
  for (int node = 0; node < draft_.size(); ++node) {
    tree_.add(draft_.tree.parent(node) + 1);
    tree_tokens_.push_back(draft_.tokens[node]);
    tree_probes_.push_back(draft_.is_probe(node) ? draft_.probes[node] : 0);
  }
  prepare_seconds_ = watch.seconds();
  return true;
}

std::vector<std::exception_ptr> Generation::advance(std::span<Generation* const> texts,
                                                    std::span<const Session::Step> prompts) {
  std::vector<Generation*> active;
  std::vector<Session::Step> steps;
  for (Generation* text : texts) {
    if (!text->prepare()) continue;
    active.push_back(text);
    const bool drafted = text->draft_.size() > 0;
    steps.push_back({&text->session_, text->tree_tokens_, drafted ? &text->tree_ : nullptr,
                     drafted ? text->draft_.transfer : nullptr, text->tree_probes_});
  }
  steps.insert(steps.end(), prompts.begin(), prompts.end());
  if (steps.empty()) return {};
  const Stopwatch watch;
  const std::vector<std::exception_ptr> errors = Session::try_steps(steps);
  const double seconds = watch.seconds() / static_cast<double>(steps.size());
  for (size_t i = 0; i < active.size(); ++i) active[i]->take_step(errors[i], seconds);
  return {errors.begin() + std::ssize(active), errors.end()};
}

/// Takes the result of the forward pass. seconds: share of the pass.
void Generation::take_step(std::exception_ptr error, double seconds) {
  try {
    if (error) std::rethrow_exception(error);
    take_outcome(seconds);
  } catch (const Error& failure) {
    continuation_.end(StopReason::kInterrupted);
    if (failure.kind() != Error::Kind::kInterrupted) error_ = std::current_exception();
  } catch (...) {
    continuation_.end(StopReason::kInterrupted);
    error_ = std::current_exception();
  }
}

void Generation::take_outcome(double seconds) {
  const Stopwatch watch;
  const int64_t vocabulary = session_.model().config().vocabulary, before = std::ssize(history_);
  const bool drafted = draft_.size() > 0;
  const NodeLogits logits = [&](int node) {
    return drafted ? session_.draft_logits().subspan((node + 1) * vocabulary, vocabulary) : session_.logits();
  };
  const NodeLogits target = [&](int node) {
    const std::span<const float> own =
        drafted ? mixed(logits(node), session_.draft_hidden(), node + 1) : mixed(logits(node), session_.hidden());
    if (draft_.pull.strength == 0 || draft_.pull.likely[node + 1].empty()) return own;
    pulled_ = enriched_logits(own, draft_.pull.likely[node + 1], draft_.pull.strength);
    return std::span<const float>(pulled_);
  };
  const int64_t position = session_.length() + (drafted ? 1 : 0);
  const std::vector<int> accepted =
      verify(draft_, target, sampler_, history_, position, [&](int32_t token) { return emit(token); });
  const std::span<const int32_t> emitted = std::span(history_).subspan(before);
  for (size_t i = 0; on_logprobs_ && i < emitted.size(); ++i)
    report_logprobs(logits(i == 0 ? -1 : accepted[i - 1]), emitted[i]);
  ++forwards_;
  // The last emitted token stays pending, also if it is an accepted node that ended the text.
  read_ += std::ssize(emitted);
  if (drafter_) {
    DraftOutcome outcome;
    outcome.tokens = history_;
    outcome.emitted = emitted;
    outcome.draft = &draft_;
    outcome.accepted = accepted;
    outcome.root = history_[before - 1];
    drafter_->observe(outcome, logits, seconds + watch.seconds());
  }
  if (drafted) {
    std::vector<int> path{0};
    for (const int node : accepted)
      if (std::ssize(path) < std::ssize(emitted)) path.push_back(node + 1);
    session_.accept(path);
  }
  seconds_ += prepare_seconds_ + seconds + watch.seconds();
}

Generated Generation::finish() {
  if (drafter_) drafter_->finish(history_);
  Generated result = continuation_.finish();
  result.steps = read_;
  result.forwards = forwards_;
  result.seconds = seconds_;
  if (drafter_) result.drafts = drafter_->report();
  return result;
}

}  // namespace fathom
