#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

/// SentencePiece's compiled normalisation rules: a double-array trie of byte strings, each with its replacement.
/// Layout: uint32 trie bytes (little-endian), the trie's units of 32 bits, then the replacements, each ended by a
/// zero byte.
class Charsmap {
 public:
  Charsmap() = default;
  /// Throws Error if the parts do not fit; `source` names the file.
  Charsmap(std::string_view blob, std::string_view source);

  bool empty() const { return units_.empty(); }

  struct Match {
    size_t bytes = 0;  // of the text; 0: no rule
    std::string_view replacement;
  };
  /// The rule with the longest pattern that `text` begins with.
  Match longest_prefix(std::string_view text) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;  // ends with a zero byte
};

}  // namespace fathom
