#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "decode/draft_budget.h"

namespace fathom {

/// What the drafts of a model's earlier texts have learned: costs, acceptance and the experience of the sources. So
/// a turn of a conversation starts with the budget that the turn before it has measured. Thread-safe.
class DraftMemory {
 public:
  struct Entry {
    DraftBudget budget;
    std::shared_ptr<const DraftExperience> experience;  // null: none
  };

  /// Returns the entry of the latest text with this key, or none.
  std::optional<Entry> find(const std::string& key) const;
  /// Replaces the entry of the key. If there are already kMaxEntries others, it removes one of them.
  void store(const std::string& key, Entry entry);

 private:
  static constexpr size_t kMaxEntries = 16;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace fathom
