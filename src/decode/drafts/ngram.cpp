// Prompt lookup: copies what followed the latest earlier occurrence of the newest tokens.
#include <algorithm>
#include <array>
#include <memory>

#include "base/error.h"
#include "decode/draft.h"
#include "decode/drafts/acceptance.h"
#include "decode/drafts/match_rates.h"
#include "decode/drafts/ngram_table.h"

namespace fathom {
namespace {

class NgramSource final : public DraftSource {
 public:
  NgramSource(int min, int max) {
    for (int n = max; n >= min; --n) tables_.emplace_back(n);
  }

  void start(std::span<const int32_t> prompt) override { read(prompt); }

  Draft propose(const DraftContext& context, int nodes) override {
    read(context.tokens);
    const std::span<const int32_t> text(text_);
    Draft draft;
    if (const size_t from = find(); from > 0) {
      matched_ = match_length(from);
      for (int i = 0; i < nodes; ++i) {
        // A copy that reaches the end of the text continues with its own first tokens: the text is periodic.
        const size_t index = from + i;
        const int32_t token = index < text.size() ? text[index] : draft.tokens[index - text.size()];
        draft.add(i - 1, token, rates_.estimate(matched_ + i));
      }
    }
    proposed_.set(draft, context.tokens.size());
    return draft;
  }

  void observe(const DraftOutcome& outcome) override {
    proposed_.compare(outcome, [&](int parent, int child) { rates_.add(matched_ + parent + 1, child >= 0); });
  }

  std::shared_ptr<const DraftExperience> experience() const override {
    return std::make_shared<MatchRates>(rates_);
  }
  void adopt(const DraftExperience& experience) override { rates_ = dynamic_cast<const MatchRates&>(experience); }

 private:
  /// Adds the tokens that follow those already read. An n-gram is added when the token after it is known.
  void read(std::span<const int32_t> tokens) {
    if (tokens.size() < text_.size()) {
      text_.clear();
      for (NgramTable& table : tables_) table.clear();
    }
    for (const int32_t token : tokens.subspan(text_.size())) {
      for (NgramTable& table : tables_) table.add(text_, text_.size());
      text_.push_back(token);
    }
  }

  /// Returns the index after the latest earlier occurrence of the longest n-gram at the end of the text; 0: none.
  size_t find() const {
    const std::span<const int32_t> text(text_);
    for (const NgramTable& table : tables_) {
      if (table.n() > text.size()) continue;
      if (const size_t end = table.find(text, text.last(table.n())).end; end > 0) return end;
    }
    return 0;
  }

  /// Returns how many tokens before `from` equal those at the end of the text, at most MatchRates::kLongest.
  int match_length(size_t from) const {
    int length = 0;
    while (length < MatchRates::kLongest && length < from && text_[from - 1 - length] == text_.end()[-1 - length])
      ++length;
    return length;
  }

  std::vector<NgramTable> tables_;  // the longest n-grams first
  std::vector<int32_t> text_;
  MatchRates rates_;
  ProposedDraft proposed_;
  int matched_ = 0;  // length of the match of the proposed draft
};

}  // namespace

DraftEntry ngram_method() {
  using Type = Parameter::Type;
  return {{.name = "ngram",
           .summary = "copies what followed the latest earlier occurrence of the newest tokens (prompt lookup)",
           .paper = "Prompt Lookup Decoding, 2023",
           .exact = true,
           .needs = "any model",
           .time = "O(max^2) per token",
           .memory = "4 + 16 · (max − min + 1) bytes per token",
           .parameters =
               {{"max", Type::kInt, "5", "longest n-gram that is looked up; more is more precise", 1, 16, {}},
                {"min", Type::kInt, "2", "shortest n-gram that is looked up; less drafts more often", 1, 16, {}}}},
          [](const Values& values, const DraftSetup&) -> std::unique_ptr<DraftSource> {
            const int64_t min = values.integer("min"), max = values.integer("max");
            if (min > max) fail_usage("draft method ngram: expected min up to max, found min=", min, " max=", max);
            return std::make_unique<NgramSource>(static_cast<int>(min), static_cast<int>(max));
          }};
}

}  // namespace fathom
