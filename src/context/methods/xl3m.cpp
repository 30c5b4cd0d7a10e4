// Each segment is read with the question; those that make the model surest of what comes next are answered from.
#include <algorithm>
#include <cmath>

#include "base/common_parameters.h"
#include "base/error.h"
#include "context/methods.h"
#include "context/segments.h"

namespace fathom {
namespace {

/// In nats; p = softmax(logits).
double entropy(std::span<const float> logits) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0, weighted = 0;
  for (const float logit : logits) {
    const double x = logit - largest, p = std::exp(x);
    sum += p;
    weighted += p * x;
  }
  return std::log(sum) - weighted / sum;
}

struct Segment {
  size_t begin, end;  // units
  double doubt;       // the less, the better
};

class Xl3m final : public Reader {
 public:
  explicit Xl3m(const Values& values)
      : budget_(values.integer("budget")),
        chunk_(values.integer("chunk")),
        overlap_(values.number("overlap")),
        by_mean_(values.string("by") == "mean") {
    if (budget_ > 0 && chunk_ >= budget_)
      fail_usage("read method xl3m: chunk: expected fewer tokens than the budget of ", budget_, ", found ", chunk_);
  }

  std::string read(std::string_view context, std::string_view question, const ReaderContext& with) const override {
    ReadRun run(question, with, budget_ > 0 ? std::min(budget_, with.window) : with.window);
    if (run.fits(context)) return std::string(context);
    const int64_t size = std::min(chunk_, run.room());
    const std::vector<Unit> units = units_of(context, with.tokenizer, std::max<int64_t>(size / 4, 1));
    std::vector<Segment> segments = cut(units, size);
    for (Segment& segment : segments) segment.doubt = doubt(units, segment, run);
    std::ranges::stable_sort(segments, {}, &Segment::doubt);
    std::vector<char> kept(units.size());
    int64_t left = run.room();
    for (const Segment& segment : segments) {
      int64_t more = 0;
      for (size_t i = segment.begin; i < segment.end; ++i) more += kept[i] ? 0 : std::ssize(units[i].tokens);
      if (more > left) break;
      left -= more;
      std::fill(kept.begin() + segment.begin, kept.begin() + segment.end, 1);
    }
    std::vector<size_t> chosen;
    for (size_t i = 0; i < units.size(); ++i) {
      if (kept[i]) chosen.push_back(i);
    }
    return joined_units(units, chosen);
  }

 private:
  /// Units one after the other, at most `size` tokens; each segment begins with the last ones of the one before.
  std::vector<Segment> cut(const std::vector<Unit>& units, int64_t size) const {
    std::vector<Segment> segments;
    for (size_t begin = 0; begin < units.size();) {
      size_t end = begin;
      for (int64_t used = 0; end < units.size(); ++end) {
        used += std::ssize(units[end].tokens);
        if (used > size && end > begin) break;
      }
      segments.push_back({begin, end, 0});
      if (end == units.size()) break;
      size_t next = end;
      for (int64_t shared = 0; next > begin + 1; --next) {
        shared += std::ssize(units[next - 1].tokens);
        if (static_cast<double>(shared) > overlap_ * static_cast<double>(size)) break;
      }
      begin = next;
    }
    return segments;
  }

  /// How unsure the model is of what follows the question, or of each token after one of the question's.
  double doubt(const std::vector<Unit>& units, const Segment& segment, ReadRun& run) const {
    std::vector<int32_t> text;
    for (size_t i = segment.begin; i < segment.end; ++i)
      text.insert(text.end(), units[i].tokens.begin(), units[i].tokens.end());
    const int64_t first = run.first_text_token() + std::ssize(text);
    double sum = 0;
    AppendOptions options;
    if (by_mean_) {
      options.needs_logits = [&](int64_t index) { return index >= first; };
      options.on_logits = [&](int64_t, std::span<const float> logits) { sum += entropy(logits); };
    }
    const Session session = run.read(text, nullptr, options);
    return by_mean_ ? sum / static_cast<double>(run.question().size()) : entropy(session.logits());
  }

  int64_t budget_, chunk_;
  double overlap_;
  bool by_mean_;
};

}  // namespace

ReadEntry xl3m_method() {
  using Type = Parameter::Type;
  return {
      {.name = "xl3m",
       .summary = "segments are read with the question; those that make the model surest are answered from",
       .paper = "XL3M: A Training-free Framework for LLM Length Extension Based on Segment-wise Inference, 2024",
       .needs = "any model",
       .time = "O(n · chunk)",
       .memory = "O(budget): no keys are kept",
       .parameters = {budget_parameter(
                          {.value = "0",
                           .max = 1e9,
                           .summary = "tokens the answer is read from; 0: the length the model was trained on",
                           .old_names = {"window"}}),
                      chunk_parameter({.value = "512",
                                       .min = 1,
                                       .max = 1e9,
                                       .summary = "tokens read at once with the question",
                                       .old_names = {"segment"}}),
                      {"overlap", Type::kFloat, "0.2", "share of a segment that the next one has, too", 0, 0.9, {}},
                      {"by",
                       Type::kChoice,
                       "last",
                       "entropy after the question's last token, or the mean over all of its tokens",
                       {},
                       {},
                       {"last", "mean"}}},
       .capabilities = {.works_with_landmarks = true, .works_on_recurrent = true}},
      [](const Values& values) { return std::make_unique<Xl3m>(values); }};
}

}  // namespace fathom
