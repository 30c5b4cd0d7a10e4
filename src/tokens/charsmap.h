#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

/// SentencePiece's compiled normalisation rules: a double-array trie of byte strings, each with a replacement.
/// Layout: a little-endian uint32 with the trie's size in bytes, the trie's 32-bit units, then the zero-terminated
/// replacements.
class Charsmap {
 public:
  Charsmap() = default;
  /// Throws Error if the layout is inconsistent. source: the file, for messages.
  Charsmap(std::string_view blob, std::string_view source);

  bool empty() const { return units_.empty(); }

  struct Match {
    size_t bytes = 0;  // matched bytes of the text; 0: no rule matches
    std::string_view replacement;
  };
  /// Returns the rule with the longest pattern that is a prefix of `text`.
  Match longest_prefix(std::string_view text) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;  // ends with a zero byte
};

}  // namespace fathom
