#include "decode/grammar/string_pattern.h"

#include <algorithm>
#include <cctype>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "base/utf8.h"

namespace fathom {
namespace {

using Range = GrammarBuilder::Range;
using Ranges = std::vector<Range>;

constexpr int kMostGroups = 100;  // inside each other
constexpr int64_t kMostCount = 10'000;

Ranges complement(Ranges ranges) {
  std::ranges::sort(ranges);
  Ranges others;
  char32_t next = 0;
  for (const auto& [low, high] : ranges) {
    if (low > next) others.emplace_back(next, low - 1);
    next = std::max<char32_t>(next, high + 1);
  }
  if (next <= GrammarBuilder::kLastCharacter) others.emplace_back(next, GrammarBuilder::kLastCharacter);
  return others;
}

Ranges digit_class() { return {{'0', '9'}}; }
Ranges word_class() { return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}; }
Ranges space_class() {
  return {{'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
          {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
}

class PatternParser {
 public:
  PatternParser(JsonText& json, std::string_view pattern, const std::string& place)
      : json_(json), builder_(json.builder()), text_(pattern), place_(place) {}

  GrammarBuilder::Expression parse() {
    const Expression any = builder_.repeat(json_.any_character(), 0, GrammarBuilder::kUnbounded);
    std::vector<Expression> alternatives;
    do {
      const bool begins = take('^');
      Expression body = parse_sequence(0);
      const bool ends = take('$');
      std::vector<Expression> parts;
      if (!begins) parts.push_back(any);
      parts.push_back(body);
      if (!ends) parts.push_back(any);
      alternatives.push_back(builder_.sequence(std::move(parts)));
    } while (take('|'));
    if (at_ < text_.size()) fail_pattern(concat("unexpected ", quote(text_.substr(at_, 1))));
    return builder_.choice(std::move(alternatives));
  }

 private:
  using Expression = GrammarBuilder::Expression;

  [[noreturn]] void fail_pattern(const std::string& message) const {
    fail(place_, ": pattern ", quote(text_), ": ", message, " at byte ", at_);
  }
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  Expression parse_alternatives(int depth) {
    std::vector<Expression> parts{parse_sequence(depth)};
    while (take('|')) parts.push_back(parse_sequence(depth));
    return builder_.choice(std::move(parts));
  }

  Expression parse_sequence(int depth) {
    std::vector<Expression> parts;
    while (at_ < text_.size() && peek() != '|' && peek() != ')' && peek() != '$')
      parts.push_back(parse_repeated(depth));
    return builder_.sequence(std::move(parts));
  }

  Expression parse_repeated(int depth) {
    Expression part = parse_one(depth);
    for (bool again = false;; again = true) {
      int64_t min = 0, max = GrammarBuilder::kUnbounded;
      if (take('*')) {
      } else if (take('+')) {
        min = 1;
      } else if (take('?')) {
        max = 1;
      } else if (peek() == '{') {
        ++at_;
        min = parse_count();
        max = min;
        if (take(',')) max = peek() == '}' ? GrammarBuilder::kUnbounded : parse_count();
        if (!take('}')) fail_pattern("expected }");
        if (max != GrammarBuilder::kUnbounded && max < min)
          fail_pattern("the numbers of this repetition are in the wrong order");
      } else {
        return part;
      }
      if (again) fail_pattern("a repetition of a repetition");
      take('?');  // lazy: the same texts
      part = builder_.repeat(part, min, max);
    }
  }

  int64_t parse_count() {
    int64_t value = 0;
    const size_t begin = at_;
    for (; std::isdigit(static_cast<unsigned char>(peek())) != 0; ++at_) {
      value = value * 10 + (peek() - '0');
      if (value > kMostCount) fail_pattern(concat("more than ", kMostCount, " repetitions"));
    }
    if (at_ == begin) fail_pattern("expected a number");
    return value;
  }

  Expression parse_one(int depth) {
    const char c = peek();
    if (c == '(') {
      if (depth >= kMostGroups) fail_pattern("too many groups inside each other");
      ++at_;
      if (take('?') && !take(':')) fail_pattern("look-around, names and flags of groups are not supported");
      const Expression inside = parse_alternatives(depth + 1);
      if (!take(')')) fail_pattern("expected )");
      return inside;
    }
    if (c == '[') return json_.character_of(parse_class());
    if (c == '.') {
      ++at_;
      return json_.character_of(complement({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}));
    }
    if (c == '^' || c == '*' || c == '+' || c == '?' || c == '{')
      fail_pattern(concat(quote(std::string(1, c)), " is not supported here"));
    if (c == '\\') return json_.character_of(parse_escape());
    const char32_t literal = parse_literal();
    return json_.character_of({{literal, literal}});
  }

  char32_t parse_literal() {
    const std::string_view rest = text_.substr(at_);
    const size_t length = utf8_length(rest);
    if (length == 0) fail_pattern("the pattern is not complete, or not UTF-8");
    at_ += length;
    return utf8_code_point(rest);
  }

  char32_t parse_hex(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const char c = peek();
      if (std::isxdigit(static_cast<unsigned char>(c)) == 0) fail_pattern("expected a hexadecimal digit");
      value = value * 16 + static_cast<char32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
  }

  /// Returns the characters of an escape, which begins with a backslash.
  Ranges parse_escape() {
    ++at_;
    const char c = peek();
    if (at_ >= text_.size()) fail_pattern("the pattern ends with a backslash");
    ++at_;
    const auto one = [](char32_t character) { return Ranges{{character, character}}; };
    switch (c) {
      case 'd':
        return digit_class();
      case 'D':
        return complement(digit_class());
      case 'w':
        return word_class();
      case 'W':
        return complement(word_class());
      case 's':
        return space_class();
      case 'S':
        return complement(space_class());
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 't':
        return one('\t');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case 'x':
        return one(parse_hex(2));
      case 'u':
        return one(parse_hex(4));
      default:
        if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
          at_ -= 2;
          fail_pattern(concat("the escape \\", std::string(1, c), " is not supported"));
        }
        --at_;
        return one(parse_literal());
    }
  }

  /// Returns a character or escape of a class.
  Ranges parse_class_part() {
    if (peek() == '\\') return parse_escape();
    const char32_t c = parse_literal();
    return {{c, c}};
  }

  Ranges parse_class() {
    ++at_;
    const bool except = take('^');
    Ranges ranges;
    while (!take(']')) {
      if (at_ >= text_.size()) fail_pattern("a class has no end");
      Ranges part = parse_class_part();
      const bool single = part.size() == 1 && part[0].first == part[0].second;
      if (single && peek() == '-' && text_.substr(at_, 2) != "-]") {
        ++at_;
        const Ranges last = parse_class_part();
        if (last.size() != 1 || last[0].first != last[0].second || last[0].first < part[0].first)
          fail_pattern("a range of a class ends before it begins");
        part[0].second = last[0].first;
      }
      ranges.insert(ranges.end(), part.begin(), part.end());
    }
    return except ? complement(std::move(ranges)) : ranges;
  }

  JsonText& json_;
  GrammarBuilder& builder_;
  std::string_view text_;
  const std::string& place_;
  size_t at_ = 0;
};

}  // namespace

GrammarBuilder::Expression string_pattern(JsonText& json, std::string_view pattern, const std::string& place) {
  return PatternParser(json, pattern, place).parse();
}

}  // namespace fathom
