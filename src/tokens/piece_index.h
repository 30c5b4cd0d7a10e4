#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokens/vocabulary.h"

namespace fathom {

/// Returns a 64-bit hash of `text`.
uint64_t hash_text(std::string_view text);

/// Maps texts to ids with an open-addressing hash table. Of equal texts the first added is kept.
class PieceIndex {
 public:
  void add(std::string_view text, int32_t id);
  /// Returns the id of `text`; kNoToken if there is none.
  int32_t find(std::string_view text) const;
  size_t max_bytes() const { return max_bytes_; }  // of the longest piece

 private:
  struct Slot {
    uint32_t tag = 0;  // upper half of the hash, compared before the texts
    int32_t id = kNoToken;
    uint32_t begin = 0, bytes = 0;  // in texts_
  };
  size_t locate(std::string_view text, uint64_t hash) const;
  void grow();

  std::vector<Slot> slots_;  // a power of two, at most half full
  std::string texts_;
  size_t count_ = 0;
  size_t max_bytes_ = 0;
};

}  // namespace fathom
