#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace fathom {

/// Remembers which ids words gave earlier in the same text: a table without chains, where a newcomer takes the
/// place of whoever sits there. Words are views and ids are ranges of the output, so nothing is copied to remember.
class WordCache {
 public:
  /// bytes: of the text to come, which bounds the table.
  explicit WordCache(size_t bytes);

  /// Appends the ids of `word` to `ids` by calling make(ids), or from an earlier time. `word` must outlive the
  /// cache, and `ids` be the same vector in all calls, which only grows.
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
  static constexpr size_t kMaxWordBytes = 64;  // longer ones seldom come again
  struct Slot {
    std::string_view word;  // empty: free
    size_t begin = 0, count = 0;
  };
  size_t locate(std::string_view word) const;
  std::vector<Slot> slots_;  // a power of two
};

}  // namespace fathom
