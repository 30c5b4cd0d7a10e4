#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom {

/// A context-free grammar over bytes, as a pushdown automaton: each rule is a finite automaton whose edges read a
/// byte or call a rule. Every state can be completed to a text. Immutable.
class Grammar {
 public:
  struct Edge {
    enum class Kind : uint8_t {
      kByte,   // reads a byte of [low, high]
      kCall,   // reads a text of `rule` and continues at `next`
      kTail,   // as kCall, where the calling rule ends after it
      kEmpty,  // reads nothing
    };
    Kind kind = Kind::kEmpty;
    uint8_t low = 0, high = 0;
    int32_t rule = -1;
    int32_t next = -1;
  };

  std::span<const Edge> edges(int32_t state) const {
    return std::span(edges_).subspan(begin_[state], begin_[state + 1] - begin_[state]);
  }
  /// Returns whether the rule of a state can end in it.
  bool ends(int32_t state) const { return ends_[state] != 0; }
  /// Returns the first state of a rule.
  int32_t start(int32_t rule) const { return starts_[rule]; }
  /// Returns the first state of the grammar.
  int32_t start() const { return starts_[root_]; }
  int32_t states() const { return static_cast<int32_t>(ends_.size()); }

 private:
  friend class GrammarBuilder;
  std::vector<Edge> edges_;
  std::vector<uint32_t> begin_;  // [states + 1] in edges_
  std::vector<char> ends_;       // [states]
  std::vector<int32_t> starts_;  // [rules]
  int32_t root_ = 0;
};

/// Builds grammars from expressions. Functions that add expressions throw Error when the grammar becomes too large.
class GrammarBuilder {
 public:
  using Expression = int32_t;
  using Range = std::pair<char32_t, char32_t>;  // of Unicode scalar values, inclusive

  static constexpr char32_t kLastCharacter = 0x10ffff;
  static constexpr int64_t kUnbounded = -1;
  static constexpr int64_t kMostRepetitions = 100'000;

  /// source: the name of the grammar, for messages.
  explicit GrammarBuilder(std::string source) : source_(std::move(source)) {}

  Expression empty() { return sequence({}); }
  Expression literal(std::string_view bytes);
  /// One character of the ranges, in UTF-8.
  Expression characters(std::vector<Range> ranges);
  /// One character that is in none of the ranges.
  Expression characters_except(std::vector<Range> ranges);
  Expression sequence(std::vector<Expression> parts);
  /// One of the parts. Without parts: no text at all.
  Expression choice(std::vector<Expression> parts);
  /// max: kUnbounded for any number.
  Expression repeat(Expression part, int64_t min, int64_t max);
  Expression optional(Expression part) { return repeat(part, 0, 1); }

  /// Returns a new rule, to be defined later.
  int32_t declare(std::string name);
  void define(int32_t rule, Expression body);
  Expression call(int32_t rule);

  /// Returns the grammar whose texts are those of a rule. Throws Error for a rule without a definition, for left
  /// recursion, and if there is no text.
  Grammar build(int32_t root);

 private:
  enum class Kind : uint8_t { kBytes, kRanges, kSequence, kChoice, kRepeat, kCall };
  struct Node {
    Kind kind;
    int32_t rule = -1;
    int64_t min = 0, max = 0;
    int64_t size = 1;     // an estimate of its states
    std::string bytes{};  // of kBytes
    std::vector<Range> ranges{};
    std::vector<Expression> parts{};
  };
  struct Rule {
    std::string name;
    Expression body = -1;
  };
  Expression add(Node node);
  int32_t add_state();
  void add_edge(int32_t state, Grammar::Edge edge);
  void compile(Expression expression, int32_t from, int32_t to);
  void compile_ranges(const std::vector<Range>& ranges, int32_t from, int32_t to);
  void compile_repeat(const Node& node, int32_t from, int32_t to);
  void check_left_recursion(const std::vector<int32_t>& starts, const std::vector<int32_t>& ends) const;
  std::vector<char> productive_states(const std::vector<int32_t>& starts, const std::vector<int32_t>& ends) const;

  std::string source_;
  std::vector<Node> nodes_;
  std::vector<Rule> rules_;
  std::vector<std::vector<Grammar::Edge>> edges_;  // by state, while building
};

}  // namespace fathom
