#include "bench_timing.h"

#include <algorithm>

#include "base/interrupt.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "eval/machine.h"

namespace fathom {
namespace {

/// Number of tokens of the longer warm-up. It fills caches and working memory; more tokens have no further effect.
constexpr int64_t kWarmUpTokens = 512;
/// The longer warm-up is made only if it is expected to take at most this share of the time.
constexpr double kWarmUpShare = 0.25;

class RunTimer {
 public:
  RunTimer(const BenchTest& test, std::span<const Sessions> methods, std::span<const int32_t> tokens,
           const TimingLimits& limits, Runtime& runtime)
      : test_(test),
        methods_(methods),
        tokens_(tokens),
        runs_(limits.runs),
        budget_(limits.seconds * static_cast<double>(methods.size())),
        runtime_(runtime),
        warm_up_(std::min(test.tokens, test.min_tokens)),
        progress_("timing " + test.label, "tokens",
                  std::ssize(methods) * (warm_up_ + longer_warm_up() + limits.runs * test.tokens)) {}

  Timing time() {
    const double waited_before = eval::seconds_waited();
    warm_up();
    Timing timing;
    timing.tokens = fitting_tokens();
    timing.methods.resize(methods_.size());
    progress_.reduce_total(std::ssize(methods_) * runs_ * (test_.tokens - timing.tokens));
    double last = 0;
    for (int64_t run = 0; run < runs_ && (run == 0 || fits(last)); ++run) last = round(timing.tokens, &timing);
    timing.waited_share = (eval::seconds_waited() - waited_before) / (watch_.seconds() * runtime_.pool().threads());
    return timing;
  }

 private:
  /// Returns the tokens of the second warm-up; 0: none is needed.
  int64_t longer_warm_up() const {
    const int64_t longer = std::min(test_.tokens, kWarmUpTokens);
    return longer > warm_up_ ? longer : 0;
  }

  /// Makes a short warm-up, whose time predicts the time of runs, then a longer one if there is time.
  void warm_up() {
    warm_up_seconds_ = round(warm_up_);
    const int64_t longer = longer_warm_up();
    if (longer == 0) return;
    if (expected_seconds(longer) > kWarmUpShare * budget_) {
      progress_.reduce_total(std::ssize(methods_) * longer);
      return;
    }
    warm_up_seconds_ = round(longer);
    warm_up_ = longer;
  }

  bool fits(double seconds) const { return watch_.seconds() + seconds <= budget_; }
  /// Returns the expected seconds of a round with runs of `tokens` tokens.
  double expected_seconds(int64_t tokens) const {
    return warm_up_seconds_ * test_.work(tokens) / test_.work(warm_up_);
  }

  int64_t fitting_tokens() const {
    int64_t tokens = test_.tokens;
    while (tokens > test_.min_tokens && !fits(expected_seconds(tokens)))
      tokens = std::max(test_.min_tokens, tokens / 2);
    return tokens;
  }

  /// Makes one run of each method and adds the times to `timing` unless it is null. Returns the total seconds.
  double round(int64_t tokens, Timing* timing = nullptr) {
    const Stopwatch all;
    for (size_t m = 0; m < methods_.size(); ++m) {
      throw_if_interrupted();
      Sessions forks;
      for (const Session& session : methods_[m]) forks.push_back(session.fork());
      progress_.update(done_);  // a run may take long before it reports progress
      const AttentionCount attention_before = runtime_.work().attention.count();
      const Stopwatch watch;
      test_.run(forks, tokens_.first(tokens), [&](int64_t done) {
        progress_.update(done_ + done);
        throw_if_interrupted();
      });
      const double seconds = watch.seconds();
      done_ += tokens;
      if (!timing) continue;
      timing->methods[m].seconds.push_back(seconds);
      timing->methods[m].attention += runtime_.work().attention.count() - attention_before;
    }
    return all.seconds();
  }

  const BenchTest& test_;
  std::span<const Sessions> methods_;
  std::span<const int32_t> tokens_;
  int64_t runs_;
  double budget_;  // seconds of all methods together
  Runtime& runtime_;
  int64_t warm_up_;  // tokens of the last warm-up
  double warm_up_seconds_ = 0;
  Progress progress_;
  int64_t done_ = 0;  // tokens of finished runs
  Stopwatch watch_;
};

}  // namespace

Timing time_runs(const BenchTest& test, std::span<const Sessions> methods, std::span<const int32_t> tokens,
                 const TimingLimits& limits, Runtime& runtime) {
  return RunTimer(test, methods, tokens, limits, runtime).time();
}

}  // namespace fathom
