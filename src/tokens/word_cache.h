#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace fathom {

/// Caches the ids of words of one text: a hash table without probing, in which a new word replaces the one in its
/// slot. Words are views of the text and ids are ranges of the output, so nothing is copied.
class WordCache {
 public:
  /// bytes: length of the text, which bounds the size of the table.
  explicit WordCache(size_t bytes);

  /// Appends the ids of `word` to `ids`: copied from an earlier call if cached, else by make(ids). `word` must
  /// outlive the cache. `ids` must be the same vector in all calls and must only grow.
  template <class Make>
  void append(std::string_view word, std::vector<int32_t>& ids, Make&& make) {
    Slot& slot = slots_[locate(word)];
    if (slot.word == word) {
      const size_t old = ids.size();
      ids.resize(old + slot.count);
      for (size_t i = 0; i < slot.count; ++i) ids[old + i] = ids[slot.begin + i];
      return;
    }
    const size_t begin = ids.size();
    make(ids);
    if (word.size() <= kMaxWordBytes) slot = {word, begin, ids.size() - begin};
  }

 private:
  static constexpr size_t kMaxWordBytes = 64;  // longer words rarely repeat
  struct Slot {
    std::string_view word;  // empty: free
    size_t begin = 0, count = 0;
  };
  size_t locate(std::string_view word) const;
  std::vector<Slot> slots_;  // a power of two
};

}  // namespace fathom
