// Loss on a text by position: a model that uses distant context has a lower loss in later buckets.
#include <cmath>
#include <numbers>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

constexpr int64_t kFirstBucket = 256;  // positions; each later bucket ends at twice its beginning

class Perplexity final : public Task {
 public:
  explicit Perplexity(int64_t from) : Task("perplexity"), from_(from) {}

  Measure measure() const override { return {"nats per token", false}; }

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    if (from_ >= length)
      fail_usage("task perplexity: from=", from_, " leaves nothing to measure of ", length, " tokens");
    Rng rng = this->rng(input, length, index);
    return fit_prose_sample(*this, input, length, rng, 2, [this](std::string_view text) {
      Sample sample;
      sample.mode = Sample::Mode::kForced;
      sample.chat = false;
      sample.context = text;
      sample.scored_from = from_;
      size_t begin = 0;
      for (const size_t end : word_ends(text)) sample.scored.push_back({std::exchange(begin, end), end});
      return sample;
    });
  }

  Score score(const Sample& sample, const Answer& answer) const override {
    struct Sum {
      double nll = 0;
      int64_t tokens = 0;
    };
    Sum all;
    std::vector<Sum> buckets;
    size_t bytes = sample.context.size();  // of the text that is measured
    for (size_t i = 0; i < answer.spans.size(); ++i) {
      const SpanScore& span = answer.spans[i];
      if (from_ > 1 && span.tokens == 0) bytes -= sample.scored[i].end - sample.scored[i].begin;
      size_t bucket = 0;
      while (span.position >= kFirstBucket << bucket) ++bucket;
      if (bucket >= buckets.size()) buckets.resize(bucket + 1);
      for (Sum* sum : {&all, &buckets[bucket]}) sum->nll += span.nll, sum->tokens += span.tokens;
    }
    if (all.tokens == 0) return {};
    Score score{all.nll / static_cast<double>(all.tokens), {}};
    score.details["bits_per_byte"] = all.nll / std::numbers::ln2 / static_cast<double>(bytes);
    for (size_t b = 0; b < buckets.size(); ++b) {
      if (buckets[b].tokens == 0) continue;
      score.details["to_" + format_size(static_cast<double>(kFirstBucket << b))] =
          buckets[b].nll / static_cast<double>(buckets[b].tokens);
    }
    return score;
  }

 private:
  int64_t from_;  // index of the first token that is measured
};

}  // namespace

MethodInfo perplexity_info() {
  return {
      .name = "perplexity",
      .summary =
          "loss on the haystack's text, in total and by position (to_512: tokens from the previous bound to 512)",
      .needs = "any model; use a real text as --haystack",
      .parameters = {{"from",
                      Parameter::Type::kInt,
                      "1",
                      "index of the first token that is measured; those before it are only read",
                      1,
                      1e12,
                      {}}}};
}
TaskList make_perplexity(const Values& values) { return {std::make_shared<Perplexity>(values.integer("from"))}; }

}  // namespace fathom::eval
