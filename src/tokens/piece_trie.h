#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokens/vocabulary.h"

namespace fathom {

/// Ids by prefix of a text: a tree of bytes, fixed once built.
class PieceTrie {
 public:
  PieceTrie() = default;
  /// Empty texts are left out; of equal texts the lowest id counts.
  explicit PieceTrie(std::vector<std::pair<std::string, int32_t>> pieces);

  bool empty() const { return nodes_.size() <= 1; }
  /// Whether a piece begins with this byte.
  bool starts(unsigned char byte) const { return root_[byte] != 0; }

  /// Calls visit(bytes, id) for every piece that `text` begins with, shortest first.
  template <class Visit>
  void for_each_prefix(std::string_view text, Visit&& visit) const {
    if (text.empty()) return;
    uint32_t node = root_[static_cast<unsigned char>(text[0])];
    for (size_t bytes = 1; node != 0; ++bytes) {
      if (nodes_[node].id != kNoToken) visit(bytes, nodes_[node].id);
      if (bytes == text.size()) return;
      node = child(node, text[bytes]);
    }
  }

  struct Match {
    size_t bytes = 0;  // 0: none
    int32_t id = kNoToken;
  };
  /// The longest piece that `text` begins with.
  Match longest_prefix(std::string_view text) const;

 private:
  struct Node {
    uint32_t first_child = 0;
    uint16_t children = 0;  // next to each other, ascending by byte
    unsigned char byte = 0;
    int32_t id = kNoToken;
  };
  uint32_t child(uint32_t node, unsigned char byte) const;

  std::vector<Node> nodes_;
  std::vector<uint32_t> root_ = std::vector<uint32_t>(256, 0);  // children of the root by byte; 0: none
};

}  // namespace fathom
