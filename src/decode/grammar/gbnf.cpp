#include "decode/grammar/gbnf.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "base/utf8.h"

namespace fathom {
namespace {

constexpr int kMostNesting = 500;
constexpr int kMostRepetitionMarks = 8;  // after one part

bool is_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_'; }

class GbnfParser {
 public:
  GbnfParser(std::string_view text, const std::string& source) : text_(text), source_(source), builder_(source) {}

  Grammar parse() {
    skip(true);
    while (at_ < text_.size()) {
      parse_rule();
      skip(true);
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) fail(source_, ": expected a rule root");
    for (const auto& [name, rule] : rules_)
      if (!rule.defined) fail_at(rule.place, concat("the rule ", quote(name), " is not defined"));
    return builder_.build(root->second.id);
  }

 private:
  using Expression = GrammarBuilder::Expression;
  struct NamedRule {
    int32_t id = -1;
    size_t place = 0;  // of its first mention
    bool defined = false;
  };

  [[noreturn]] void fail_at(size_t place, const std::string& message) const {
    const std::string_view before = text_.substr(0, std::min(place, text_.size()));
    const auto line = 1 + std::ranges::count(before, '\n');
    const size_t start = before.rfind('\n') + 1;  // 0 if there is none
    fail(source_, ":", line, ":", before.size() - start + 1, ": ", message);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(std::string_view token) {
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  /// Skips spaces and comments. lines: also line ends.
  void skip(bool lines) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else {
        return;
      }
    }
  }

  std::string_view parse_name() {
    const size_t begin = at_;
    while (at_ < text_.size() && is_name(text_[at_])) ++at_;
    if (at_ == begin) fail_at(at_, "expected the name of a rule");
    return text_.substr(begin, at_ - begin);
  }
  NamedRule& rule_of(std::string_view name, size_t place) {
    const auto [found, added] = rules_.try_emplace(std::string(name));
    if (added) found->second = {builder_.declare(std::string(name)), place};
    return found->second;
  }

  void parse_rule() {
    const size_t place = at_;
    const std::string_view name = parse_name();
    skip(false);
    if (!take("::=")) fail_at(at_, "expected ::= after the name of a rule");
    skip(true);
    const Expression body = parse_alternatives(false, 0);
    NamedRule& rule = rule_of(name, place);
    if (rule.defined) fail_at(place, concat("the rule ", quote(name), " is defined twice"));
    rule.defined = true;
    builder_.define(rule.id, body);
    skip(false);
    if (at_ < text_.size() && peek() != '\n' && peek() != '\r')
      fail_at(at_, concat("unexpected ", quote(text_.substr(at_, 1))));
  }

  Expression parse_alternatives(bool nested, int depth) {
    if (depth > kMostNesting) fail_at(at_, concat("more than ", kMostNesting, " groups inside each other"));
    std::vector<Expression> parts{parse_sequence(nested, depth)};
    skip(nested);
    while (take("|")) {
      skip(true);
      parts.push_back(parse_sequence(nested, depth));
      skip(nested);
    }
    return builder_.choice(std::move(parts));
  }

  Expression parse_sequence(bool nested, int depth) {
    std::vector<Expression> parts;
    for (;;) {
      skip(nested);
      const char c = peek();
      Expression part = -1;
      if (c == '"') {
        part = parse_literal();
      } else if (c == '[') {
        part = parse_class();
      } else if (c == '.') {
        ++at_;
        part = builder_.characters_except({});
      } else if (c == '(') {
        const size_t place = at_++;
        part = parse_alternatives(true, depth + 1);
        skip(true);
        if (!take(")")) fail_at(place, "this group has no end");
      } else if (is_name(c)) {
        const size_t place = at_;
        part = builder_.call(rule_of(parse_name(), place).id);
      } else {
        return builder_.sequence(std::move(parts));
      }
      parts.push_back(parse_repetition(part, nested));
    }
  }

  Expression parse_repetition(Expression part, bool nested) {
    for (int count = 0;; ++count) {
      if (count > kMostRepetitionMarks) fail_at(at_, "too many repetitions of one part");
      size_t before = at_;
      skip(nested);
      if (take("*")) {
        part = builder_.repeat(part, 0, GrammarBuilder::kUnbounded);
      } else if (take("+")) {
        part = builder_.repeat(part, 1, GrammarBuilder::kUnbounded);
      } else if (take("?")) {
        part = builder_.optional(part);
      } else if (take("{")) {
        before = at_;
        const int64_t min = parse_number();
        int64_t max = min;
        skip(false);
        if (take(",")) {
          skip(false);
          max = peek() == '}' ? GrammarBuilder::kUnbounded : parse_number();
          skip(false);
        }
        if (!take("}")) fail_at(at_, "expected } after a number of repetitions");
        if (max != GrammarBuilder::kUnbounded && max < min)
          fail_at(before, "the largest number of repetitions is smaller than the smallest one");
        part = builder_.repeat(part, min, max);
      } else {
        at_ = before;
        return part;
      }
    }
  }

  int64_t parse_number() {
    int64_t value = 0;
    const size_t begin = at_;
    for (; std::isdigit(static_cast<unsigned char>(peek())) != 0; ++at_) {
      value = value * 10 + (peek() - '0');
      if (value > GrammarBuilder::kMostRepetitions)
        fail_at(begin, concat("expected at most ", GrammarBuilder::kMostRepetitions, " repetitions"));
    }
    if (at_ == begin) fail_at(at_, "expected a number of repetitions");
    return value;
  }

  char32_t parse_hex(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const char c = peek();
      if (std::isxdigit(static_cast<unsigned char>(c)) == 0)
        fail_at(at_, concat("expected ", digits, " hexadecimal digits"));
      value = value * 16 + static_cast<char32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
  }

  /// Returns the next character of a literal or class.
  char32_t parse_character(size_t place) {
    if (at_ >= text_.size() || peek() == '\n') fail_at(place, "this literal or class has no end");
    if (!take("\\")) {
      const std::string_view rest = text_.substr(at_);
      const size_t length = utf8_length(rest);
      if (length == 0) fail_at(at_, "the grammar is not UTF-8");
      at_ += length;
      return utf8_code_point(rest);
    }
    const size_t escape = at_;
    const char c = peek();
    ++at_;
    char32_t value = 0;
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'x':
        return parse_hex(2);
      case 'u':
        value = parse_hex(4);
        break;
      case 'U':
        value = parse_hex(8);
        break;
      case '\\':
      case '"':
      case '[':
      case ']':
      case '^':
      case '-':
      case '/':
        return static_cast<char32_t>(c);
      default:
        fail_at(escape - 1, "unknown escape; known are \\n \\r \\t \\\\ \\\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH");
    }
    if (value > GrammarBuilder::kLastCharacter || (value >= 0xd800 && value <= 0xdfff))
      fail_at(escape, "this is no character of Unicode");
    return value;
  }

  Expression parse_literal() {
    const size_t place = at_++;
    std::string bytes;
    while (!take("\"")) append_utf8(parse_character(place), bytes);
    return builder_.literal(bytes);
  }

  Expression parse_class() {
    const size_t place = at_++;
    const bool except = take("^");
    std::vector<GrammarBuilder::Range> ranges;
    while (!take("]")) {
      const char32_t low = parse_character(place);
      char32_t high = low;
      if (peek() == '-' && text_.substr(at_, 2) != "-]") {
        ++at_;
        high = parse_character(place);
        if (high < low) fail_at(place, "a range of this class ends before it begins");
      }
      ranges.emplace_back(low, high);
    }
    return except ? builder_.characters_except(std::move(ranges)) : builder_.characters(std::move(ranges));
  }

  std::string_view text_;
  std::string source_;
  GrammarBuilder builder_;
  size_t at_ = 0;
  std::map<std::string, NamedRule> rules_;
};

}  // namespace

Grammar parse_gbnf(std::string_view text, const std::string& source) { return GbnfParser(text, source).parse(); }

}  // namespace fathom
