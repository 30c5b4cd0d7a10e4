#include "decode/grammar/json_text.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "base/utf8.h"

namespace fathom {
namespace {

constexpr int64_t kUnbounded = GrammarBuilder::kUnbounded;
constexpr int64_t kMostDigits = 15;  // of integers and fractions: doubles keep them
constexpr int64_t kMostExponentDigits = 2;

}  // namespace

JsonText::JsonText(GrammarBuilder& builder, JsonLayout layout)
    : builder_(builder),
      space_(builder.declare("space")),
      value_(builder.declare("value")),
      object_(builder.declare("object")),
      array_(builder.declare("array")),
      string_(builder.declare("string")),
      number_(builder.declare("number")),
      character_(builder.declare("character")) {
  GrammarBuilder& b = builder_;
  const Expression white = b.characters({{' ', ' '}, {'\n', '\n'}, {'\r', '\r'}, {'\t', '\t'}});
  b.define(space_, layout.compact ? b.empty() : b.repeat(white, 0, layout.space));

  const Expression hex = b.characters({{'0', '9'}, {'a', 'f'}, {'A', 'F'}});
  const auto unit = [&](std::vector<Range> first, std::vector<Range> second) {
    return b.sequence({b.literal("u"), b.characters(std::move(first)), b.characters(std::move(second)), hex, hex});
  };
  const std::vector<Range> all = {{'0', '9'}, {'a', 'f'}, {'A', 'F'}}, d = {{'d', 'd'}, {'D', 'D'}};
  const Expression plain_unit =
      b.choice({unit({{'0', '9'}, {'a', 'c'}, {'A', 'C'}, {'e', 'f'}, {'E', 'F'}}, all), unit(d, {{'0', '7'}})});
  const Expression pair = b.sequence(
      {unit(d, {{'8', '9'}, {'a', 'b'}, {'A', 'B'}}), b.literal("\\"), unit(d, {{'c', 'f'}, {'C', 'F'}})});
  const Expression named = b.characters(
      {{'"', '"'}, {'\\', '\\'}, {'/', '/'}, {'b', 'b'}, {'f', 'f'}, {'n', 'n'}, {'r', 'r'}, {'t', 't'}});
  const Expression escape = b.sequence({b.literal("\\"), b.choice({named, plain_unit, pair})});
  b.define(character_, b.choice({b.characters_except({{0, 0x1f}, {'"', '"'}, {'\\', '\\'}}), escape}));
  b.define(string_, quoted(b.repeat(any_character(), 0, kUnbounded)));

  const Expression digits = b.characters({{'0', '9'}});
  const Expression whole =
      b.choice({b.literal("0"), b.sequence({digit(1, 9), b.repeat(digits, 0, kMostDigits - 1)})});
  const Expression fraction = b.sequence({b.literal("."), b.repeat(digits, 1, kMostDigits)});
  const Expression exponent =
      b.sequence({b.characters({{'e', 'e'}, {'E', 'E'}}), b.optional(b.characters({{'+', '+'}, {'-', '-'}})),
                  b.repeat(digits, 1, kMostExponentDigits)});
  b.define(number_, b.sequence({b.optional(b.literal("-")), whole, b.optional(fraction), b.optional(exponent)}));

  b.define(object_, braces(list(member(string(), value()))));
  b.define(array_, brackets(list(value())));
  b.define(value_, b.choice({object(), array(), string(), number(), boolean(), null()}));
}

/// Zero or more items with commas between them.
JsonText::Expression JsonText::list(Expression item) {
  return builder_.optional(
      builder_.sequence({item, builder_.repeat(builder_.sequence({comma(), item}), 0, kUnbounded)}));
}

JsonText::Expression JsonText::string_of_length(int64_t min, int64_t max) {
  if (min == 0 && max == kUnbounded) return string();
  return quoted(builder_.repeat(any_character(), min, max));
}

JsonText::Expression JsonText::character_of(const std::vector<Range>& ranges) {
  constexpr char32_t kLastControl = 0x1f;
  std::vector<Range> plain;
  std::vector<Expression> parts;
  for (const auto& [low, high] : ranges) {
    // The parts of the range between the characters that need an escape.
    char32_t begin = low;
    for (const char32_t special : {U'"', U'\\'}) {
      if (special < begin || special > high) continue;
      if (special > begin) plain.emplace_back(begin, special - 1);
      parts.push_back(builder_.literal(special == '"' ? "\\\"" : "\\\\"));
      begin = special + 1;
    }
    if (begin <= high) plain.emplace_back(begin, high);
  }
  std::vector<Range> printable;
  for (const auto& [low, high] : plain) {
    for (char32_t c = low; c <= std::min(high, kLastControl); ++c) {
      constexpr std::string_view kNamed = "\b\f\n\r\t", kLetters = "bfnrt";
      const size_t named = c == 0 ? std::string_view::npos : kNamed.find(static_cast<char>(c));
      const std::string hex{"0123456789abcdef"[c / 16], "0123456789abcdef"[c % 16]};
      parts.push_back(
          builder_.literal(named == std::string_view::npos ? "\\u00" + hex : std::string("\\") + kLetters[named]));
    }
    if (high > kLastControl) printable.emplace_back(std::max<char32_t>(low, kLastControl + 1), high);
  }
  if (!printable.empty()) parts.push_back(builder_.characters(std::move(printable)));
  return builder_.choice(std::move(parts));
}

JsonText::Expression JsonText::key_except(const std::vector<std::string>& names) {
  std::vector<std::u32string> all;
  for (const std::string& name : names) {
    std::u32string& characters = all.emplace_back();
    for (std::string_view rest = name; !rest.empty(); rest.remove_prefix(utf8_length(rest)))
      characters += utf8_code_point(rest);
  }
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return quoted(key_except(all, 0, all.size(), 0));
}

/// The texts without escapes that are none of names [begin, end), which have the same first `depth` characters,
/// from these characters on.
JsonText::Expression JsonText::key_except(const std::vector<std::u32string>& names, size_t begin, size_t end,
                                          size_t depth) {
  const std::vector<Range> special = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}};
  const Expression others = builder_.repeat(builder_.characters_except(special), 0, kUnbounded);
  std::vector<Range> taken = special;
  std::vector<Expression> parts;
  const bool complete = begin < end && names[begin].size() == depth;
  if (!complete) parts.push_back(builder_.empty());
  for (size_t i = begin + (complete ? 1 : 0); i < end;) {
    const char32_t c = names[i][depth];
    size_t last = i;
    while (last < end && names[last][depth] == c) ++last;
    taken.emplace_back(c, c);
    const bool spelled = c > 0x1f && c != '"' && c != '\\';
    if (spelled) {
      // A chain of single children would nest deeply: the rest of a name becomes a rule of its own.
      const int32_t rule = builder_.declare("key");
      builder_.define(rule, key_except(names, i, last, depth + 1));
      parts.push_back(builder_.sequence({builder_.characters({{c, c}}), builder_.call(rule)}));
    }
    i = last;
  }
  parts.push_back(builder_.sequence({builder_.characters_except(taken), others}));
  return builder_.choice(std::move(parts));
}

JsonText::Expression JsonText::digit(int low, int high) {
  return builder_.characters({{static_cast<char32_t>('0' + low), static_cast<char32_t>('0' + high)}});
}

/// The numbers from low to high, which have the same number of digits.
JsonText::Expression JsonText::same_length(std::string_view low, std::string_view high) {
  if (low.empty()) return builder_.empty();
  const std::string_view zeros = "000000000000000000", nines = "999999999999999999";
  const int first = low[0] - '0', last = high[0] - '0';
  const std::string_view low_rest = low.substr(1), high_rest = high.substr(1);
  const auto n = static_cast<int64_t>(low_rest.size());
  if (first == last) return builder_.sequence({digit(first, first), same_length(low_rest, high_rest)});
  std::vector<Expression> parts;
  int begin = first, end = last;
  if (low_rest != zeros.substr(0, low_rest.size())) {
    parts.push_back(
        builder_.sequence({digit(first, first), same_length(low_rest, nines.substr(0, low_rest.size()))}));
    ++begin;
  }
  if (high_rest != nines.substr(0, high_rest.size())) {
    parts.push_back(
        builder_.sequence({digit(last, last), same_length(zeros.substr(0, high_rest.size()), high_rest)}));
    --end;
  }
  if (begin <= end) parts.push_back(builder_.sequence({digit(begin, end), builder_.repeat(digit(0, 9), n, n)}));
  return builder_.choice(std::move(parts));
}

/// The numbers 0 <= low to high, with at least this many digits.
JsonText::Expression JsonText::naturals(int64_t low, int64_t high, int digits) {
  std::vector<Expression> parts;
  while (low <= high) {
    std::string text = std::to_string(low);
    if (std::ssize(text) < digits) text.insert(0, static_cast<size_t>(digits) - text.size(), '0');
    const int64_t last = std::min(high, static_cast<int64_t>(std::stoll(std::string(text.size(), '9'))));
    std::string last_text = std::to_string(last);
    last_text.insert(0, text.size() - last_text.size(), '0');
    parts.push_back(same_length(text, last_text));
    low = last + 1;
  }
  return builder_.choice(std::move(parts));
}

JsonText::Expression JsonText::integers(int64_t low, int64_t high) {
  std::vector<Expression> parts;
  if (low < 0)
    parts.push_back(builder_.sequence({builder_.literal("-"), naturals(std::max<int64_t>(1, -high), -low, 1)}));
  if (high >= 0) parts.push_back(naturals(std::max<int64_t>(0, low), high, 1));
  return builder_.choice(std::move(parts));
}

JsonText::Expression JsonText::decimals(int64_t low, int64_t high, int digits) {
  int64_t unit = 1;
  for (int i = 0; i < digits; ++i) unit *= 10;
  // The numbers n / unit with 0 <= from <= n <= to: those of the first and last whole part, and those between.
  const auto positive = [&](int64_t from, int64_t to) {
    const auto with = [&](int64_t whole, int64_t first, int64_t last) {
      std::string a = std::to_string(first), b = std::to_string(last);
      a.insert(0, static_cast<size_t>(digits) - a.size(), '0');
      b.insert(0, static_cast<size_t>(digits) - b.size(), '0');
      return builder_.sequence({builder_.literal(std::to_string(whole) + "."), same_length(a, b)});
    };
    const int64_t first = from / unit, last = to / unit;
    if (first == last) return with(first, from % unit, to % unit);
    std::vector<Expression> parts{with(first, from % unit, unit - 1), with(last, 0, to % unit)};
    if (first + 1 < last)
      parts.push_back(builder_.sequence(
          {naturals(first + 1, last - 1, 1), builder_.literal("."), builder_.repeat(digit(0, 9), digits, digits)}));
    return builder_.choice(std::move(parts));
  };
  std::vector<Expression> parts;
  if (low < 0)
    parts.push_back(builder_.sequence({builder_.literal("-"), positive(std::max<int64_t>(1, -high), -low)}));
  if (high >= 0) parts.push_back(positive(std::max<int64_t>(0, low), high));
  return builder_.choice(std::move(parts));
}

}  // namespace fathom
