#include "decode/grammar/grammar.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/format.h"
#include "base/utf8.h"

namespace fathom {
namespace {

constexpr int64_t kMostStates = 2'000'000;
constexpr int64_t kSmallRepeat = 4;  // larger parts of repetitions become rules of their own

using ByteRanges = std::vector<std::pair<uint8_t, uint8_t>>;

std::string utf8_of(char32_t c) {
  std::string text;
  append_utf8(c, text);
  return text;
}

/// Appends the sequences of byte ranges whose UTF-8 texts are the characters of [low, high].
void split_range(char32_t low, char32_t high, std::vector<ByteRanges>& out) {
  // Ranges whose ends have texts of different lengths are split at the limits of the lengths.
  for (const char32_t limit : {U'\x7f', U'\x7ff', static_cast<char32_t>(0xffff)}) {
    if (low <= limit && high > limit) {
      split_range(low, limit, out);
      return split_range(limit + 1, high, out);
    }
  }
  // Within a length, all bytes after one that differs must take their whole range.
  for (int shift = 6; shift <= 18; shift += 6) {
    const char32_t mask = (char32_t{1} << shift) - 1;
    if ((low & ~mask) == (high & ~mask)) break;
    if ((low & mask) != 0) {
      split_range(low, low | mask, out);
      return split_range((low | mask) + 1, high, out);
    }
    if ((high & mask) != mask) {
      split_range(low, (high & ~mask) - 1, out);
      return split_range(high & ~mask, high, out);
    }
  }
  const std::string first = utf8_of(low), last = utf8_of(high);
  ByteRanges ranges;
  for (size_t i = 0; i < first.size(); ++i)
    ranges.emplace_back(static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i]));
  out.push_back(std::move(ranges));
}

/// Sorts ranges, joins those that touch, and removes surrogates.
std::vector<GrammarBuilder::Range> normal_ranges(std::vector<GrammarBuilder::Range> ranges) {
  constexpr char32_t kFirstSurrogate = 0xd800, kLastSurrogate = 0xdfff;
  std::ranges::sort(ranges);
  std::vector<GrammarBuilder::Range> joined;
  for (const auto& [low, high] : ranges) {
    if (low > high) continue;
    if (!joined.empty() && low <= joined.back().second + 1) {
      joined.back().second = std::max(joined.back().second, high);
    } else {
      joined.emplace_back(low, high);
    }
  }
  std::vector<GrammarBuilder::Range> result;
  for (const auto& [low, high] : joined) {
    if (low < kFirstSurrogate) result.emplace_back(low, std::min<char32_t>(high, kFirstSurrogate - 1));
    if (high > kLastSurrogate) result.emplace_back(std::max<char32_t>(low, kLastSurrogate + 1), high);
  }
  return result;
}

}  // namespace

GrammarBuilder::Expression GrammarBuilder::add(Node node) {
  int64_t parts = 0;
  for (const Expression part : node.parts) parts += nodes_[part].size;
  node.size = node.kind == Kind::kBytes ? std::ssize(node.bytes) + 1 : 2 + parts;
  if (node.size > kMostStates || std::ssize(nodes_) > kMostStates) fail(source_, ": the grammar is too large");
  nodes_.push_back(std::move(node));
  return static_cast<Expression>(nodes_.size() - 1);
}

GrammarBuilder::Expression GrammarBuilder::literal(std::string_view bytes) {
  return add({.kind = Kind::kBytes, .bytes = std::string(bytes)});
}

GrammarBuilder::Expression GrammarBuilder::characters(std::vector<Range> ranges) {
  return add({.kind = Kind::kRanges, .ranges = normal_ranges(std::move(ranges))});
}

GrammarBuilder::Expression GrammarBuilder::characters_except(std::vector<Range> ranges) {
  std::vector<Range> others;
  char32_t next = 0;
  for (const auto& [low, high] : normal_ranges(std::move(ranges))) {
    if (low > next) others.emplace_back(next, low - 1);
    next = high + 1;
  }
  if (next <= kLastCharacter) others.emplace_back(next, kLastCharacter);
  return characters(std::move(others));
}

GrammarBuilder::Expression GrammarBuilder::sequence(std::vector<Expression> parts) {
  return parts.size() == 1 ? parts[0] : add({.kind = Kind::kSequence, .parts = std::move(parts)});
}

GrammarBuilder::Expression GrammarBuilder::choice(std::vector<Expression> parts) {
  return parts.size() == 1 ? parts[0] : add({.kind = Kind::kChoice, .parts = std::move(parts)});
}

GrammarBuilder::Expression GrammarBuilder::repeat(Expression part, int64_t min, int64_t max) {
  if (min < 0 || min > kMostRepetitions || max > kMostRepetitions || (max != kUnbounded && max < min))
    fail(source_, ": expected repetitions from 0 to ", kMostRepetitions, ", found ", min, " to ", max);
  if (nodes_[part].size > kSmallRepeat && std::max(min, max) > 1) {
    const int32_t rule = declare("repeated");
    define(rule, part);
    part = call(rule);
  }
  const Expression result = add({.kind = Kind::kRepeat, .min = min, .max = max, .parts = {part}});
  nodes_[result].size = (nodes_[part].size + 1) * std::max<int64_t>({min, max, 1}) + 2;
  if (nodes_[result].size > kMostStates) fail(source_, ": the grammar is too large");
  return result;
}

int32_t GrammarBuilder::declare(std::string name) {
  rules_.push_back({std::move(name)});
  return static_cast<int32_t>(rules_.size() - 1);
}

void GrammarBuilder::define(int32_t rule, Expression body) { rules_[rule].body = body; }

GrammarBuilder::Expression GrammarBuilder::call(int32_t rule) { return add({.kind = Kind::kCall, .rule = rule}); }

int32_t GrammarBuilder::add_state() {
  if (std::ssize(edges_) >= kMostStates) fail(source_, ": the grammar is too large");
  edges_.emplace_back();
  return static_cast<int32_t>(edges_.size() - 1);
}

void GrammarBuilder::add_edge(int32_t state, Grammar::Edge edge) { edges_[state].push_back(edge); }

/// Adds the edges that read an expression between two states.
void GrammarBuilder::compile(Expression expression, int32_t from, int32_t to) {
  const Node& node = nodes_[expression];
  switch (node.kind) {
    case Kind::kBytes: {
      int32_t at = from;
      for (size_t i = 0; i < node.bytes.size(); ++i) {
        const int32_t next = i + 1 == node.bytes.size() ? to : add_state();
        const auto byte = static_cast<uint8_t>(node.bytes[i]);
        add_edge(at, {Grammar::Edge::Kind::kByte, byte, byte, -1, next});
        at = next;
      }
      if (node.bytes.empty()) add_edge(from, {.next = to});
      return;
    }
    case Kind::kRanges:
      return compile_ranges(node.ranges, from, to);
    case Kind::kSequence: {
      int32_t at = from;
      for (size_t i = 0; i < node.parts.size(); ++i) {
        const int32_t next = i + 1 == node.parts.size() ? to : add_state();
        compile(node.parts[i], at, next);
        at = next;
      }
      if (node.parts.empty()) add_edge(from, {.next = to});
      return;
    }
    case Kind::kChoice:
      for (const Expression part : node.parts) {
        const int32_t begin = add_state();  // so that a loop of the part cannot return to the choice
        add_edge(from, {.next = begin});
        compile(part, begin, to);
      }
      return;
    case Kind::kRepeat:
      return compile_repeat(node, from, to);
    case Kind::kCall:
      add_edge(from, {Grammar::Edge::Kind::kCall, 0, 0, node.rule, to});
  }
}

void GrammarBuilder::compile_ranges(const std::vector<Range>& ranges, int32_t from, int32_t to) {
  std::vector<ByteRanges> sequences;
  for (const auto& [low, high] : ranges) split_range(low, high, sequences);
  // Sequences share states for equal ends: after the first byte come one, two or three continuation bytes.
  std::map<ByteRanges, int32_t> tails;
  for (const ByteRanges& sequence : sequences) {
    int32_t next = to;
    for (size_t i = sequence.size(); i-- > 1;) {
      const auto [found, added] =
          tails.try_emplace(ByteRanges(sequence.begin() + static_cast<int64_t>(i), sequence.end()), -1);
      if (added) {
        found->second = add_state();
        add_edge(found->second, {Grammar::Edge::Kind::kByte, sequence[i].first, sequence[i].second, -1, next});
      }
      next = found->second;
    }
    add_edge(from, {Grammar::Edge::Kind::kByte, sequence[0].first, sequence[0].second, -1, next});
  }
}

void GrammarBuilder::compile_repeat(const Node& node, int32_t from, int32_t to) {
  const Expression part = node.parts[0];
  const int64_t min = node.min, max = node.max;
  int32_t at = from;
  const auto advance = [&] {
    const int32_t next = add_state();
    compile(part, at, next);
    at = next;
  };
  for (int64_t i = 0; i < min; ++i) advance();
  if (max == kUnbounded) {
    const int32_t loop = add_state();
    add_edge(at, {.next = loop});
    const int32_t begin = add_state(), end = add_state();
    add_edge(loop, {.next = begin});
    compile(part, begin, end);
    add_edge(end, {.next = loop});
    at = loop;
  } else {
    for (int64_t i = min; i < max; ++i) {
      add_edge(at, {.next = to});
      advance();
    }
  }
  add_edge(at, {.next = to});
}

/// Throws Error if a rule can call itself before it reads a byte.
void GrammarBuilder::check_left_recursion(const std::vector<int32_t>& starts,
                                          const std::vector<int32_t>& ends) const {
  const size_t rules = rules_.size();
  // The rules that have the empty text, and those that each rule can call first.
  std::vector<char> nullable(rules);
  std::vector<std::vector<int32_t>> first(rules);
  std::vector<int32_t> seen(edges_.size(), -1);
  std::vector<int32_t> open;
  int32_t visit = 0;
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t rule = 0; rule < rules; ++rule) {
      first[rule].clear();
      open.assign(1, starts[rule]);
      seen[starts[rule]] = visit;
      while (!open.empty()) {
        const int32_t state = open.back();
        open.pop_back();
        if (state == ends[rule] && !nullable[rule]) nullable[rule] = 1, changed = true;
        for (const Grammar::Edge& edge : edges_[state]) {
          if (edge.kind == Grammar::Edge::Kind::kByte) continue;
          const bool calls = edge.kind == Grammar::Edge::Kind::kCall;
          if (calls) first[rule].push_back(edge.rule);
          if ((calls && !nullable[edge.rule]) || seen[edge.next] == visit) continue;
          seen[edge.next] = visit;
          open.push_back(edge.next);
        }
      }
      ++visit;
    }
  }
  // A depth-first search for a cycle.
  enum : char { kNew, kOpen, kDone };
  std::vector<char> colour(rules, kNew);
  for (size_t root = 0; root < rules; ++root) {
    std::vector<std::pair<int32_t, size_t>> path;
    if (colour[root] == kNew) path.emplace_back(static_cast<int32_t>(root), 0), colour[root] = kOpen;
    while (!path.empty()) {
      auto& [rule, child] = path.back();
      if (child == first[rule].size()) {
        colour[rule] = kDone;
        path.pop_back();
        continue;
      }
      const int32_t next = first[rule][child++];
      if (colour[next] == kOpen)
        fail(source_, ": the rule ", quote(rules_[next].name),
             " calls itself before it reads a character (left recursion); write it as a repetition");
      if (colour[next] == kNew) path.emplace_back(next, 0), colour[next] = kOpen;
    }
  }
}

/// Returns for each state whether a text leads from it to the end of its rule.
std::vector<char> GrammarBuilder::productive_states(const std::vector<int32_t>& starts,
                                                    const std::vector<int32_t>& ends) const {
  std::vector<std::vector<std::pair<int32_t, int32_t>>> back(edges_.size());  // (state, edge) that lead to a state
  std::vector<std::vector<std::pair<int32_t, int32_t>>> callers(rules_.size());
  for (size_t state = 0; state < edges_.size(); ++state) {
    for (size_t i = 0; i < edges_[state].size(); ++i) {
      const Grammar::Edge& edge = edges_[state][i];
      back[edge.next].emplace_back(static_cast<int32_t>(state), static_cast<int32_t>(i));
      if (edge.kind == Grammar::Edge::Kind::kCall)
        callers[edge.rule].emplace_back(static_cast<int32_t>(state), static_cast<int32_t>(i));
    }
  }
  std::vector<int32_t> rule_of(edges_.size(), -1);  // that a state is the start of
  for (size_t rule = 0; rule < rules_.size(); ++rule) rule_of[starts[rule]] = static_cast<int32_t>(rule);
  std::vector<char> productive(edges_.size());
  std::vector<int32_t> open;
  const auto mark = [&](int32_t state) {
    if (productive[state]) return;
    productive[state] = 1;
    open.push_back(state);
  };
  const auto consider = [&](const std::pair<int32_t, int32_t>& place) {
    const Grammar::Edge& edge = edges_[place.first][place.second];
    const bool calls = edge.kind == Grammar::Edge::Kind::kCall;
    if (productive[edge.next] && (!calls || productive[starts[edge.rule]])) mark(place.first);
  };
  for (const int32_t end : ends) mark(end);
  while (!open.empty()) {
    const int32_t state = open.back();
    open.pop_back();
    for (const auto& place : back[state]) consider(place);
    if (rule_of[state] >= 0)
      for (const auto& place : callers[rule_of[state]]) consider(place);
  }
  return productive;
}

Grammar GrammarBuilder::build(int32_t root) {
  edges_.clear();
  std::vector<int32_t> starts, ends;
  for (const Rule& rule : rules_) {
    if (rule.body < 0) fail(source_, ": the rule ", quote(rule.name), " is not defined");
    starts.push_back(add_state());
    ends.push_back(add_state());
  }
  for (size_t rule = 0; rule < rules_.size(); ++rule) compile(rules_[rule].body, starts[rule], ends[rule]);
  check_left_recursion(starts, ends);
  const std::vector<char> productive = productive_states(starts, ends);
  if (!productive[starts[root]]) fail(source_, ": no text is complete: a rule calls itself without an end");

  Grammar grammar;
  grammar.root_ = root;
  grammar.starts_ = starts;
  grammar.ends_.assign(edges_.size(), 0);
  for (const int32_t end : ends) grammar.ends_[end] = 1;
  // Whether nothing but empty edges to the end of the rule follows, so that a call needs no return.
  std::vector<char> only_end(edges_.size());
  for (const int32_t end : ends) only_end[end] = edges_[end].empty();
  for (size_t state = edges_.size(); state-- > 0;)
    if (edges_[state].size() == 1 && edges_[state][0].kind == Grammar::Edge::Kind::kEmpty &&
        only_end[edges_[state][0].next])
      only_end[state] = 1;
  grammar.begin_.push_back(0);
  for (const std::vector<Grammar::Edge>& edges : edges_) {
    for (Grammar::Edge edge : edges) {
      const bool calls = edge.kind == Grammar::Edge::Kind::kCall;
      if (!productive[edge.next] || (calls && !productive[starts[edge.rule]])) continue;
      if (calls && only_end[edge.next]) edge.kind = Grammar::Edge::Kind::kTail;
      grammar.edges_.push_back(edge);
    }
    grammar.begin_.push_back(static_cast<uint32_t>(grammar.edges_.size()));
  }
  edges_.clear();
  return grammar;
}

}  // namespace fathom
