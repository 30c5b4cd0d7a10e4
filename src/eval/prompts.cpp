#include "eval/prompts.h"

#include <algorithm>

#include "base/content_hash.h"
#include "base/error.h"
#include "tokens/prompt.h"

namespace fathom::eval {
namespace {

constexpr EncodeOptions kPlain{.add_bos_eos = false, .parse_special = false};

/// Returns the end of each token in `text` in bytes. Throws Error if the decoded tokens differ from `text`.
std::vector<size_t> token_ends(const Tokenizer& tokenizer, const std::vector<int32_t>& tokens,
                               const std::string& text) {
  StreamDecoder decoder(tokenizer);
  std::string decoded;
  std::vector<size_t> ends;
  ends.reserve(tokens.size());
  for (const int32_t token : tokens) {
    decoded += decoder.add(token);
    ends.push_back(decoded.size());
  }
  decoded += decoder.flush();
  if (decoded != text) {
    fail(tokenizer.vocabulary().source,
         ": the tokenizer changes the text when it encodes and decodes it; tasks that measure predictions of ",
         "single words need one that preserves text");
  }
  if (!ends.empty()) ends.back() = decoded.size();
  return ends;
}

size_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

}  // namespace

uint64_t Prompt::hash() const {
  return hash_content({reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(int32_t)});
}

int64_t PromptMaker::count(std::string_view text) const {
  return static_cast<int64_t>(tokenizer_.encode(text, kPlain).size());
}

/// Returns whether the chat template is applied. Samples whose predictions are measured are plain text.
bool PromptMaker::in_chat(const Sample& sample) const {
  return chat_ && sample.chat && sample.mode == Sample::Mode::kGenerate;
}

std::string PromptMaker::text_of(const Sample& sample) const {
  if (!in_chat(sample)) return sample.prompt();
  return chat_->render({{"user", sample.context + sample.question}}, true) + sample.lead;
}

/// Returns the beginning of text_of() up to the question.
std::string PromptMaker::head_of(const Sample& sample) const {
  if (!in_chat(sample)) return sample.context;
  const std::string rendered = text_of(sample);
  const size_t at = rendered.find(sample.context);
  return at == std::string::npos ? "" : rendered.substr(0, at + sample.context.size());
}

std::vector<int32_t> PromptMaker::encode(const Sample& sample, const std::string& text) const {
  return encode_prompt(tokenizer_, text, in_chat(sample));
}

int64_t PromptMaker::measure(const Sample& sample) const {
  return static_cast<int64_t>(encode(sample, text_of(sample)).size());
}

/// Keeps the first and the last half of the tokens of context + question that fit together with the lead and the
/// reserve.
Sample PromptMaker::cut(const Sample& sample, int64_t length) const {
  Sample empty = sample;
  empty.context = " ", empty.question = "";
  const int64_t room = length - sample.reserve - measure(empty);
  if (room < 2)
    fail("a length of ", length, " tokens leaves no room for the text: the reserve for the answer is ",
         sample.reserve);
  const std::vector<int32_t> tokens = tokenizer_.encode(sample.context + sample.question, kPlain);
  Sample shorter = sample;
  // encoding the decoded halves may give a few more tokens; then shorten the halves
  for (int64_t half = room / 2;; half -= half / 64 + 1) {
    shorter.context = tokenizer_.decode({tokens.begin(), tokens.begin() + half}) +
                      tokenizer_.decode({tokens.end() - half, tokens.end()});
    shorter.question.clear();
    if (half <= 1 || measure(shorter) + sample.reserve <= length) return shorter;
  }
}

Prompt PromptMaker::make(const Sample& sample, int64_t length) const {
  Prompt prompt;
  const std::string text = text_of(sample);
  prompt.tokens = encode(sample, text);
  const auto tokens = static_cast<int64_t>(prompt.tokens.size()) + sample.reserve;
  if (tokens > length) {
    if (!sample.cut_middle)
      fail("a prompt has ", tokens, " tokens including the reserve for the answer, more than the length ", length);
    const Sample shorter = cut(sample, length);
    prompt.tokens = encode(shorter, text_of(shorter));
    prompt.cut = true;
    return prompt;
  }
  const std::string head = head_of(sample);
  if (!head.empty()) {
    prompt.context_tokens = static_cast<int64_t>(common_prefix(encode(sample, head), prompt.tokens));
    // the question must have at least one token of its own
    prompt.context_tokens =
        std::min<int64_t>(prompt.context_tokens, static_cast<int64_t>(prompt.tokens.size()) - 1);
  }
  if (sample.mode == Sample::Mode::kForced) find_scored(sample, prompt);
  return prompt;
}

/// A token belongs to the span that contains its last byte. A span without such a token gets the token that covers
/// its end. The first token has no prediction.
void PromptMaker::find_scored(const Sample& sample, Prompt& prompt) const {
  const std::vector<size_t> ends = token_ends(tokenizer_, prompt.tokens, sample.prompt());
  const auto count = static_cast<int64_t>(ends.size());
  int64_t token = 0;
  for (size_t s = 0; s < sample.scored.size(); ++s) {
    const TextSpan& span = sample.scored[s];
    while (token < count && ends[token] <= span.begin) ++token;
    const int64_t first = token;
    while (token < count && ends[token] <= span.end) ++token;
    if (token == first && token < count) ++token;
    for (int64_t t = std::max(first, sample.scored_from); t < token; ++t) {
      prompt.scored.push_back(t);
      prompt.span_of.push_back(static_cast<int32_t>(s));
    }
  }
}

}  // namespace fathom::eval
