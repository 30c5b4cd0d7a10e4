// The generated text is the opening of a sentence of the files.
#include "decode/constraints/spans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "decode/byte_constraint.h"
#include "decode/constrained_beam.h"

namespace fathom {
namespace {

constexpr size_t kBytesPerToken = 64;  // more bytes than this per token are not encoded to fill `max` tokens

/// The tokens of a part of a text, in which no token crosses the end of a sentence.
struct SpanTokens {
  std::vector<int32_t> tokens;
  std::vector<std::pair<int64_t, size_t>> ends;  // index of the last token of a sentence, and the sentence's end
};

/// Returns the tokens of `part` as the tokenizer encodes it; if it changes bytes, tokens that spell the part.
std::vector<int32_t> lossless_tokens(const Tokenizer& tokenizer, const TokenBytes& bytes, std::string_view part) {
  std::vector<int32_t> tokens = tokenizer.encode(part, {.add_bos_eos = false});
  std::string text;
  for (const int32_t token : tokens) text += bytes.of(token);
  return text == part || text == concat(' ', part) ? tokens : bytes.spell(part);
}

/// Encodes the text from the first of the sentences to the end of the last one.
SpanTokens encode_span(const Tokenizer& tokenizer, const TokenBytes& bytes, std::string_view text,
                       std::span<const SentenceSpan> sentences) {
  const size_t begin = sentences.front().begin;
  const std::string_view part = text.substr(begin, sentences.back().end - begin);
  const std::vector<int32_t> tokens = lossless_tokens(tokenizer, bytes, part);
  size_t total = 0;
  for (const int32_t token : tokens) total += bytes.of(token).size();
  // of the next token, in the text; one byte before the part if the tokenizer put a space before it
  int64_t at = static_cast<int64_t>(begin) - static_cast<int64_t>(total - part.size());
  SpanTokens span;
  auto sentence = sentences.begin();
  for (const int32_t token : tokens) {
    std::string_view piece = bytes.of(token);
    const auto add = [&](std::string_view added) {
      if (added.size() == bytes.of(token).size()) return span.tokens.push_back(token);
      for (const int32_t split : bytes.spell(added)) span.tokens.push_back(split);
    };
    while (sentence != sentences.end() && static_cast<int64_t>(sentence->end) <= at + std::ssize(piece)) {
      const auto cut = static_cast<int64_t>(sentence->end) - at;
      add(piece.substr(0, static_cast<size_t>(cut)));
      span.ends.emplace_back(std::ssize(span.tokens) - 1, sentence->end);
      piece.remove_prefix(static_cast<size_t>(cut));
      at += cut;
      ++sentence;
    }
    add(piece);
    at += std::ssize(piece);
  }
  return span;
}

/// Returns the log-probability that the next token ends the generation.
double end_log_probability(std::span<const float> logits, std::span<const int32_t> ends) {
  double max = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) max = std::max<double>(max, logit);
  double sum = 0, end = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  for (const int32_t token : ends)
    if (static_cast<size_t>(token) < logits.size()) end += std::exp(logits[static_cast<size_t>(token)] - max);
  return std::log(end) - std::log(sum);
}

std::shared_ptr<const Constraint> make_spans(const Values& values, const ConstraintSetup& setup) {
  auto tokens = std::make_shared<const TokenBytes>(*setup.tokenizer);
  SentenceOpenings openings(setup.text, values.boolean("full"), values.integer("prefix"));
  if (!tokens->has_all_bytes()) {
    for (size_t i = 0; i < openings.strings().size(); ++i) {
      const std::string_view sentence = openings.strings()[i];
      if (const auto at = tokens->find_unspellable(sentence))
        fail("spans: the vocabulary cannot spell ", quote(sentence), ": no token for its byte ", *at);
    }
  }
  return std::make_shared<ByteConstraint<SentenceOpenings>>(std::move(tokens), std::move(openings));
}

}  // namespace

SentenceOpenings::SentenceOpenings(std::string_view text, bool full, int64_t prefix)
    : full_(full), prefix_(prefix) {
  std::vector<StringSet::Part> parts;
  for (const SentenceSpan& sentence : find_sentences(text)) parts.push_back({sentence.begin, sentence.end});
  if (parts.empty()) fail("spans: expected a text with sentences (-f FILE), found none");
  strings_ = std::make_shared<StringSet>(std::string(text), std::move(parts));
}

bool SentenceOpenings::step(State& state, unsigned char byte) const {
  if (!std::exchange(state.begun, true) && byte == ' ') return true;
  return strings_->step(state.prefix, byte);
}

bool SentenceOpenings::may_end(const State& state, int64_t tokens) const {
  return must_end(state, tokens) || (state.prefix.bytes > 0 && strings_->is_complete(state.prefix));
}

bool SentenceOpenings::must_end(const State& state, int64_t tokens) const {
  return !full_ && state.prefix.bytes > 0 && (state.prefix.count() == 1 || tokens >= prefix_);
}

size_t SentenceOpenings::first_begin(const State& state) const {
  size_t first = std::numeric_limits<size_t>::max();
  for (size_t i = state.prefix.first; i < state.prefix.last; ++i) first = std::min(first, strings_->part(i).begin);
  return first;
}

size_t choose_span_end(const Session& session, const Tokenizer& tokenizer, const TokenBytes& bytes,
                       std::string_view text, std::span<const SentenceSpan> sentences, size_t first, int64_t max) {
  const size_t begin = sentences[first].begin;
  const size_t limit = begin + static_cast<size_t>(max) * kBytesPerToken;
  size_t last = first + 1;
  while (last < sentences.size() && sentences[last].end <= limit && std::cmp_less(last - first, max)) ++last;
  if (last == first + 1) return sentences[first].end;
  SpanTokens span = encode_span(tokenizer, bytes, text, sentences.subspan(first, last - first));
  while (!span.ends.empty() && span.ends.back().first >= max) span.ends.pop_back();
  if (span.ends.size() <= 1) return sentences[first].end;
  span.tokens.resize(static_cast<size_t>(span.ends.back().first) + 1);

  size_t best_end = sentences[first].end, i = 0;
  double best = -std::numeric_limits<double>::infinity();
  Session reader = session.fork();
  AppendOptions append;
  append.needs_logits = [&](int64_t index) {
    return std::ranges::binary_search(span.ends, index, {}, &std::pair<int64_t, size_t>::first);
  };
  append.on_logits = [&](int64_t, std::span<const float> logits) {
    const double log_probability = end_log_probability(logits, tokenizer.vocabulary().end_of_generation);
    const size_t end = span.ends[i++].second;
    if (log_probability <= best) return;
    best = log_probability;
    best_end = end;
  };
  reader.append(span.tokens, append);
  return best_end;
}

SpanResult find_spans(const Session& session, const Tokenizer& tokenizer, std::string_view text,
                      const SpanOptions& options) {
  const SentenceOpenings openings(text, false, options.prefix);
  const std::vector<SentenceSpan> sentences = find_sentences(text);
  const auto bytes = std::make_shared<const TokenBytes>(tokenizer);
  const ByteConstraint<SentenceOpenings> constraint(bytes, openings);
  SpanResult result;
  result.openings =
      constrained_beam(session, tokenizer, &constraint,
                       {.width = options.spans, .length = options.prefix + 1, .progress = options.progress});
  for (const Hypothesis& opening : result.openings) {
    SentenceOpenings::State state = openings.start();
    for (const int32_t token : opening.tokens)
      for (const char byte : bytes->of(token)) openings.step(state, static_cast<unsigned char>(byte));
    const size_t begin = openings.first_begin(state);
    const auto first = std::ranges::lower_bound(sentences, begin, {}, &SentenceSpan::begin) - sentences.begin();
    result.spans.push_back({begin, choose_span_end(session, tokenizer, *bytes, text, sentences,
                                                   static_cast<size_t>(first), options.max)});
  }
  result.spans = merge_spans(std::move(result.spans));
  return result;
}

ConstraintEntry spans_method() {
  using Type = Parameter::Type;
  return {{.name = "spans",
           .summary = "the text is the opening of a sentence of the files, up to where it identifies the sentence",
           .paper = "Grounding Language Model with Chunking-Free In-Context Retrieval, 2024",
           .needs = "any model; a tuned model for better evidence",
           .time = "O(v) per token, and O(log n) per byte that is tried; n: sentences",
           .memory = "the bytes of the files and 16 bytes per sentence",
           .parameters = {{.name = "full",
                           .type = Type::kBool,
                           .default_value = "false",
                           .summary = "generate the whole sentence"},
                          {.name = "prefix",
                           .default_value = "32",
                           .summary = "most tokens of an opening; sentences with a longer common opening count as "
                                      "the first of them",
                           .min = 1,
                           .max = 1e9}}},
          make_spans};
}

}  // namespace fathom
