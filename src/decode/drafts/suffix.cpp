// Drafts from the counts of what followed earlier occurrences of the newest tokens: in the text, with a suffix
// automaton, and in earlier texts. Contexts of several lengths are combined as in prediction by partial matching:
// a shorter one gets the probability that the next token is not among the successors of the longer ones.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <memory>
#include <queue>

#include "base/content_hash.h"
#include "base/error.h"
#include "decode/draft.h"
#include "decode/drafts/acceptance.h"
#include "decode/drafts/history.h"
#include "decode/drafts/match_rates.h"
#include "decode/drafts/merge.h"
#include "decode/drafts/suffix_automaton.h"

namespace fathom {
namespace {

constexpr float kMinReach = 0.01f;  // less likely nodes are not proposed

/// A node that can be added to a draft. T: what its children are found by.
template <class T>
struct Proposal {
  float reach, estimate;
  int parent;
  int32_t token;
  T context;
  bool operator<(const Proposal& other) const { return reach < other.reach; }
};

/// Returns the draft of the `nodes` most likely nodes. expand(context, add) calls add(token, estimate, context) for
/// the children of a node.
template <class T, class Expand>
Draft grow_draft(const T& root, int nodes, Expand&& expand) {
  Draft draft;
  std::priority_queue<Proposal<T>> queue;
  const auto expand_node = [&](const T& context, int number, float reach) {
    expand(context, [&](int32_t token, float estimate, T child) {
      if (reach * estimate >= kMinReach) queue.push({reach * estimate, estimate, number, token, std::move(child)});
    });
  };
  expand_node(root, -1, 1);
  while (!queue.empty() && draft.size() < nodes) {
    const Proposal<T> best = queue.top();
    queue.pop();
    const int number = draft.add(best.parent, best.token, best.estimate);
    if (draft.size() < nodes) expand_node(best.context, number, best.reach);
  }
  return draft;
}

/// The shares of cases in which the next token was among the successors of a context, by its length and kind.
struct ContextRates final : DraftExperience {
  static constexpr int kLengths = 8, kKinds = 4;
  std::array<std::array<AcceptanceRate, kKinds>, kLengths> by_length;
};

/// Learns and predicts from the text itself.
class TextCounts {
 public:
  TextCounts(int64_t depth, int64_t window, int64_t min)
      : depth_(static_cast<int>(depth)), min_(static_cast<int>(min)), window_(window), automaton_(depth_) {
    for (int length = 0; length < ContextRates::kLengths; ++length)
      for (AcceptanceRate& rate : rates_.by_length[length])
        rate = AcceptanceRate(static_cast<float>(length + 1) / static_cast<float>(length + 3));
  }

  const ContextRates& rates() const { return rates_; }
  void set_rates(const ContextRates& rates) { rates_ = rates; }

  /// Adds the tokens that follow those already read.
  void read(std::span<const int32_t> tokens) {
    if (tokens.size() < read_) {
      automaton_.clear();
      read_ = 0;
    }
    for (; read_ < tokens.size(); ++read_) {
      if (automaton_.size() >= window_) {
        automaton_.clear();
        for (const int32_t token : tokens.subspan(read_ - window_ / 2, window_ / 2)) automaton_.append(token);
      }
      learn(tokens[read_]);
      automaton_.append(tokens[read_]);
    }
  }

  Draft propose(int nodes) {
    const int length = static_cast<int>(std::min<int64_t>(depth_, automaton_.size()));
    return grow_draft(Context{automaton_.newest(), length}, nodes,
                      [&](const Context& context, auto&& add) { expand(context, add); });
  }

 private:
  static constexpr int kOrders = 3;    // contexts that are combined
  static constexpr int kScanned = 32;  // first successors of a context that are compared
  static constexpr int kChildren = 8;  // most frequent ones of them that are proposed

  struct Context {
    int state;
    int length;  // number of newest tokens that it matches
  };

  /// Calls visit(context) for the longest contexts with successors, the longest first, until it returns false.
  template <class Visit>
  void for_contexts(Context context, Visit&& visit) const {
    for (int orders = 0; context.state != SuffixAutomaton::kRoot && orders < kOrders;) {
      if (context.length < min_) return;
      if (automaton_.continuations(context.state) > 0) {
        if (!visit(context)) return;
        ++orders;
      }
      context.state = automaton_.link(context.state);
      context.length = std::min(context.length, automaton_.length(context.state));
    }
  }

  /// The share of cases in which the next token was among the successors of similar contexts.
  AcceptanceRate& rate(const Context& context) {
    const int successors = automaton_.edges(context.state), count = automaton_.continuations(context.state);
    const int kind = count == 1 ? 0 : successors == 1 ? 1 : 2 * successors <= count ? 2 : 3;
    const int length = context.length <= 4 ? context.length - 1 : std::bit_width<unsigned>(context.length) + 1;
    return rates_.by_length[std::min(length, ContextRates::kLengths - 1)][kind];
  }

  void learn(int32_t token) {
    const int length = static_cast<int>(std::min<int64_t>(depth_, automaton_.size()));
    for_contexts({automaton_.newest(), length}, [&](const Context& context) {
      const bool found = automaton_.next(context.state, token) != SuffixAutomaton::kNone;
      rate(context).add(found);
      return !found;
    });
  }

  template <class Add>
  void expand(const Context& node, Add&& add) {
    struct Successor {
      int count;
      int32_t token;
      int state;
    };
    std::array<Successor, kScanned> found;
    std::array<int32_t, kOrders * kChildren> proposed;
    int proposals = 0;
    float left = 1;
    for_contexts(node, [&](const Context& context) {
      int size = 0;
      automaton_.for_edges(context.state, kScanned, [&](int32_t token, int target) {
        found[size++] = {counted(target), token, target};
      });
      const int kept = std::min(size, kChildren);
      std::partial_sort(found.begin(), found.begin() + kept, found.begin() + size,
                        [](const Successor& a, const Successor& b) {
                          return a.count != b.count ? a.count > b.count : a.token < b.token;
                        });
      const float known = rate(context).value();
      const float total = static_cast<float>(automaton_.continuations(context.state));
      const auto end = proposed.begin() + proposals;
      for (int i = 0; i < kept; ++i) {
        if (std::find(proposed.begin(), end, found[i].token) != end) continue;
        proposed[proposals++] = found[i].token;
        const float share = std::min(1.0f, static_cast<float>(found[i].count) / total);
        add(found[i].token, left * known * share, Context{found[i].state, std::min(context.length + 1, depth_)});
      }
      left *= 1 - known;
      return left > kMinReach;
    });
  }

  /// Returns the number of occurrences; for substrings that are too long to be counted, 1.
  int counted(int state) const { return std::max(1, automaton_.count(state)); }

  int depth_, min_;
  int64_t window_;
  SuffixAutomaton automaton_;
  size_t read_ = 0;
  ContextRates rates_;
};

/// Predicts from earlier texts.
class HistoryCounts {
 public:
  explicit HistoryCounts(const DraftHistory& history) : history_(history) {}

  Draft propose(std::span<const int32_t> tokens, int nodes) {
    history_.find(tokens, matches_);
    Draft draft;
    if (!matches_.empty()) {
      matched_ = matches_[0].length;
      Context root{{}, matched_};
      for (const DraftHistory::Match& match : matches_) root.ends.push_back(match.next);
      draft = grow_draft(root, nodes, [&](const Context& context, auto&& add) { expand(context, add); });
    }
    proposed_.set(draft, tokens.size());
    return draft;
  }

  void observe(const DraftOutcome& outcome) {
    const Draft& draft = proposed_.draft();
    proposed_.compare(outcome, [&](int parent, int child) {
      rates_.add(matched_ + (parent < 0 ? 0 : draft.tree.depth(parent) + 1), child >= 0);
    });
  }

 private:
  struct Context {
    std::vector<size_t> ends;  // of its occurrences
    int length;
  };

  template <class Add>
  void expand(const Context& context, Add&& add) const {
    const std::span<const int32_t> tokens = history_.tokens();
    std::vector<std::pair<int32_t, size_t>> next;
    for (const size_t end : context.ends)
      if (end < tokens.size() && tokens[end] != DraftHistory::kEnd) next.push_back({tokens[end], end + 1});
    std::ranges::stable_sort(next, {}, &std::pair<int32_t, size_t>::first);
    for (size_t i = 0; i < next.size();) {
      Context child{{}, context.length + 1};
      const int32_t token = next[i].first;
      for (; i < next.size() && next[i].first == token; ++i) child.ends.push_back(next[i].second);
      const float share = static_cast<float>(child.ends.size()) / static_cast<float>(context.ends.size());
      add(token, rates_.estimate(context.length) * share, std::move(child));
    }
  }

  const DraftHistory& history_;
  std::vector<DraftHistory::Match> matches_;
  MatchRates rates_;
  ProposedDraft proposed_;
  int matched_ = 0;  // length of the matches of the proposed draft
};

class SuffixSource final : public DraftSource {
 public:
  SuffixSource(const Values& values, std::unique_ptr<const DraftHistory> history)
      : depth_(values.integer("depth")),
        text_(depth_, values.integer("window"), values.integer("min")),
        history_(std::move(history)) {
    if (history_) earlier_ = std::make_unique<HistoryCounts>(*history_);
  }

  void start(std::span<const int32_t> prompt) override {
    prompt_ = prompt.size();
    text_.read(prompt);
  }

  Draft propose(const DraftContext& context, int nodes) override {
    text_.read(context.tokens);
    if (!earlier_) return text_.propose(nodes);
    const std::array<Draft, 2> drafts{text_.propose(nodes), earlier_->propose(context.tokens, nodes)};
    Draft draft = unite(drafts, nodes);
    draft.sources.clear();
    return draft;
  }

  void observe(const DraftOutcome& outcome) override {
    if (earlier_) earlier_->observe(outcome);
  }

  std::shared_ptr<const DraftExperience> experience() const override {
    return std::make_shared<ContextRates>(text_.rates());
  }
  void adopt(const DraftExperience& experience) override {
    text_.set_rates(dynamic_cast<const ContextRates&>(experience));
  }

  /// Stores the generated tokens, after as many tokens of the prompt as are compared. Prints a note if that fails:
  /// the generated text is valid without it.
  void finish(std::span<const int32_t> tokens) override {
    if (!history_ || tokens.size() <= prompt_) return;
    const size_t begin = prompt_ - std::min<size_t>(prompt_, depth_);
    try {
      history_->append(tokens.subspan(begin));
    } catch (const Error& error) {
      std::fputs(concat("fathom: the draft history was not written: ", error.what(), "\n").c_str(), stderr);
    }
  }

 private:
  int64_t depth_;
  TextCounts text_;
  std::unique_ptr<const DraftHistory> history_;  // null: none
  std::unique_ptr<HistoryCounts> earlier_;
  size_t prompt_ = 0;
};

std::unique_ptr<const DraftHistory> open_history(const Values& values, const DraftSetup& setup) {
  if (!values.has("history")) return nullptr;
  if (!setup.model) fail("draft method suffix: history needs a model, found none");
  DraftHistory::Key key{static_cast<int32_t>(setup.model->config().vocabulary), 0};
  if (setup.tokenizer) {
    ContentHash hash;
    for (const std::string& piece : setup.tokenizer->vocabulary().pieces) hash.add(piece);
    key.hash = hash.value();
  }
  const std::string& path = values.string("history");
  auto history = std::make_unique<DraftHistory>(path, values.integer("history_size"), key);
  if (!history->damage().empty()) {
    std::fputs(concat("fathom: ", path, ": the draft history is damaged and is replaced: ", history->damage(), "\n")
                   .c_str(),
               stderr);
  }
  return history;
}

}  // namespace

DraftEntry suffix_method() {
  using Type = Parameter::Type;
  return {
      {.name = "suffix",
       .summary = "a tree by the counts of what followed the newest tokens earlier, here and in earlier texts",
       .paper = "SuffixDecoding: Extreme Speculative Decoding for Emerging AI Applications, 2024; SAM Decoding: "
                "Speculative Decoding via Suffix Automaton, 2024",
       .exact = true,
       .needs = "any model",
       .time = "O(depth) per token",
       .memory = "about 100 bytes per token of the window, 8 to 16 per token of the history",
       .parameters =
           {{"depth", Type::kInt, "64", "newest tokens that are compared; more is more precise", 1, 1024, {}},
            {"min", Type::kInt, "1", "shortest context; more drafts less often", 1, 1024, {}},
            {"window",
             Type::kInt,
             "1m",
             "newest tokens of the text that are searched, at least half of them at any time",
             256,
             1 << 28,
             {}},
            {.name = "history",
             .type = Type::kString,
             .summary = "file with earlier texts, which is read and extended; default: none"},
            {"history_size",
             Type::kInt,
             "1m",
             "tokens of earlier texts; more remembers longer",
             1024,
             1 << 28,
             {}}}},
      [](const Values& values, const DraftSetup& setup) -> std::unique_ptr<DraftSource> {
        const int64_t min = values.integer("min"), depth = values.integer("depth");
        if (min > depth)
          fail_usage("draft method suffix: expected min up to depth, found min=", min, " depth=", depth);
        return std::make_unique<SuffixSource>(values, open_history(values, setup));
      }};
}

}  // namespace fathom
