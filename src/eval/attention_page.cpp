#include "eval/attention_page.h"

#include <algorithm>
#include <numeric>

#include "eval/page.h"

namespace fathom::eval {

std::string_view embedded_attention_html();
std::string_view embedded_attention_js();

namespace {

constexpr size_t kTextBytes = 160;  // maximum bytes of the text of a page

Json pages_json(const std::vector<int32_t>& tokens, const Tokenizer& tokenizer) {
  Json pages = Json::array();
  for (size_t first = 0; first < tokens.size(); first += kPageTokens) {
    const auto page_tokens = std::span(tokens).subspan(first, std::min<size_t>(kPageTokens, tokens.size() - first));
    std::string text = tokenizer.decode(page_tokens);
    if (text.size() > kTextBytes) text = text.substr(0, kTextBytes) + "…";
    pages.push_back({{"first", first}, {"tokens", page_tokens.size()}, {"text", text}});
  }
  return pages;
}

/// Returns the scaled sum over the tokens of each page.
template <class T>
Json by_page(const std::vector<T>& tokens, double scale) {
  Json sums = Json::array();
  for (size_t first = 0; first < tokens.size(); first += kPageTokens) {
    const auto end = tokens.begin() + std::min(first + kPageTokens, tokens.size());
    sums.push_back(std::accumulate(tokens.begin() + first, end, 0.0) * scale);
  }
  return sums;
}

}  // namespace

Json attention_json(const AttentionPicture& picture, const AttentionMass& mass, const Session& session,
                    const Tokenizer& tokenizer) {
  const Sequence& sequence = session.sequence();
  const auto tokens = std::ssize(picture.tokens);
  Json heads_json = Json::array();
  int64_t queries = 0;
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    if (!sequence.paged(layer)) continue;
    const int heads = sequence.kv(layer).heads();
    const auto queries_per_head = static_cast<double>(mass.queries(layer)) / heads;
    queries = std::max(queries, mass.queries(layer) / session.model().config().layer(layer).heads);
    for (int head = 0; head < heads; ++head) {
      heads_json.push_back(
          {{"layer", layer},
           {"head", head},
           {"mass", by_page(mass.mass(layer, head, tokens), queries_per_head > 0 ? 1 / queries_per_head : 0)},
           {"seen", by_page(mass.visible_tokens(layer, head, tokens), 1)}});
    }
  }
  return {{"model", picture.model},
          {"attend", session.options().attend},
          {"evict", session.options().evict},
          {"tokens", tokens},
          {"queries", queries},
          {"answer", picture.answer},
          {"pages", pages_json(picture.tokens, tokenizer)},
          {"lanes", std::move(heads_json)}};
}

std::string attention_page(const Json& picture) {
  return drawn_page(
      {"fathom inspect --attention", embedded_attention_html(), picture, std::string(embedded_attention_js())});
}

}  // namespace fathom::eval
