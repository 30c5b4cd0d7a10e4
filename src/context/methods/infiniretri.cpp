// Reads the text in windows. The sentences that the question attends to most in the last layer are kept and read
// again with the next window.
#include <algorithm>
#include <numeric>

#include "attend/attention_mass.h"
#include "base/common_parameters.h"
#include "base/error.h"
#include "context/methods.h"
#include "context/segments.h"

namespace fathom {
namespace {

/// Returns for each token the sum of the scores of the `width` tokens around it.
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

  std::string read(std::string_view context, std::string_view question, const ReaderContext& model) const override {
    WindowReader reader(question, model, chunk_ > 0 ? std::min(chunk_, model.window) : model.window);
    if (reader.fits(context)) return std::string(context);
    const std::vector<TextUnit> units = text_units(context, model.tokenizer, reader.room() / 4);
    std::vector<size_t> carried;
    for (size_t next = 0; next < units.size();) {
      int64_t used = count(units, carried);
      const size_t begin = next;
      while (next < units.size() && (next == begin || used + std::ssize(units[next].tokens) <= reader.room())) {
        used += std::ssize(units[next].tokens);
        carried.push_back(next++);
      }
      carried = best(units, carried, reader);
    }
    return join_units(units, carried);
  }

 private:
  static int64_t count(const std::vector<TextUnit>& units, const std::vector<size_t>& chosen) {
    int64_t tokens = 0;
    for (const size_t i : chosen) tokens += std::ssize(units[i].tokens);
    return tokens;
  }

  /// Reads units together with the question and returns those that contain the topk_ tokens with most attention.
  /// The units of the best tokens are added first, until they fill half the room; the other half is for new units.
  /// read, result: indices of units.
  std::vector<size_t> best(const std::vector<TextUnit>& units, const std::vector<size_t>& read,
                           WindowReader& reader) const {
    std::vector<int32_t> text;
    for (const size_t i : read) text.insert(text.end(), units[i].tokens.begin(), units[i].tokens.end());
    const std::vector<double> scores = phrase_sums(question_attention(text, reader), phrase_);
    std::vector<int64_t> order(text.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    order.resize(std::min<size_t>(order.size(), topk_));
    std::vector<size_t> unit_of;  // [tokens], indices into `read`
    for (size_t i = 0; i < read.size(); ++i) unit_of.insert(unit_of.end(), units[read[i]].tokens.size(), i);
    std::vector<char> kept(read.size());
    int64_t left = reader.room() / 2;
    for (const int64_t token : order) {
      const size_t i = unit_of[token];
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
    fail_usage("read method infiniretri: expected a model with attention, this model has none");
  }

  /// Returns the attention that each token of the text receives from the question in the last layer with attention,
  /// summed over the question's tokens and all heads: [text].
  static std::vector<double> question_attention(const std::vector<int32_t>& text, WindowReader& reader) {
    std::unique_ptr<AttentionMass> mass;
    const Session session = reader.read(text, [&](Session& s) {
      std::vector<char> watched(s.sequence().layers());
      watched[last_attention_layer(s.sequence())] = 1;
      const int64_t before = reader.first_text_token() + std::ssize(text);
      mass = std::make_unique<AttentionMass>(watched, s.sequence().max_heads(), before);
      s.watch(mass.get());
    });
    const int layer = last_attention_layer(session.sequence());
    std::vector<double> sums(text.size());
    for (int head = 0; head < session.sequence().kv(layer).heads(); ++head) {
      const std::vector<double> head_mass = mass->mass(layer, head, session.sequence().tokens());
      for (size_t i = 0; i < text.size(); ++i) sums[i] += head_mass[reader.first_text_token() + i];
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
       .summary = "reads the text in windows; each repeats the earlier sentences the question attends to most",
       .paper = "Infinite Retrieval: Attention Enhanced LLMs in Long-Context Processing, 2025",
       .needs = "any model with attention",
       .time = "O(n · chunk)",
       .memory = "O(chunk): no keys are kept",
       .parameters =
           {chunk_parameter(
                {.value = "0",
                 .max = 1e9,
                 .summary = "tokens of a window; more is slower and divides fewer passages; 0: the trained length",
                 .old_names = {"window"}}),
            topk_parameter(
                {.value = "300",
                 .min = 1,
                 .max = 1e9,
                 .summary = "tokens with most attention whose sentences are kept; more keeps more sentences",
                 .old_names = {"tokens"}}),
            {"phrase",
             Type::kInt,
             "8",
             "neighbouring tokens whose scores are summed; set it to about the answer's length",
             1,
             1e6,
             {}}},
       .capabilities = {.needs_host_pages = true}},
      [](const Values& values) { return std::make_unique<InfiniRetri>(values); }};
}

}  // namespace fathom
