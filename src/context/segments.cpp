#include "context/segments.h"

#include <algorithm>

#include "base/error.h"
#include "tokens/prompt.h"

namespace fathom {
namespace {

constexpr size_t kMinSentenceBytes = 9;  // shorter fragments are appended to the sentence before them
constexpr int64_t kAnswerTokens = 64;    // of the window, reserved for the answer
constexpr int64_t kMinTextTokens = 16;   // required room for a text

/// Returns the length in bytes of the punctuation mark or line end at `at`; 0 if there is none.
size_t end_mark(std::string_view text, size_t at) {
  if (std::string_view(":.?!\n").find(text[at]) != std::string_view::npos) return 1;
  for (const std::string_view mark : {"\uff1a", "\u3002", "\uff1f", "\uff01"}) {
    if (text.substr(at).starts_with(mark)) return mark.size();
  }
  return 0;
}

}  // namespace

std::vector<std::string_view> sentences_of(std::string_view text) {
  std::vector<std::string_view> sentences;
  size_t begin = 0;
  const auto add = [&](size_t end) {
    if (end == begin) return;
    if (end - begin < kMinSentenceBytes && !sentences.empty() && !sentences.back().ends_with('\n')) {
      sentences.back() = {sentences.back().data(), sentences.back().size() + end - begin};
    } else {
      sentences.push_back(text.substr(begin, end - begin));
    }
    begin = end;
  };
  for (size_t at = 0; at < text.size();) {
    const size_t mark = end_mark(text, at);
    at += std::max<size_t>(mark, 1);
    if (mark == 0) continue;
    while (at < text.size() && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || end_mark(text, at) > 0))
      ++at;
    add(at);
  }
  add(text.size());
  return sentences;
}

std::vector<TextUnit> text_units(std::string_view text, const Tokenizer& tokenizer, int64_t max_tokens) {
  std::vector<TextUnit> units;
  const std::function<void(std::string_view)> add = [&](std::string_view part) {
    std::vector<int32_t> tokens = tokenizer.encode(part, {.add_bos_eos = false});
    if (std::ssize(tokens) <= max_tokens || part.size() < 2) {
      units.push_back({part, std::move(tokens)});
      return;
    }
    size_t middle = part.rfind(' ', part.size() / 2);
    middle = middle == part.npos || middle == 0 ? part.size() / 2 : middle + 1;
    while (middle < part.size() && (static_cast<unsigned char>(part[middle]) & 0xc0) == 0x80) ++middle;
    if (middle == part.size()) return units.push_back({part, std::move(tokens)});
    add(part.substr(0, middle));
    add(part.substr(middle));
  };
  for (const std::string_view sentence : sentences_of(text)) add(sentence);
  return units;
}

std::string join_units(const std::vector<TextUnit>& units, const std::vector<size_t>& chosen) {
  std::string text;
  for (const size_t i : chosen) text += units[i].text;
  return text;
}

WindowReader::WindowReader(std::string_view question, const ReaderContext& model, int64_t window)
    : model_(model),
      bos_(bos_tokens(model.tokenizer)),
      question_(model.tokenizer.encode(question, {.add_bos_eos = false})) {
  const auto reserved = first_text_token() + kAnswerTokens;
  room_ = window - std::ssize(question_) - reserved;
  if (room_ < kMinTextTokens) {
    fail("the question has ", question_.size(), " tokens and leaves fewer than ", kMinTextTokens,
         " for a text in a window of ", window, " tokens, of which ", reserved,
         " are reserved for BOS and the answer");
  }
}

bool WindowReader::fits(std::string_view text) const {
  return std::ssize(model_.tokenizer.encode(text, {.add_bos_eos = false})) <= room_;
}

Session WindowReader::read(std::span<const int32_t> text, const std::function<void(Session&)>& before,
                           const AppendOptions& options, int layers) {
  Session session = model_.session(layers);
  if (before) before(session);
  std::vector<int32_t> tokens = bos_;
  tokens.insert(tokens.end(), text.begin(), text.end());
  tokens.insert(tokens.end(), question_.begin(), question_.end());
  AppendOptions reported = options;
  if (model_.progress) reported.progress = [this](int64_t done) { model_.progress(done_ + done); };
  session.append(tokens, reported);
  done_ += std::ssize(tokens);
  return session;
}

}  // namespace fathom
