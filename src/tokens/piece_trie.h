#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokens/vocabulary.h"

namespace fathom {

/// Finds the pieces that are prefixes of a text: an immutable trie over bytes.
class PieceTrie {
 public:
  PieceTrie() = default;
  /// Ignores empty texts. Of equal texts the lowest id is kept.
  explicit PieceTrie(std::vector<std::pair<std::string, int32_t>> pieces);

  bool empty() const { return nodes_.size() <= 1; }
  /// Returns whether a piece begins with this byte.
  bool starts(unsigned char byte) const { return root_[byte] != 0; }

  /// Calls visit(bytes, id) for every piece that is a prefix of `text`, shortest first.
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
    size_t bytes = 0;  // 0: no piece matches
    int32_t id = kNoToken;
  };
  /// Returns the longest piece that is a prefix of `text`.
  Match longest_prefix(std::string_view text) const;

 private:
  struct Node {
    uint32_t first_child = 0;
    uint16_t children = 0;  // consecutive nodes, ascending by byte
    unsigned char byte = 0;
    int32_t id = kNoToken;
  };
  /// Returns the child of a node by byte; 0 if there is none.
  uint32_t child(uint32_t node, unsigned char byte) const;

  std::vector<Node> nodes_;
  std::vector<uint32_t> root_ = std::vector<uint32_t>(256, 0);  // children of the root by byte; 0: none
};

}  // namespace fathom
