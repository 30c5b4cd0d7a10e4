#include "decode/drafts/pearl.h"

#include <algorithm>
#include <cmath>
#include <future>

#include "base/error.h"
#include "base/stopwatch.h"
#include "decode/continuation.h"
#include "decode/drafter.h"
#include "decode/drafts/draft_model.h"
#include "decode/drafts/grow.h"
#include "decode/verify.h"

namespace fathom {

DraftEntry pearl_method();

namespace {

/// Appends a chain to another one.
void append_chain(Draft& to, const Draft& chain, int count) {
  if (count == 0) return;
  for (int i = 0; i < count; ++i) {
    to.add(to.size() - 1, chain.tokens[i], chain.estimates[i]);
    if (chain.kind == DraftKind::kFixed) continue;
    to.distributions.resize(to.size() + 1);
    to.distributions[to.size() - 1] = chain.distributions[i];
  }
  to.kind = chain.kind;
}

/// Returns a chain without its first token.
Draft without_first(const Draft& chain) {
  Draft rest;
  rest.kind = chain.kind;
  for (int i = 1; i < chain.size(); ++i) rest.add(i - 2, chain.tokens[i], chain.estimates[i]);
  if (chain.kind != DraftKind::kFixed)
    rest.distributions.assign(chain.distributions.begin() + 1, chain.distributions.end());
  return rest;
}

}  // namespace

PearlLoop::PearlLoop(PearlModels& models, Sampler& sampler, PearlOptions options)
    : models_(models), sampler_(sampler), options_(options) {
  constexpr int kMost = DraftTree::kMaxNodes - 1;  // tokens of a block that the target reads as a draft
  if (options.length < 0 || options.length > kMost || options.max_length < 1 || options.max_length > kMost)
    fail_usage("pearl: expected a length from 0 to ", kMost, " and a max_length from 1 to ", kMost, ", found ",
               options.length, " and ", options.max_length);
}

/// Returns the number of tokens that are drafted in the next slot.
int PearlLoop::length() const {
  constexpr int kFirst = 4;  // before durations are known
  if (options_.length > 0) return options_.length;
  const double ratio = models_.cost_ratio();
  const double length = ratio > 0 && std::isfinite(ratio) ? std::round(ratio) : kFirst;
  return static_cast<int>(std::clamp(length, 1.0, static_cast<double>(options_.max_length)));
}

void PearlLoop::slot(std::vector<int32_t>& history, int64_t position, int64_t room,
                     const std::function<bool(int32_t)>& emit) {
  const bool post = !block_.empty();
  if (!post) block_.assign(1, history.back());
  // Without room for the whole block, the target reads a part of it and the new draft, which follows all of it,
  // cannot be used.
  const auto read = static_cast<size_t>(std::min<int64_t>(room, std::ssize(block_)));
  const int count = read == block_.size() ? length() : 0;
  std::vector<int32_t> text = history;
  text.insert(text.end(), block_.begin() + 1, block_.end());
  std::future<Draft> drafting;
  if (count > 0) drafting = std::async(std::launch::async, [&] { return models_.draft(text, count); });
  const std::vector<float> logits = models_.read(std::span(block_).first(read));
  try {
    const Draft next = count > 0 ? drafting.get() : Draft{};
    ++counts_.slots;
    counts_.pre_slots += !post;
    counts_.drafted += next.size();
    test(logits, static_cast<int>(read), next, history, position, emit);
  } catch (...) {
    models_.keep(0);
    throw;
  }
}

/// Tests the tokens of the block after the first one, and the first token of the next draft. Sets the next block.
void PearlLoop::test(std::span<const float> logits, int read, const Draft& next, std::vector<int32_t>& history,
                     int64_t position, const std::function<bool(int32_t)>& emit) {
  Draft tested;
  append_chain(tested, block_draft_, read - 1);
  append_chain(tested, next, std::min(next.size(), 1));
  const size_t vocabulary = logits.size() / static_cast<size_t>(read);
  const auto row = [&](int node) { return logits.subspan((node + 1) * vocabulary, vocabulary); };
  int emitted = 0;
  bool continues = true;
  const auto take = [&](int32_t token) {
    continues = emit(token);
    ++emitted;
    return continues && (next.size() == 0 || emitted < tested.size());  // no token after the last test
  };
  const auto accepted = std::ssize(verify(tested, row, sampler_, history, position, take));
  counts_.accepted += accepted;
  models_.keep(emitted);
  const bool passed = continues && next.size() > 0 && accepted == tested.size();
  block_ = passed ? next.tokens : std::vector<int32_t>();
  block_draft_ = passed ? without_first(next) : Draft{};
}

namespace {

/// Average duration, in which later measurements have more weight.
class Duration {
 public:
  void add(double seconds) {
    constexpr double kRate = 0.2;
    average_ = average_ > 0 ? average_ + kRate * (seconds - average_) : seconds;
  }
  double average() const { return average_; }

 private:
  double average_ = 0;
};

SessionOptions drafter_options(const Session& target, const PearlSetup& setup) {
  SessionOptions options = setup.options;
  options.stop = target.options().stop;
  return options;
}

/// A session of the target and a session of the drafter.
class PearlSessions final : public PearlModels {
 public:
  PearlSessions(Session& target, const PearlSetup& setup, const Tokenizer& tokenizer, Sampler& sampler)
      : target_(target),
        tokenizer_(tokenizer),
        sampler_(sampler),
        drafter_(setup.drafter, setup.runtime, drafter_options(target, setup)) {}

  void start(std::span<const int32_t> prompt) { drafter_.follow(prompt); }

  Draft draft(std::span<const int32_t> text, int n) override {
    if (tokenizer_.ends_generation(text.back()) || !drafter_.follow(text)) return {};
    const Stopwatch watch;
    DraftContext context{.tokens = text, .sampler = &sampler_, .position = position_ + std::ssize(text) - tokens_};
    GrowthTask task = growth_task(context, n, DraftRule::kReject);
    task.expand = drafter_.expand({.sampler = &sampler_, .history = text, .tokenizer = &tokenizer_});
    const int64_t before = drafter_.forwards();
    Draft draft = grow_chain(task, n);
    // the first token needs no pass after follow()
    if (drafter_.forwards() > before)
      token_.add(watch.seconds() / static_cast<double>(drafter_.forwards() - before));
    return draft;
  }

  std::vector<float> read(std::span<const int32_t> block) override {
    const Stopwatch watch;
    const std::span<const float> logits = target_.draft(DraftTree::chain(static_cast<int>(block.size())), block);
    pass_.add(watch.seconds());
    return {logits.begin(), logits.end()};
  }
  void keep(int n) override {
    std::vector<int> path(n);
    for (int i = 0; i < n; ++i) path[i] = i;
    target_.accept(path);
  }
  double cost_ratio() const override { return token_.average() > 0 ? pass_.average() / token_.average() : 0; }

  /// Sets the position of the token after a text of this many tokens.
  void set_position(int64_t tokens, int64_t position) {
    tokens_ = tokens;
    position_ = position;
  }

 private:
  Session& target_;
  const Tokenizer& tokenizer_;
  Sampler& sampler_;
  DraftModel drafter_;
  int64_t tokens_ = 0, position_ = 0;
  Duration pass_, token_;  // of a pass of the target, and of a drafted token
};

}  // namespace

std::optional<PearlChoice> find_pearl(std::span<const std::string> specs, const DraftSetup& setup) {
  for (const std::string& spec : specs) {
    const Spec parsed = parse_spec(spec);
    if (parsed.name != "pearl") continue;
    if (specs.size() > 1) fail_usage("--draft pearl works alone: expected no other --draft");
    const Values values = check_values(parsed, pearl_method().info.parameters);
    if (!values.has("file"))
      fail_usage("--draft pearl: expected file=FILE, a small model with the same vocabulary");
    check_drafts_work(*setup.session, "pearl");
    PearlChoice choice;
    choice.setup.drafter = open_draft_model("pearl", values.string("file"), setup);
    choice.setup.runtime = std::make_shared<Runtime>(static_cast<int>(values.integer("threads")));
    choice.options.length = static_cast<int>(values.integer("length"));
    return choice;
  }
  return std::nullopt;
}

Generated generate_pearl(Session& session, const PearlSetup& setup, const Tokenizer& tokenizer, Sampler& sampler,
                         std::span<const int32_t> prompt, const GenerateOptions& options, const PearlOptions& pearl,
                         const std::function<void(std::string_view)>& on_text, PearlCounts* counts) {
  if (setup.runtime.get() == &session.runtime())
    fail_usage("pearl: expected a runtime for the drafter that is not that of the target");
  if (setup.drafter->config().vocabulary != session.model().config().vocabulary)
    fail_usage("pearl: the drafter has ", setup.drafter->config().vocabulary, " tokens and the target ",
               session.model().config().vocabulary, ": expected the same vocabulary");
  Continuation continuation(tokenizer, options, on_text);
  std::vector<int32_t> history(prompt.begin(), prompt.end());
  PearlSessions models(session, setup, tokenizer, sampler);
  PearlLoop loop(models, sampler, pearl);
  const int64_t context = session.options().context;
  const StopToken* stop = session.options().stop;
  const auto emit = [&](int32_t token) {
    continuation.take(token);
    return !continuation.ended();
  };
  DraftReport report({"pearl"});
  double seconds = 0;
  int64_t steps = 0;
  if (!continuation.ended()) {
    history.push_back(sampler.sample(session.logits(), history, session.length()));
    continuation.take(history.back());
  }
  if (!continuation.ended()) models.start(prompt);
  while (!continuation.ended()) {
    const int64_t room = context > 0 ? context - session.length() : DraftTree::kMaxNodes;
    if (room < 1) break;
    const int64_t position = session.length() + 1, before = session.length();
    models.set_position(std::ssize(history), position);
    const PearlCounts earlier = loop.counts();
    const int64_t tokens = std::ssize(history);
    const Stopwatch watch;
    try {
      if (stop) stop->throw_if_requested();
      loop.slot(history, position, room, emit);
    } catch (const Error& error) {
      if (error.kind() != Error::Kind::kInterrupted) throw;
      continuation.end(StopReason::kInterrupted);
      break;
    }
    seconds += watch.seconds();
    steps += session.length() - before;
    report.add(loop.counts().drafted - earlier.drafted, loop.counts().accepted - earlier.accepted,
               std::ssize(history) - tokens);
  }
  Generated result = continuation.finish();
  result.steps = steps;
  result.forwards = loop.counts().slots;
  result.seconds = seconds;
  result.drafts = std::move(report);
  if (counts) *counts = loop.counts();
  return result;
}

DraftEntry pearl_method() {
  using Type = Parameter::Type;
  return {{.name = "pearl",
           .summary = "a small model drafts in a thread of its own, while the model verifies (fathom run); with "
                      "sampling the text has the same distribution",
           .paper = "PEARL: Parallel Speculative Decoding with Adaptive Draft Length, 2025",
           .exact = true,
           .needs = "a small model with the same vocabulary, and a free core",
           .time = "a pass of the model per slot; the drafts of a slot are made meanwhile",
           .memory = "weights and cache of the small model",
           .parameters = {{.name = "file", .type = Type::kString, .summary = "model file (GGUF)"},
                          {.name = "length",
                           .type = Type::kInt,
                           .default_value = "0",
                           .summary = "tokens per slot; 0: as many as the small model makes during a pass",
                           .min = 0,
                           .max = 16},
                          {.name = "threads",
                           .type = Type::kInt,
                           .default_value = "1",
                           .summary = "threads of the small model; leave cores free with -t",
                           .min = 1,
                           .max = 64}}},
          [](const Values&, const DraftSetup&) -> std::unique_ptr<DraftSource> {
            fail_usage("--draft pearl works in `fathom run` only; expected --draft model");
          }};
}

}  // namespace fathom
