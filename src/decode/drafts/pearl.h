#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "decode/draft.h"
#include "decode/generate.h"

namespace fathom {

/// The two models of a PEARL loop. draft() is called at the same time as read(), from another thread.
class PearlModels {
 public:
  virtual ~PearlModels() = default;
  /// Drafter: returns a chain of at most n tokens that continues `text`, as a DraftSource; possibly empty. Its last
  /// token is not read.
  virtual Draft draft(std::span<const int32_t> text, int n) = 0;
  /// Target: reads a block of tokens after those that were kept. Returns the logits after each, [tokens,
  /// vocabulary].
  virtual std::vector<float> read(std::span<const int32_t> block) = 0;
  /// Target: keeps the first n tokens of the block that was read last, and discards the others.
  virtual void keep(int n) = 0;
  /// Returns the duration of a pass of the target divided by that of a drafted token; 0: unknown.
  virtual double cost_ratio() const = 0;
};

struct PearlOptions {
  int length = 0;       // tokens per slot; 0: as many as the drafter makes during a pass of the target
  int max_length = 16;  // the most for length = 0
};

/// Numbers of a run. A slot is one pass of the target, with the drafts made meanwhile.
struct PearlCounts {
  int64_t slots = 0;
  int64_t pre_slots = 0;              // of them in mode PRE
  int64_t drafted = 0, accepted = 0;  // tokens
};

/// The modes of PEARL, without the models and the end of the text.
/// - PRE: the target reads the pending token, while the drafter continues the text after it. If the first drafted
///   token passes, the draft is the pending block of mode POST. Otherwise the draft is discarded.
/// - POST: the target reads the pending block, whose first token has been emitted, while the drafter continues the
///   text after it. The other tokens of the block and the first new token are tested. If all pass, the new draft is
///   the next pending block. Otherwise the mode is PRE.
/// Each tested token is accepted as in speculative sampling, and an emitted token never comes from the target alone
/// while the drafter drafts. So for a seed the tokens do not depend on the lengths of the drafts.
/// Source: PEARL: Parallel Speculative Decoding with Adaptive Draft Length, 2025.
class PearlLoop {
 public:
  /// The models and the sampler must outlive this.
  PearlLoop(PearlModels& models, Sampler& sampler, PearlOptions options);

  /// Runs one slot. history: the text; its last token is the pending one, which the target has not read; the
  /// emitted tokens are appended. position: of the token after the pending one. room: number of tokens that the
  /// target can read, at least 1. emit: returns whether the text continues. If it throws, the target keeps nothing
  /// of the slot.
  void slot(std::vector<int32_t>& history, int64_t position, int64_t room,
            const std::function<bool(int32_t)>& emit);
  const PearlCounts& counts() const { return counts_; }

 private:
  int length() const;
  void test(std::span<const float> logits, int read, const Draft& next, std::vector<int32_t>& history,
            int64_t position, const std::function<bool(int32_t)>& emit);

  PearlModels& models_;
  Sampler& sampler_;
  PearlOptions options_;
  std::vector<int32_t> block_;  // the pending block; empty: mode PRE
  Draft block_draft_;           // its tokens after the first, with the distributions they were drawn from
  PearlCounts counts_;
};

/// What a PEARL run needs from the drafting model.
struct PearlSetup {
  std::shared_ptr<const Model> drafter;  // with the vocabulary of the target
  std::shared_ptr<Runtime> runtime;      // of the drafter; not that of the target
  SessionOptions options{};              // of the drafter's session; `stop` is that of the target
};

/// What `--draft pearl:file=...` stands for.
struct PearlChoice {
  PearlSetup setup;
  PearlOptions options;
};
/// Returns the choice if one of the specs names pearl; nullopt: none does. Throws Error (usage) for a wrong
/// parameter or model, and if there are other specs.
std::optional<PearlChoice> find_pearl(std::span<const std::string> specs, const DraftSetup& setup);

/// As generate(), with drafter and target at work at the same time, in two threads. A greedy sampler gives the same
/// tokens; other samplers give tokens with the same distribution. Throws Error (usage) if both models share a
/// runtime, or if the session does not work with drafts.
Generated generate_pearl(Session& session, const PearlSetup& setup, const Tokenizer& tokenizer, Sampler& sampler,
                         std::span<const int32_t> prompt, const GenerateOptions& options = {},
                         const PearlOptions& pearl = {},
                         const std::function<void(std::string_view)>& on_text = nullptr,
                         PearlCounts* counts = nullptr);

}  // namespace fathom
