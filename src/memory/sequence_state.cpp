#include "memory/sequence_state.h"

#include <algorithm>

#include "memory/sequence.h"

namespace fathom {

SequenceLayer::SequenceLayer(const Sequence& sequence, int layer, int query_heads)
    : kv_(layer < sequence.layers() ? sequence.paged(layer) : nullptr), query_heads_(query_heads) {}

int64_t SequenceLayer::entries(int head, int64_t tokens) const {
  const PageTable& table = kv_->table(head);
  return std::ranges::lower_bound(table, tokens, {}, &PageEntry::first) - table.begin();
}

int SequenceLayer::take_heads(ByteReader& in) const {
  const auto found = in.take<int32_t>();
  in.check(found == 0 || found == heads(), "expected 0 or ", heads(), " key/value heads, found ", found);
  return found;
}

}  // namespace fathom
