// Input-guided aggressive decoding: copies the source text until the output differs from it, then searches for the
// position to continue at.
#include <algorithm>
#include <array>
#include <memory>

#include "base/error.h"
#include "decode/draft.h"
#include "decode/drafts/acceptance.h"
#include "decode/drafts/draft_texts.h"
#include "decode/drafts/match_rates.h"
#include "decode/drafts/ngram_table.h"

namespace fathom {
namespace {

class InputCopySource final : public DraftSource {
 public:
  /// texts: what is copied; none: the prompt.
  explicit InputCopySource(const std::vector<std::vector<int32_t>>& texts) : copies_prompt_(texts.empty()) {
    for (const std::vector<int32_t>& text : texts) add_text(text);
  }

  void start(std::span<const int32_t> prompt) override {
    if (copies_prompt_) add_text(prompt);
    read_ = prompt.size();
  }

  Draft propose(const DraftContext& context, int nodes) override {
    const size_t prompt = static_cast<size_t>(context.prompt);
    read_ = std::max(read_, prompt);
    for (; read_ < context.tokens.size(); ++read_) advance(context.tokens.subspan(prompt, read_ + 1 - prompt));
    Draft draft;
    if (next_ != kNowhere) {
      for (size_t i = next_; i < source_.size() && source_[i] != kEnd && draft.size() < nodes; ++i)
        draft.add(draft.size() - 1, source_[i], rates_.estimate(matched_ + draft.size()));
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
  static constexpr int32_t kEnd = -1;  // after each text
  static constexpr size_t kNowhere = ~size_t{0};

  void add_text(std::span<const int32_t> text) {
    starts_.push_back(source_.size());
    const size_t begin = source_.size();
    source_.insert(source_.end(), text.begin(), text.end());
    source_.push_back(kEnd);
    for (NgramTable& table : tables_)
      for (size_t end = begin + table.n(); end < source_.size(); ++end) table.add(source_, end);
  }

  /// Finds the position of the source that continues the output, after its newest token.
  void advance(std::span<const int32_t> output) {
    const int32_t token = output.back();
    if (output.size() == 1) {
      for (const size_t start : starts_) {
        if (source_[start] != token) continue;
        next_ = start + 1;
        matched_ = 1;
        return;
      }
    }
    if (next_ != kNowhere && source_[next_] == token) {
      ++next_;
      ++matched_;
      return;
    }
    next_ = kNowhere;
    for (const NgramTable& table : tables_) {
      if (table.n() > output.size()) return;
      const NgramTable::Occurrence found = table.find(source_, output.last(table.n()));
      if (found.end == 0) return;
      if (found.several) continue;
      next_ = found.end;
      matched_ = static_cast<int>(table.n());
      return;
    }
  }

  bool copies_prompt_;
  std::vector<int32_t> source_;  // the texts, each followed by kEnd
  std::vector<size_t> starts_;   // of the texts
  std::array<NgramTable, 3> tables_{NgramTable(1), NgramTable(2), NgramTable(3)};
  size_t read_ = 0;         // tokens of prompt and output that were read
  size_t next_ = kNowhere;  // index in the source of the token that is expected next
  int matched_ = 0;         // number of tokens since the copy started
  MatchRates rates_;
  ProposedDraft proposed_;
};

}  // namespace

DraftEntry copy_method() {
  return {
      {.name = "copy",
       .summary = "copies the prompt or files; after a difference, continues where 1 to 3 new tokens occur once",
       .paper = "Lossless Acceleration for Seq2seq Generation with Aggressive Decoding, 2022",
       .exact = true,
       .needs = "any model; helps where the output repeats the source with few changes",
       .time = "O(1) per token",
       .memory = "52 bytes per token of the source",
       .parameters = {draft_file_parameter("text files that are copied, joined by '+'; default: the prompt")}},
      [](const Values& values, const DraftSetup& setup) -> std::unique_ptr<DraftSource> {
        return std::make_unique<InputCopySource>(read_draft_files("copy", values, setup));
      }};
}

}  // namespace fathom
