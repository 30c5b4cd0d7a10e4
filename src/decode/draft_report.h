#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "decode/draft.h"

namespace fathom {

/// Counts of the drafts of one text.
class DraftReport {
 public:
  /// The largest number of entries of curve().
  static constexpr size_t kMaxEntries = 4096;

  /// The nodes of one source.
  struct Source {
    std::string name;
    int64_t proposed = 0;  // verified nodes, without probes
    int64_t accepted = 0;
  };
  /// Consecutive forward passes.
  struct Entry {
    int64_t forwards = 0, emitted = 0;
  };

  /// sources: names, by Draft::sources.
  explicit DraftReport(std::vector<std::string> sources);

  /// Adds a forward pass. draft: the verified one, possibly empty. emitted: number of tokens. Throws Error for a
  /// node of an unknown source and for an accepted node that the draft does not have.
  void add(const Draft& draft, std::span<const int> accepted, int64_t emitted, double draft_seconds);

  /// Adds a forward pass with drafts of the first source that has its own verification.
  void add(int64_t proposed, int64_t accepted, int64_t emitted);

  int64_t forwards() const { return forwards_; }
  int64_t emitted() const { return emitted_; }
  int64_t proposed() const;
  int64_t accepted() const;
  double draft_seconds() const { return draft_seconds_; }
  const std::vector<Source>& sources() const { return sources_; }
  /// Returns emitted tokens per forward pass; 0 before the first one.
  double tokens_per_forward() const;
  /// Returns the passes in order, each entry with the same number of them except for the last one. The number
  /// doubles when there are more than kMaxEntries entries.
  std::span<const Entry> curve() const { return curve_; }
  /// Returns one line: "412 tokens in 180 passes, 2.29 per pass; accepted 232 of 512 drafted tokens (lookup 200 of
  /// 400, table 32 of 112); drafting took 0.12 s".
  std::string summary() const;

 private:
  void add_pass(int64_t emitted);

  std::vector<Source> sources_;
  std::vector<Entry> curve_;
  int64_t per_entry_ = 1;  // forward passes of a full entry
  int64_t forwards_ = 0, emitted_ = 0;
  double draft_seconds_ = 0;
};

}  // namespace fathom
