// The generated tokens are an n-gram of a corpus.
#include "decode/constraints/corpus.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "decode/allowed_tokens.h"

namespace fathom {
namespace {

struct CorpusRule {
  std::shared_ptr<const FmIndex> index;
  CorpusEnd end;
  std::vector<int32_t> ends;  // end-of-generation tokens, ascending
  int32_t vocabulary = 0;
};

class CorpusState final : public ConstraintState {
 public:
  explicit CorpusState(std::shared_ptr<const CorpusRule> rule)
      : rule_(std::move(rule)), range_(rule_->index->all()) {}

  std::unique_ptr<ConstraintState> fork() const override { return std::make_unique<CorpusState>(*this); }

  void restrict(Candidates& candidates) const override {
    AllowedTokens allowed(rule_->vocabulary);
    const auto successors = ended_ ? std::vector<FmIndex::Successor>() : rule_->index->successors(range_);
    for (const FmIndex::Successor& successor : successors) allowed.add(successor.token);
    if (successors.empty() || may_end())
      for (const int32_t token : rule_->ends) allowed.add(token);
    allowed.restrict(candidates);
  }

  void take(int32_t token) override {
    if (std::ranges::binary_search(rule_->ends, token)) {
      ended_ = true;
      return;
    }
    range_ = ended_ ? FmIndex::Range() : rule_->index->append(range_, token);
    if (range_.count() == 0) fail("the constraint does not allow token ", token, ": the corpus has no such text");
    ++count_;
  }

 private:
  bool may_end() const {
    return count_ >= rule_->end.min || (count_ > 0 && range_.count() <= rule_->end.stop_count);
  }

  std::shared_ptr<const CorpusRule> rule_;
  FmIndex::Range range_;
  int64_t count_ = 0;   // tokens taken
  bool ended_ = false;  // by an end-of-generation token, after which only such tokens may follow
};

class CorpusConstraint final : public Constraint {
 public:
  explicit CorpusConstraint(CorpusRule rule) : rule_(std::make_shared<CorpusRule>(std::move(rule))) {}
  std::unique_ptr<ConstraintState> start() const override { return std::make_unique<CorpusState>(rule_); }

 private:
  std::shared_ptr<const CorpusRule> rule_;
};

/// Returns the paths of a list separated by +.
std::vector<std::string> split_paths(std::string_view list) {
  std::vector<std::string> paths;
  for (;;) {
    const size_t end = std::min(list.find('+'), list.size());
    if (end == 0) fail_usage("corpus: file: expected paths separated by +, found an empty one");
    paths.emplace_back(list.substr(0, end));
    if (end == list.size()) return paths;
    list.remove_prefix(end + 1);
  }
}

std::shared_ptr<const Constraint> make_corpus(const Values& values, const ConstraintSetup& setup) {
  if (!values.has("file")) fail_usage("corpus: expected file=FILE");
  std::vector<FileMap> files;
  std::vector<std::string_view> passages;
  for (const std::string& path : split_paths(values.string("file"))) {
    files.emplace_back(path);
    const auto own = split_passages(files.back().text(), parse_passage_unit(values.string("passages")));
    if (own.empty()) fail(path, ": expected text, found none");
    passages.insert(passages.end(), own.begin(), own.end());
  }
  return make_corpus_constraint(*setup.tokenizer, index_passages(encode_passages(*setup.tokenizer, passages)),
                                {.min = values.integer("min"), .stop_count = values.integer("stop_count")});
}

}  // namespace

std::vector<std::vector<int32_t>> encode_passages(const Tokenizer& tokenizer,
                                                  const std::vector<std::string_view>& passages) {
  size_t bytes = 0;
  for (const std::string_view passage : passages) bytes += passage.size();
  if (bytes > kMaxCorpusBytes)
    fail("expected a corpus of at most ", format_bytes(kMaxCorpusBytes), ", found ",
         format_bytes(static_cast<double>(bytes)));
  std::vector<std::vector<int32_t>> tokens;
  tokens.reserve(passages.size());
  for (const std::string_view passage : passages)
    tokens.push_back(tokenizer.encode(passage, {.add_bos_eos = false}));
  return tokens;
}

std::shared_ptr<const FmIndex> index_passages(std::span<const std::vector<int32_t>> passages) {
  auto index = std::make_shared<const FmIndex>(passages);
  if (index->tokens() == 0) fail("expected passages with tokens, found none");
  return index;
}

std::shared_ptr<const Constraint> make_corpus_constraint(const Tokenizer& tokenizer,
                                                         std::shared_ptr<const FmIndex> index, CorpusEnd end) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (vocabulary.end_of_generation.empty())
    fail(vocabulary.source, ": a constraint needs an end-of-generation token; the vocabulary has none");
  return std::make_shared<CorpusConstraint>(
      CorpusRule{std::move(index), end, vocabulary.end_of_generation, tokenizer.size()});
}

ConstraintEntry corpus_method() {
  using Type = Parameter::Type;
  return {
      {.name = "corpus",
       .summary = "the tokens are consecutive tokens of a passage of a corpus",
       .paper = "Autoregressive Search Engines: Generating Substrings as Document Identifiers, 2022",
       .needs = "any model",
       .time = "O(successors · log v) per token; start: O(n log n); n: tokens of the corpus",
       .memory = "about 1.13 log v + 6 bits per token of the corpus, v: its distinct tokens; while it is indexed 8 "
                 "bytes more",
       .parameters = {{.name = "file", .type = Type::kString, .summary = "the text files, separated by +"},
                      {.name = "passages",
                       .type = Type::kChoice,
                       .default_value = "blank",
                       .summary = "what ends a passage: each line end, blank lines, or the end of the file",
                       .choices = {"lines", "blank", "whole"}},
                      {.name = "min",
                       .default_value = "1",
                       .summary = "tokens after which the text may end; more is longer",
                       .min = 0,
                       .max = 1e9},
                      {.name = "stop_count",
                       .default_value = "0",
                       .summary = "the text may also end once the corpus holds it at most this often",
                       .min = 0,
                       .max = 1e12}}},
      make_corpus};
}

}  // namespace fathom
