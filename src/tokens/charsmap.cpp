#include "tokens/charsmap.h"

#include <cstring>

#include "base/error.h"

namespace fathom {
namespace {

// A unit with bit 31 set holds a value in the other 31 bits. Otherwise bits 0-7 are the byte on the edge to this
// node, bit 8 is set if the node has a value, and bits 10-30 are the offset to the children, shifted left by 8 if
// bit 9 is set.
bool has_value(uint32_t unit) { return unit >> 8 & 1; }
uint32_t value(uint32_t unit) { return unit & 0x7fffffff; }
uint32_t label(uint32_t unit) { return unit & 0x800000ff; }
uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

}  // namespace

Charsmap::Charsmap(std::string_view blob, std::string_view source) {
  if (blob.empty()) return;
  uint32_t trie_bytes = 0;
  if (blob.size() >= sizeof trie_bytes) std::memcpy(&trie_bytes, blob.data(), sizeof trie_bytes);
  const size_t room = blob.size() < sizeof trie_bytes ? 0 : blob.size() - sizeof trie_bytes;
  if (trie_bytes == 0 || trie_bytes % sizeof(uint32_t) != 0 || trie_bytes >= room || blob.back() != '\0') {
    fail(source, ": metadata key 'tokenizer.ggml.precompiled_charsmap': expected a trie of 32-bit units and ",
         "zero-terminated replacements, found a trie of ", trie_bytes, " bytes in ", blob.size(), " bytes");
  }
  units_.resize(trie_bytes / sizeof(uint32_t));
  std::memcpy(units_.data(), blob.data() + sizeof trie_bytes, trie_bytes);
  replacements_ = blob.substr(sizeof trie_bytes + trie_bytes);
}

Charsmap::Match Charsmap::longest_prefix(std::string_view text) const {
  Match longest;
  if (empty()) return longest;
  size_t node = offset(units_[0]);
  for (size_t i = 0; i < text.size() && text[i] != '\0'; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= offset(unit);
    if (!has_value(unit)) continue;
    if (node >= units_.size() || value(units_[node]) >= replacements_.size()) break;
    longest = {i + 1, replacements_.c_str() + value(units_[node])};
  }
  return longest;
}

}  // namespace fathom
