// Drafts with the target model itself, which attends to selected tokens only.
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/draft.h"
#include "decode/drafts/draft_model.h"
#include "decode/drafts/grow.h"

namespace fathom {
namespace {

class SelfSource final : public DraftSource {
 public:
  SelfSource(const Values& values, const DraftSetup& setup)
      : session_(setup.session),
        tokenizer_(setup.tokenizer),
        attend_(values.string("attend")),
        length_(static_cast<int>(values.integer("length"))),
        confidence_(values.number("confidence")),
        rule_(read_rule(values)) {
    if (!session_) fail_usage("--draft self: expected a session of the model that is to be continued, found none");
    static_cast<void>(session_->fork(attend_));  // throws Error (usage) for an unsuitable method
  }

  Draft propose(const DraftContext& context, int nodes) override {
    if (session_->length() + 1 != std::ssize(context.tokens)) return {};
    try {
      return draft(context, nodes);
    } catch (const std::bad_alloc&) {
    } catch (const Error& error) {
      if (error.kind() != Error::Kind::kOutOfMemory && error.kind() != Error::Kind::kInterrupted) throw;
    }
    return {};
  }

 private:
  /// Returns the number of tokens that a copy of the session can read.
  int64_t room() const {
    const int64_t context = session_->options().context;
    return context > 0 ? context - session_->length() : DraftTree::kMaxNodes;
  }

  /// Drafts with a copy of the session, which shares its pages and is discarded.
  Draft draft(const DraftContext& context, int nodes) const {
    const int64_t length = std::min<int64_t>(length_, room());
    if (length < 1) return {};
    Session fork = session_->fork(attend_);
    std::vector<int32_t> text(context.tokens.begin(), context.tokens.end());
    GrowthTask task = growth_task(context, nodes, rule_);
    task.expand = [&](const Draft& draft, std::span<const int> parent) {
      if (parent[0] >= 0) text.push_back(draft.tokens[parent[0]]);
      if (parent[0] >= 0 && tokenizer_ && tokenizer_->ends_generation(text.back()))
        return std::vector<TokenDistribution>();
      fork.append({&text.back(), 1});
      const int64_t position = context.position + (parent[0] < 0 ? 0 : draft.tree.depth(parent[0]) + 1);
      return std::vector<TokenDistribution>(
          1, child_distribution(*context.sampler, fork.logits(), text, position, rule_));
    };
    return grow_chain(task, static_cast<int>(length), confidence_);
  }

  Session* session_;
  const Tokenizer* tokenizer_;
  std::string attend_;
  int length_;
  double confidence_;
  DraftRule rule_;
};

}  // namespace

DraftEntry self_method() {
  using Type = Parameter::Type;
  return {
      {.name = "self",
       .summary = "the model itself drafts a chain, attending to selected tokens only",
       .paper = "TriForce: Lossless Acceleration of Long Sequence Generation with Hierarchical Speculative "
                "Decoding, 2024",
       .exact = true,
       .needs = "any model",
       .time = "one pass per drafted token with sparse attention, and the state of the --attend method for each "
               "draft",
       .memory = "one page per layer and head",
       .parameters = {{.name = "attend",
                       .type = Type::kSpec,
                       .default_value = "quest:budget=256",
                       .summary = "--attend method of the drafts; a smaller budget is faster and less accurate"},
                      {.name = "length",
                       .type = Type::kInt,
                       .default_value = "4",
                       .summary = "tokens of a draft; more pays off if most are accepted",
                       .min = 1,
                       .max = DraftTree::kMaxNodes - 1},
                      {.name = "confidence",
                       .type = Type::kFloat,
                       .default_value = "0",
                       .summary = "a draft ends after a token with a lower probability; more: shorter drafts",
                       .min = 0,
                       .max = 1},
                      rule_parameter()}},
      [](const Values& values, const DraftSetup& setup) { return std::make_unique<SelfSource>(values, setup); }};
}

}  // namespace fathom
