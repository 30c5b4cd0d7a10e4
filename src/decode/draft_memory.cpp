#include "decode/draft_memory.h"

#include <utility>

namespace fathom {

std::optional<DraftMemory::Entry> DraftMemory::find(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  return found == entries_.end() ? std::nullopt : std::optional(found->second);
}

void DraftMemory::store(const std::string& key, Entry entry) {
  const std::lock_guard lock(mutex_);
  if (entries_.size() >= kMaxEntries && !entries_.contains(key)) entries_.erase(entries_.begin());
  entries_.insert_or_assign(key, std::move(entry));
}

}  // namespace fathom
