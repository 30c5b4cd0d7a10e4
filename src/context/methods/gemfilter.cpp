// The first layers read the whole text with the question. The model answers from the tokens whose keys score
// highest with the question's last query.
#include <algorithm>
#include <limits>

#include "attend/key_scores.h"
#include "base/common_parameters.h"
#include "base/error.h"
#include "context/methods.h"
#include "context/segments.h"

namespace fathom {
namespace {

/// The scores of all tokens of a layer for the query of the sequence's last token, summed over the query heads.
class LastQueryScores final : public AttentionWatcher {
 public:
  /// tokens: length of the sequence. by_attention: sums attention probabilities instead of query-key products.
  LastQueryScores(int layer, int kv_heads, int64_t tokens, bool by_attention)
      : layer_(layer), tokens_(tokens), by_attention_(by_attention), head_sums_(kv_heads) {}

  bool watches(int layer) const override { return layer == layer_; }

  /// Called from several threads, and with the last token once for each key/value head.
  void observe(const AttendedBlock& attended) override {
    const QueryBlock& block = attended.block;
    if (block.first + block.rows < tokens_) return;
    const PageStore& store = attended.kv.store();
    const PageTable& table = attended.kv.table(block.head);
    const int64_t first_query = static_cast<int64_t>(block.rows - 1) * block.group;
    std::vector<float> scores(block.group * tokens_);  // [group, tokens]
    KeyScores keys(*block.kernels, store, block.kv->rotations());
    keys.of_entries(table, 0, table.size(), {.begin = 0, .end = tokens_},
                    block.queries + first_query * store.shape().key_dim, block.group, scores.data(), tokens_);
    std::vector<float>& sums = head_sums_[block.head];
    sums.assign(tokens_, 0);
    for (int64_t h = 0; h < block.group; ++h) {
      const auto head_scores = std::span(scores).subspan(h * tokens_, tokens_);
      by_attention_ ? to_probabilities(attended, first_query + h, head_scores) : fill_evicted(head_scores);
      block.kernels->add(sums.data(), head_scores.data(), tokens_);
    }
  }

  /// Returns the scores, averaged over `width` neighbouring tokens: [tokens].
  std::vector<float> pooled(const Kernels& kernels, int64_t width) const {
    std::vector<float> sums(tokens_);
    for (const std::vector<float>& scores :
         head_sums_)  // empty for heads that other layers have and this one has not
      if (!scores.empty()) kernels.add(sums.data(), scores.data(), tokens_);
    mean_pool(sums, width);
    return sums;
  }

 private:
  /// Converts the scores of one query into attention probabilities.
  static void to_probabilities(const AttendedBlock& attended, int64_t query, std::span<float> scores) {
    if (const int64_t window = attended.kv.window(); window > 0) {  // older tokens get no attention
      const int64_t before = std::max<int64_t>(0, std::ssize(scores) - window);
      std::fill_n(scores.begin(), before, -std::numeric_limits<float>::infinity());
    }
    if (attended.form.is_softmax()) return softmax_scores(*attended.block.kernels, scores, 1);
    for (float& score : scores) score = static_cast<float>(attended.share(query, score));
  }

  /// Sets the scores of evicted tokens, which are −∞, to the lowest score of the other tokens.
  static void fill_evicted(std::span<float> scores) {
    constexpr float kMasked = -std::numeric_limits<float>::infinity();
    float lowest = -kMasked;
    for (const float score : scores) lowest = score > kMasked ? std::min(lowest, score) : lowest;
    std::ranges::replace(scores, kMasked, lowest);
  }

  int layer_;
  int64_t tokens_;
  bool by_attention_;
  std::vector<std::vector<float>> head_sums_;  // [kv_heads, tokens]
};

/// Returns the text of the chosen tokens, without characters of which only some bytes are chosen. chosen: indices,
/// ascending.
std::string text_of(const std::vector<int32_t>& tokens, const std::vector<int64_t>& chosen,
                    const Tokenizer& tokenizer) {
  std::string text;
  for (size_t i = 0; i < chosen.size();) {
    StreamDecoder decoder(tokenizer, false, i > 0);
    const int64_t first = chosen[i];
    std::string part;
    for (int64_t next = first; i < chosen.size() && chosen[i] == next; ++i, ++next)
      part += decoder.add(tokens[next]);
    size_t begin = 0;  // skips the rest of a character that begins in a token that was not chosen
    while (first > 0 && begin < part.size() && (static_cast<unsigned char>(part[begin]) & 0xc0) == 0x80) ++begin;
    text.append(part, begin);
  }
  return text;
}

/// Differs from the paper in two points. The paper answers from the ids of the chosen tokens; here the caller puts
/// their text into a prompt or a chat, where text joined from different positions may be encoded differently. With
/// fathom-reader, fewer than one to five of 256 ids change, depending on the number of joints, and the number of
/// right answers is the same. The paper always keeps BOS and the question; here the caller adds them, and `budget`
/// does not count them.
class GemFilter final : public Reader {
 public:
  explicit GemFilter(const Values& values)
      : layer_(static_cast<int>(values.integer("layer"))),
        budget_(values.integer("budget")),
        pool_(values.integer("pool")),
        by_attention_(values.string("by") == "attention") {
    if (pool_ % 2 == 0) fail_usage("read method gemfilter: pool: expected an odd number, found ", pool_);
  }

  std::string read(std::string_view context, std::string_view question, const ReaderContext& model) const override {
    const int layer = layer_of(model.session(0).model().config().layers);
    WindowReader reader(question, model, model.window);
    const std::vector<int32_t> text = model.tokenizer.encode(context, {.add_bos_eos = false});
    const int64_t limit = std::min(budget_, reader.room());
    if (std::ssize(text) <= limit) return std::string(context);
    const std::vector<float> scores = score(text, layer, reader);
    for (int64_t count = limit;; count -= count / 64 + 1) {
      std::string kept = text_of(text, top_scores(scores, count), model.tokenizer);
      if (count == 0 || reader.fits(kept)) return kept;  // the joined text may have more than `count` tokens
    }
  }

 private:
  int layer_of(int layers) const {
    if (layer_ >= layers) {
      fail_usage("read method gemfilter: layer: expected 0 to ", layers - 1, " (the model has ", layers,
                 " layers) or -1, found ", layer_);
    }
    return layer_ >= 0 ? layer_ : (4 * layers + 5) / 10;
  }

  /// Returns the pooled score of each token of the text.
  std::vector<float> score(const std::vector<int32_t>& text, int layer, WindowReader& reader) const {
    const int64_t begin = reader.first_text_token(), end = begin + std::ssize(text);
    std::unique_ptr<LastQueryScores> last;
    const auto watch = [&](Session& session) {
      if (!session.sequence().paged(layer))
        fail_usage("read method gemfilter: layer: expected a layer with attention, layer ", layer, " has none");
      const int64_t tokens = end + std::ssize(reader.question());
      last = std::make_unique<LastQueryScores>(layer, session.sequence().max_heads(), tokens, by_attention_);
      session.watch(last.get());
    };
    Session session = reader.read(text, watch, {}, layer + 1);
    const std::vector<float> all = last->pooled(session.runtime().work().kernels, pool_);
    return {all.begin() + begin, all.begin() + end};
  }

  int layer_;
  int64_t budget_, pool_;
  bool by_attention_;
};

}  // namespace

ReadEntry gemfilter_method() {
  using Type = Parameter::Type;
  return {{.name = "gemfilter",
           .summary =
               "the first layers read the whole text and select the tokens that the question's end attends to most",
           .paper = "Discovering the Gems in Early Layers: Accelerating Long-Context LLMs with 1000x Input Token "
                    "Reduction, 2024",
           .needs = "any model with attention; for a text longer than its trained length, rotary positions",
           .time = "O(n²) in the layers up to `layer`, O(budget²) in all",
           .memory = "O(n) in the layers up to `layer`",
           .parameters =
               {{"layer",
                 Type::kInt,
                 "-1",
                 "the layer that selects, counted from 0; more is slower; -1: after 40 % of the layers",
                 -1,
                 1e6,
                 {}},
                budget_parameter({.value = "1024",
                                  .min = 1,
                                  .max = 1e9,
                                  .summary = "tokens of the text that are kept, without the question; more keeps "
                                             "more context and is slower",
                                  .old_names = {"tokens"}}),
                {"pool",
                 Type::kInt,
                 "5",
                 "neighbours whose scores are averaged, odd; more keeps longer phrases",
                 1,
                 1023,
                 {}},
                {"by",
                 Type::kChoice,
                 "product",
                 "product: sum of raw scores over heads (the paper); attention: sum of probabilities, so that no "
                 "head dominates",
                 {},
                 {},
                 {"product", "attention"}}},
           .capabilities = {.needs_host_pages = true}},
          [](const Values& values) { return std::make_unique<GemFilter>(values); }};
}

}  // namespace fathom
