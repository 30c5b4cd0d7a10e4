// A window slides over the text; the last layer's attention from the question picks the sentences that are carried
// on.
#include <algorithm>
#include <numeric>

#include "attend/attention_mass.h"
#include "base/common_parameters.h"
#include "base/error.h"
#include "context/methods.h"
#include "context/segments.h"

namespace fathom {
namespace {

/// Sums of each token's neighbours within a phrase of `width` tokens.
std::vector<double> phrase_sums(const std::vector<double>& scores, int64_t width) {
  std::vector<double> sums(scores.size() + 1);
  std::partial_sum(scores.begin(), scores.end(), sums.begin() + 1);
  std::vector<double> phrases(scores.size());
  for (int64_t i = 0; i < std::ssize(scores); ++i) {
    const int64_t begin = std::max<int64_t>(0, i - width / 2);
    const int64_t end = std::min<int64_t>(std::ssize(scores), i - width / 2 + width);
    phrases[i] = sums[end] - sums[begin];
  }
  return phrases;
}

class InfiniRetri final : public Reader {
 public:
  explicit InfiniRetri(const Values& values)
      : chunk_(values.integer("chunk")), topk_(values.integer("topk")), phrase_(values.integer("phrase")) {}

  std::string read(std::string_view context, std::string_view question, const ReaderContext& with) const override {
    ReadRun run(question, with, chunk_ > 0 ? std::min(chunk_, with.window) : with.window);
    if (run.fits(context)) return std::string(context);
    const std::vector<Unit> units = units_of(context, with.tokenizer, run.room() / 4);
    std::vector<size_t> carried;
    for (size_t next = 0; next < units.size();) {
      int64_t used = count(units, carried);
      const size_t begin = next;
      while (next < units.size() && (next == begin || used + std::ssize(units[next].tokens) <= run.room())) {
        used += std::ssize(units[next].tokens);
        carried.push_back(next++);
      }
      carried = best(units, carried, run);
    }
    return joined_units(units, carried);
  }

 private:
  static int64_t count(const std::vector<Unit>& units, const std::vector<size_t>& chosen) {
    int64_t tokens = 0;
    for (const size_t i : chosen) tokens += std::ssize(units[i].tokens);
    return tokens;
  }

  /// Of the units that are read together, those to which the question looks; at most half the room, so that new
  /// ones find a place beside them.
  std::vector<size_t> best(const std::vector<Unit>& units, const std::vector<size_t>& read, ReadRun& run) const {
    std::vector<int32_t> text;
    for (const size_t i : read) text.insert(text.end(), units[i].tokens.begin(), units[i].tokens.end());
    const std::vector<double> scores = phrase_sums(looked_at(text, run), phrase_);
    std::vector<int64_t> order(text.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    order.resize(std::min<size_t>(order.size(), topk_));
    std::vector<size_t> owner;  // of each token, an index into `read`
    for (size_t i = 0; i < read.size(); ++i) owner.insert(owner.end(), units[read[i]].tokens.size(), i);
    std::vector<char> kept(read.size());
    int64_t left = run.room() / 2;
    for (const int64_t token : order) {
      const size_t i = owner[token];
      const auto size = std::ssize(units[read[i]].tokens);
      if (kept[i] || size > left) continue;
      kept[i] = 1;
      left -= size;
    }
    std::vector<size_t> chosen;
    for (size_t i = 0; i < read.size(); ++i) {
      if (kept[i]) chosen.push_back(read[i]);
    }
    return chosen;
  }

  /// Throws Error (usage) for a model without attention.
  static int last_attention_layer(const Sequence& sequence) {
    for (int layer = sequence.layers(); layer-- > 0;)
      if (sequence.paged(layer)) return layer;
    fail_usage("read method infiniretri: this model has no attention to read by");
  }

  /// [text]: the attention of the question's tokens in the last layer with attention, summed over them and over all
  /// heads.
  static std::vector<double> looked_at(const std::vector<int32_t>& text, ReadRun& run) {
    std::unique_ptr<AttentionMass> mass;
    const Session session = run.read(text, [&](Session& s) {
      std::vector<char> watched(s.sequence().layers());
      watched[last_attention_layer(s.sequence())] = 1;
      const int64_t before = run.first_text_token() + std::ssize(text);
      mass = std::make_unique<AttentionMass>(watched, s.sequence().max_heads(), before);
      s.watch(mass.get());
    });
    const int layer = last_attention_layer(session.sequence());
    std::vector<double> sums(text.size());
    for (int head = 0; head < session.sequence().kv(layer).heads(); ++head) {
      const std::vector<double> own = mass->mass(layer, head, session.sequence().tokens());
      for (size_t i = 0; i < text.size(); ++i) sums[i] += own[run.first_text_token() + i];
    }
    return sums;
  }

  int64_t chunk_, topk_, phrase_;
};

}  // namespace

ReadEntry infiniretri_method() {
  using Type = Parameter::Type;
  return {
      {.name = "infiniretri",
       .summary =
           "a window slides over the text; sentences to which the question looks are carried on and answered from",
       .paper = "Infinite Retrieval: Attention Enhanced LLMs in Long-Context Processing, 2025",
       .needs = "any model",
       .time = "O(n · chunk)",
       .memory = "O(chunk): no keys are kept",
       .parameters = {chunk_parameter({.value = "0",
                                       .max = 1e9,
                                       .summary = "tokens read at once; 0: the length the model was trained on",
                                       .old_names = {"window"}}),
                      topk_parameter({.value = "300",
                                      .min = 1,
                                      .max = 1e9,
                                      .summary = "tokens with most attention, whose sentences are kept",
                                      .old_names = {"tokens"}}),
                      {"phrase",
                       Type::kInt,
                       "8",
                       "neighbours whose scores are summed: about an answer's tokens",
                       1,
                       1e6,
                       {}}},
       .capabilities = {.needs_host_pages = true}},
      [](const Values& values) { return std::make_unique<InfiniRetri>(values); }};
}

}  // namespace fathom
