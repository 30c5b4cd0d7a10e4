#include "tokens/word_cache.h"

#include <algorithm>
#include <bit>

#include "tokens/piece_index.h"

namespace fathom {

// 2^15 slots hold the distinct words of a book (about 20,000) and fit into an L2 cache.
WordCache::WordCache(size_t bytes) : slots_(std::bit_ceil(std::clamp<size_t>(bytes / 8, 1, 1 << 15))) {}

size_t WordCache::locate(std::string_view word) const {
  return word.size() <= kMaxWordBytes ? hash_text(word) >> 20 & (slots_.size() - 1) : 0;
}

}  // namespace fathom
