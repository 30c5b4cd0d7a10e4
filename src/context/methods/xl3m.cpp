// Reads each segment of the text with the question. Keeps the segments after which the prediction of the model has
// the lowest entropy.
#include <algorithm>
#include <cmath>

#include "base/common_parameters.h"
#include "base/error.h"
#include "context/methods.h"
#include "context/segments.h"

namespace fathom {
namespace {

/// Returns the entropy of softmax(logits), in nats.
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

struct ScoredSegment {
  size_t begin, end;  // units
  double entropy;     // lower is better
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

  std::string read(std::string_view context, std::string_view question, const ReaderContext& model) const override {
    WindowReader reader(question, model, budget_ > 0 ? std::min(budget_, model.window) : model.window);
    if (reader.fits(context)) return std::string(context);
    const int64_t size = std::min(chunk_, reader.room());
    const std::vector<TextUnit> units = text_units(context, model.tokenizer, std::max<int64_t>(size / 4, 1));
    std::vector<ScoredSegment> segments = cut(units, size);
    for (ScoredSegment& segment : segments) segment.entropy = question_entropy(units, segment, reader);
    std::ranges::stable_sort(segments, {}, &ScoredSegment::entropy);
    std::vector<char> kept(units.size());
    int64_t left = reader.room();
    for (const ScoredSegment& segment : segments) {
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
    return join_units(units, chosen);
  }

 private:
  /// Splits the text into segments of at most `size` tokens. Each repeats the last units of the one before.
  std::vector<ScoredSegment> cut(const std::vector<TextUnit>& units, int64_t size) const {
    std::vector<ScoredSegment> segments;
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

  /// Returns the entropy of the prediction after the question, or with by=mean the mean over the predictions after
  /// each of its tokens.
  double question_entropy(const std::vector<TextUnit>& units, const ScoredSegment& segment,
                          WindowReader& reader) const {
    std::vector<int32_t> text;
    for (size_t i = segment.begin; i < segment.end; ++i)
      text.insert(text.end(), units[i].tokens.begin(), units[i].tokens.end());
    const int64_t first = reader.first_text_token() + std::ssize(text);
    double sum = 0;
    AppendOptions options;
    if (by_mean_) {
      options.needs_logits = [&](int64_t index) { return index >= first; };
      options.on_logits = [&](int64_t, std::span<const float> logits) { sum += entropy(logits); };
    }
    const Session session = reader.read(text, nullptr, options);
    return by_mean_ ? sum / static_cast<double>(reader.question().size()) : entropy(session.logits());
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
       .summary = "reads each segment with the question and keeps those after which the prediction is most certain",
       .paper = "XL3M: A Training-free Framework for LLM Length Extension Based on Segment-wise Inference, 2024",
       .needs = "any model",
       .time = "O(n · chunk)",
       .memory = "O(budget): no keys are kept",
       .parameters =
           {budget_parameter(
                {.value = "0",
                 .max = 1e9,
                 .summary = "tokens from which the model answers; more keeps more segments; 0: the trained length",
                 .old_names = {"window"}}),
            chunk_parameter(
                {.value = "512",
                 .min = 1,
                 .max = 1e9,
                 .summary =
                     "tokens of a segment, read together with the question; more gives fewer, longer segments",
                 .old_names = {"segment"}}),
            {"overlap",
             Type::kFloat,
             "0.2",
             "share of a segment repeated in the next one; more cuts fewer facts in two and is slower",
             0,
             0.9,
             {}},
            {"by",
             Type::kChoice,
             "last",
             "last: entropy after the question's last token; mean: averaged over all tokens of the question",
             {},
             {},
             {"last", "mean"}}},
       .capabilities = {.works_with_landmarks = true, .works_on_recurrent = true}},
      [](const Values& values) { return std::make_unique<Xl3m>(values); }};
}

}  // namespace fathom
