#include "context/segments.h"

#include <algorithm>

#include "base/error.h"
#include "tokens/prompt.h"

namespace fathom {
namespace {

constexpr size_t kLeastBytes = 9;   // of a sentence
constexpr int64_t kAnswer = 64;     // tokens of the window that are left for the answer
constexpr int64_t kLeastRoom = 16;  // tokens of text below which reading makes no sense

/// Bytes of the mark that ends a sentence at `at`; 0: none.
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
    // a fragment goes with the sentence before it
    if (end - begin < kLeastBytes && !sentences.empty() && !sentences.back().ends_with('\n')) {
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

std::vector<Unit> units_of(std::string_view text, const Tokenizer& tokenizer, int64_t most) {
  std::vector<Unit> units;
  const std::function<void(std::string_view)> add = [&](std::string_view part) {
    std::vector<int32_t> tokens = tokenizer.encode(part, {.add_bos_eos = false});
    if (std::ssize(tokens) <= most || part.size() < 2) {
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

std::string joined_units(const std::vector<Unit>& units, const std::vector<size_t>& chosen) {
  std::string text;
  for (const size_t i : chosen) text += units[i].text;
  return text;
}

ReadRun::ReadRun(std::string_view question, const ReaderContext& with, int64_t window)
    : with_(with),
      beginning_(bos_tokens(with.tokenizer)),
      question_(with.tokenizer.encode(question, {.add_bos_eos = false})) {
  const auto special = first_text_token() + kAnswer;
  room_ = window - std::ssize(question_) - special;
  if (room_ < kLeastRoom) {
    fail("the question has ", question_.size(), " tokens, which leaves no room for a text in a window of ", window,
         " tokens (", special, " are kept for the answer)");
  }
}

bool ReadRun::fits(std::string_view text) const {
  return std::ssize(with_.tokenizer.encode(text, {.add_bos_eos = false})) <= room_;
}

Session ReadRun::read(std::span<const int32_t> text, const std::function<void(Session&)>& before,
                      const AppendOptions& options, int layers) {
  Session session = with_.session(layers);
  if (before) before(session);
  std::vector<int32_t> tokens = beginning_;
  tokens.insert(tokens.end(), text.begin(), text.end());
  tokens.insert(tokens.end(), question_.begin(), question_.end());
  AppendOptions counted = options;
  if (with_.progress) counted.progress = [this](int64_t done) { with_.progress(done_ + done); };
  session.append(tokens, counted);
  done_ += std::ssize(tokens);
  return session;
}

}  // namespace fathom
