#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

/// A set of byte strings, which are parts of one text, sorted. Prefixes are found by binary search.
class StringSet {
 public:
  /// A part of the text, in bytes.
  struct Part {
    size_t begin = 0, end = 0;
  };
  /// The strings [first, last) of the set, which begin with the same `bytes` bytes. Never empty.
  struct Prefix {
    size_t first = 0, last = 0, bytes = 0;
    size_t count() const { return last - first; }
  };

  /// Of equal strings the first part is kept. Throws Error if there are no parts, or if one is empty.
  StringSet(std::string text, std::vector<Part> parts);

  size_t size() const { return parts_.size(); }
  /// Returns a string of the set; i: in sorted order.
  std::string_view operator[](size_t i) const {
    return std::string_view(text_).substr(parts_[i].begin, parts_[i].end - parts_[i].begin);
  }
  const Part& part(size_t i) const { return parts_[i]; }

  Prefix start() const { return {0, size(), 0}; }
  /// Extends the prefix by a byte. Returns false, changing nothing, if no string begins so.
  bool step(Prefix& prefix, unsigned char byte) const;
  /// Returns whether the prefix is a string of the set.
  bool is_complete(const Prefix& prefix) const { return (*this)[prefix.first].size() == prefix.bytes; }

 private:
  std::string text_;
  std::vector<Part> parts_;  // sorted by their strings, without duplicates
};

}  // namespace fathom
