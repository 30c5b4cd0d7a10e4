#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "decode/draft.h"
#include "decode/draft_budget.h"
#include "decode/draft_memory.h"
#include "decode/draft_report.h"
#include "decode/verify.h"

namespace fathom {

struct DraftOptions {
  std::vector<std::string> methods;  // specs of --draft methods; empty: no drafts
  int nodes = 0;                     // most tokens of a draft; 0: the budget chooses them by measured cost
};

/// Throws Error (usage) for the spec of a --draft method that does not exist, or with unknown parameters.
void check_draft_method(const std::string& method);
/// Throws Error (usage) that names the method if drafts do not work with the session: because of its --attend or
/// --evict method, or the model.
void check_drafts_work(const Session& session, const std::string& method);

/// Drafts for one text: the sources, their budget and a report. Not thread-safe.
class Drafter {
 public:
  /// methods: "auto" stands for the training-free sources that need no other model; "none" for no drafts. Throws
  /// Error (usage) for unknown methods, for sources that cannot be combined, and for methods other than auto if the
  /// session reads no drafts (Session::draft_shape) or has an evictor. With setup.memory it continues from what the
  /// latest text with the same methods and session options has learned.
  Drafter(const DraftOptions& options, const DraftSetup& setup);
  /// Drafts with one source; name: for the report; nodes: as in DraftOptions.
  Drafter(std::unique_ptr<DraftSource> source, std::string name, int nodes, Session& session);

  /// Whether the text is not that of plain decoding.
  bool changes_text() const { return source_ && source_->changes_text(); }
  /// Returns whether there are sources. If not, propose() returns empty drafts.
  explicit operator bool() const { return source_ != nullptr; }
  /// Called once with the prompt, which the session has read.
  void start(std::span<const int32_t> prompt);
  /// Returns a draft of at most `most` nodes, possibly empty.
  Draft propose(DraftContext context, int most);
  /// A verified step: the outcome, and the seconds of its pass and verification.
  void observe(DraftOutcome outcome, const NodeLogits& logits, double seconds);
  /// Called once, at the end of the text.
  void finish(std::span<const int32_t> tokens);
  const DraftReport& report() const { return report_; }

 private:
  void use(std::unique_ptr<DraftSource> source, std::vector<std::string> names);
  std::span<const float> needed_hidden(std::span<const float> kept);

  Session& session_;
  std::unique_ptr<DraftSource> source_;
  DraftNeeds needs_;
  int fixed_nodes_;
  DraftBudget budget_;
  DraftMemory* memory_ = nullptr;  // null: none
  std::string memory_key_;
  DraftReport report_{{}};
  int64_t context_ = 0;
  double start_seconds_ = 0, draft_seconds_ = 0;
  std::vector<TokenLogit> top_;
  std::vector<float> hidden_;  // of the layers that the source needs
};

/// Removes all nodes but one path from a root, that with the most expected accepted nodes. The result is kFixed
/// unless the draft is a chain already.
Draft best_chain(Draft draft);

}  // namespace fathom
