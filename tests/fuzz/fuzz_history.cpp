#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/drafts/history.h"

/// The bytes are a draft history. It is read, or refused, or counts as damaged; then it can be searched and
/// extended, and reads back with the appended text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fathom;
  static const std::string path = "/tmp/fathom-fuzz-history-" + std::to_string(getpid());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  constexpr DraftHistory::Key kKey{.vocabulary = 16, .hash = 7};
  const std::array<int32_t, 6> text{1, 2, 3, 4, 1, 2};
  try {
    const DraftHistory history(path, 64, kKey);
    std::vector<DraftHistory::Match> matches;
    history.find(text, matches);
    for (const DraftHistory::Match& match : matches)
      if (match.next > history.tokens().size() || match.length < DraftHistory::kGram) std::terminate();
    history.append(text);
    const DraftHistory again(path, 64, kKey);
    if (!again.damage().empty() || again.tokens().size() < text.size()) std::terminate();
  } catch (const Error&) {
  }
  std::remove(path.c_str());
  return 0;
}
