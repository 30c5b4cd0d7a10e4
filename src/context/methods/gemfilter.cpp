// The first layers read the whole text with the question; the tokens whose keys the question's last query likes are
// answered from.
#include <algorithm>
#include <limits>

#include "attend/key_scores.h"
#include "base/common_parameters.h"
#include "base/error.h"
#include "context/methods.h"
#include "context/segments.h"

namespace fathom {
namespace {

/// What the last token's query makes of the keys of all tokens of a layer, summed over its heads.
class LastQueryScores final : public AttentionWatcher {
 public:
  /// tokens: of the whole sequence. by_attention: the probabilities of attention, not the bare products.
  LastQueryScores(int layer, int kv_heads, int64_t tokens, bool by_attention)
      : layer_(layer), tokens_(tokens), by_attention_(by_attention), of_head_(kv_heads) {}

  bool watches(int layer) const override { return layer == layer_; }

  /// Each key/value head comes once with the last token, on any thread.
  void observe(const AttendedBlock& attended) override {
    const QueryBlock& block = attended.block;
    if (block.first + block.rows < tokens_) return;
    const PageStore& store = attended.kv.store();
    const PageTable& table = attended.kv.table(block.head);
    const int64_t first_query = static_cast<int64_t>(block.rows - 1) * block.group;
    std::vector<float> scores(block.group * tokens_);  // of every query head
    KeyScores keys(*block.kernels, store, block.kv->rotations());
    keys.of_entries(table, 0, table.size(), {.begin = 0, .end = tokens_},
                    block.queries + first_query * store.shape().key_dim, block.group, scores.data(), tokens_);
    std::vector<float>& sums = of_head_[block.head];
    sums.assign(tokens_, 0);
    for (int64_t h = 0; h < block.group; ++h) {
      const auto own = std::span(scores).subspan(h * tokens_, tokens_);
      by_attention_ ? to_shares(attended, first_query + h, own) : level_dropped(own);
      block.kernels->add(sums.data(), own.data(), tokens_);
    }
  }

  /// [tokens]: of each the mean over the `width` around it.
  std::vector<float> pooled(const Kernels& kernels, int64_t width) const {
    std::vector<float> sums(tokens_);
    for (const std::vector<float>& scores : of_head_) kernels.add(sums.data(), scores.data(), tokens_);
    mean_pool(sums, width);
    return sums;
  }

 private:
  static void to_shares(const AttendedBlock& attended, int64_t query, std::span<float> scores) {
    if (const int64_t window = attended.kv.window(); window > 0) {  // tokens before it have no share
      const int64_t before = std::max<int64_t>(0, std::ssize(scores) - window);
      std::fill_n(scores.begin(), before, -std::numeric_limits<float>::infinity());
    }
    if (attended.form.is_softmax()) return softmax_scores(*attended.block.kernels, scores, 1);
    for (float& score : scores) score = static_cast<float>(attended.share(query, score));
  }

  /// What an evictor dropped has no score any more: it counts as the least of the others.
  static void level_dropped(std::span<float> scores) {
    constexpr float kMasked = -std::numeric_limits<float>::infinity();
    float least = -kMasked;
    for (const float score : scores) least = score > kMasked ? std::min(least, score) : least;
    std::ranges::replace(scores, kMasked, least);
  }

  int layer_;
  int64_t tokens_;
  bool by_attention_;
  std::vector<std::vector<float>> of_head_;  // [kv_heads, tokens]
};

/// The text of the chosen tokens, and of characters only those of which all is chosen. chosen: ascending.
std::string text_of(const std::vector<int32_t>& tokens, const std::vector<int64_t>& chosen,
                    const Tokenizer& tokenizer) {
  std::string text;
  for (size_t i = 0; i < chosen.size();) {
    StreamDecoder decoder(tokenizer, false, i > 0);
    const int64_t first = chosen[i];
    std::string part;
    for (int64_t next = first; i < chosen.size() && chosen[i] == next; ++i, ++next)
      part += decoder.add(tokens[next]);
    size_t begin = 0;  // the rest of a character whose first bytes are in a token that was not chosen
    while (first > 0 && begin < part.size() && (static_cast<unsigned char>(part[begin]) & 0xc0) == 0x80) ++begin;
    text.append(part, begin);
  }
  return text;
}

/// The paper answers from the ids of the chosen tokens. Here it is from their text, which the caller puts into a
/// prompt or a chat: where tokens from different places come to stand side by side, it may be encoded otherwise. Of
/// 256 ids of fathom-reader less than one to five do, by the number of places; as many answers are right. What the
/// paper keeps in any case, the beginning and the question, the caller puts around it; `tokens` does not count
/// them.
class GemFilter final : public Reader {
 public:
  explicit GemFilter(const Values& values)
      : layer_(static_cast<int>(values.integer("layer"))),
        budget_(values.integer("budget")),
        pool_(values.integer("pool")),
        by_attention_(values.string("by") == "attention") {
    if (pool_ % 2 == 0) fail_usage("read method gemfilter: pool: expected an odd number, found ", pool_);
  }

  std::string read(std::string_view context, std::string_view question, const ReaderContext& with) const override {
    const int layer = layer_of(with.session(0).model().config().layers);
    ReadRun run(question, with, with.window);
    const std::vector<int32_t> text = with.tokenizer.encode(context, {.add_bos_eos = false});
    const int64_t most = std::min(budget_, run.room());
    if (std::ssize(text) <= most) return std::string(context);
    const std::vector<float> scores = score(text, layer, run);
    for (int64_t count = most;; count -= count / 64 + 1) {
      std::string kept = text_of(text, top_scores(scores, count), with.tokenizer);
      if (count == 0 || run.fits(kept)) return kept;  // encoded otherwise it may have some tokens more
    }
  }

 private:
  int layer_of(int layers) const {
    if (layer_ >= layers) {
      fail_usage("read method gemfilter: layer: there is no layer ", layer_, ", the model has ", layers, ", 0 to ",
                 layers - 1);
    }
    return layer_ >= 0 ? layer_ : (4 * layers + 5) / 10;
  }

  /// [text]
  std::vector<float> score(const std::vector<int32_t>& text, int layer, ReadRun& run) const {
    const int64_t begin = run.first_text_token(), end = begin + std::ssize(text);
    std::unique_ptr<LastQueryScores> last;
    const auto watch = [&](Session& session) {
      const int64_t tokens = end + std::ssize(run.question());
      last = std::make_unique<LastQueryScores>(layer, session.sequence().max_heads(), tokens, by_attention_);
      session.watch(last.get());
    };
    Session session = run.read(text, watch, {}, layer + 1);
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
           .summary = "the first layers read all; what the question's last query likes there is answered from",
           .paper = "Discovering the Gems in Early Layers: Accelerating Long-Context LLMs with 1000x Input Token "
                    "Reduction, 2024",
           .needs = "any model; for a text longer than its window one with rotary positions",
           .time = "O(n²) in the layers up to `layer`, O(budget²) in all",
           .memory = "O(n) in the layers up to `layer`",
           .parameters =
               {{"layer",
                 Type::kInt,
                 "-1",
                 "whose queries and keys choose, from 0; -1: after 40 % of the layers",
                 -1,
                 1e6,
                 {}},
                budget_parameter({.value = "1024",
                                  .min = 1,
                                  .max = 1e9,
                                  .summary = "tokens of the text that are kept, the question not counted",
                                  .old_names = {"tokens"}}),
                {"pool", Type::kInt, "5", "neighbours whose mean is a score, itself included; odd", 1, 1023, {}},
                {"by",
                 Type::kChoice,
                 "product",
                 "the paper's sum over heads of query times key, or of their attention, so that no head drowns the "
                 "others",
                 {},
                 {},
                 {"product", "attention"}}},
           .capabilities = {.needs_host_pages = true}},
          [](const Values& values) { return std::make_unique<GemFilter>(values); }};
}

}  // namespace fathom
