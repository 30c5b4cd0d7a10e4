#include "tokens/piece_trie.h"

#include <algorithm>

namespace fathom {

PieceTrie::PieceTrie(std::vector<std::pair<std::string, int32_t>> pieces) {
  std::erase_if(pieces, [](const auto& piece) { return piece.first.empty(); });
  std::ranges::sort(pieces);
  struct Range {
    uint32_t node;
    size_t begin, end, depth;  // pieces below the node share their first `depth` bytes
  };
  nodes_.emplace_back();
  std::vector<Range> ranges{{0, 0, pieces.size(), 0}};
  for (size_t r = 0; r < ranges.size(); ++r) {  // breadth first, so that the children of a node are consecutive
    auto [node, begin, end, depth] = ranges[r];
    for (; begin < end && pieces[begin].first.size() == depth; ++begin) {
      if (nodes_[node].id == kNoToken) nodes_[node].id = pieces[begin].second;
    }
    nodes_[node].first_child = static_cast<uint32_t>(nodes_.size());
    while (begin < end) {
      const char byte = pieces[begin].first[depth];
      size_t next = begin;
      while (next < end && pieces[next].first[depth] == byte) ++next;
      ranges.push_back({static_cast<uint32_t>(nodes_.size()), begin, next, depth + 1});
      nodes_.push_back({0, 0, static_cast<unsigned char>(byte), kNoToken});
      ++nodes_[node].children;
      begin = next;
    }
  }
  for (uint32_t i = 0; i < nodes_[0].children; ++i) {
    const uint32_t node = nodes_[0].first_child + i;
    root_[nodes_[node].byte] = node;
  }
}

uint32_t PieceTrie::child(uint32_t node, unsigned char byte) const {
  const Node* first = nodes_.data() + nodes_[node].first_child;
  const Node* last = first + nodes_[node].children;
  const Node* found =
      std::lower_bound(first, last, byte, [](const Node& n, unsigned char b) { return n.byte < b; });
  return found != last && found->byte == byte ? static_cast<uint32_t>(found - nodes_.data()) : 0;
}

PieceTrie::Match PieceTrie::longest_prefix(std::string_view text) const {
  Match longest;
  for_each_prefix(text, [&](size_t bytes, int32_t id) { longest = {bytes, id}; });
  return longest;
}

}  // namespace fathom
