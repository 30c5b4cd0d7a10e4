// The places of a context that an answer attended to.
#include <algorithm>

#include "serve/service.h"

namespace fathom::serve {
namespace {

constexpr size_t kStripCells = 256;
constexpr size_t kPassages = 4;           // that are shown
constexpr size_t kFirstTokens = 4;        // get attention whatever they are
constexpr int64_t kLongestPassage = 300;  // bytes
constexpr double kLeastShare = 0.01;

/// Returns the end of the sentence or line that begins at `begin`.
int64_t passage_end(std::string_view text, int64_t begin) {
  const auto longest = std::min<int64_t>(std::ssize(text), begin + kLongestPassage);
  for (int64_t at = begin; at < longest; ++at) {
    const bool sentence = (text[at] == '.' || text[at] == '!' || text[at] == '?') && at + 1 < std::ssize(text) &&
                          (text[at + 1] == ' ' || text[at + 1] == '\n');
    if (sentence || text[at] == '\n') return at + 1;
  }
  int64_t end = longest;  // not inside a character
  while (end < std::ssize(text) && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) ++end;
  return end;
}

}  // namespace

AttendedText Service::attended_text(const TextRequest& request, const std::vector<double>& attention) const {
  AttendedText found;
  found.strip.resize(kStripCells);
  const std::shared_ptr<const ContextFile> file = contexts_.file(request.client, request.context);
  const std::string_view text = file->text();
  const std::span<const int64_t> offsets = file->offsets();
  const size_t tokens = std::min(offsets.size(), attention.size());
  double total = 0;
  for (size_t i = kFirstTokens; i < tokens; ++i) total += attention[i];
  if (text.empty() || total <= 0) return found;
  for (size_t i = kFirstTokens; i < tokens; ++i) {
    const auto at = static_cast<size_t>(std::min<int64_t>(offsets[i], std::ssize(text) - 1));
    found.strip[at * kStripCells / text.size()] += attention[i] / total;
  }
  size_t token = 0;
  for (int64_t begin = 0; begin < std::ssize(text);) {
    Passage passage{begin, passage_end(text, begin), 0};
    for (; token < tokens && offsets[token] < passage.end; ++token)
      if (token >= kFirstTokens) passage.share += attention[token] / total;
    begin = passage.end;
    const size_t first = text.find_first_not_of(" \n\r\t", static_cast<size_t>(passage.begin));
    if (passage.share < kLeastShare || first == std::string::npos || static_cast<int64_t>(first) >= passage.end)
      continue;
    passage.begin = static_cast<int64_t>(first);
    found.passages.push_back(passage);
  }
  std::ranges::stable_sort(found.passages, std::ranges::greater(), &Passage::share);
  if (found.passages.size() > kPassages) found.passages.resize(kPassages);
  return found;
}

}  // namespace fathom::serve
