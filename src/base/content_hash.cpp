#include "base/content_hash.h"

#include <cstring>

namespace fathom {

void ContentHash::add(uint64_t number) {
  uint64_t x = (state_ ^ number) + 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  state_ = x ^ (x >> 31);
}

void ContentHash::add(std::string_view bytes) {
  add(static_cast<uint64_t>(bytes.size()));
  while (!bytes.empty()) {
    uint64_t word = 0;
    const size_t taken = bytes.size() < sizeof word ? bytes.size() : sizeof word;
    std::memcpy(&word, bytes.data(), taken);
    add(word);
    bytes.remove_prefix(taken);
  }
}

uint64_t hash_content(std::string_view bytes) {
  ContentHash hash;
  hash.add(bytes);
  return hash.value();
}

}  // namespace fathom
