#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "decode/grammar/grammar.h"

namespace fathom {

/// White space between the parts of generated JSON.
struct JsonLayout {
  bool compact = false;  // none
  int64_t space = 16;    // most characters between two parts
};

/// The expressions of JSON texts in a grammar. White space is bounded, numbers have at most 15 digits and an
/// exponent of two, and escapes of characters are pairs where UTF-16 needs them, so every text is read back without
/// loss.
class JsonText {
 public:
  using Expression = GrammarBuilder::Expression;
  using Range = GrammarBuilder::Range;
  static constexpr int64_t kLargestInteger = 999'999'999'999'999;

  JsonText(GrammarBuilder& builder, JsonLayout layout);

  GrammarBuilder& builder() { return builder_; }
  /// White space between two parts.
  Expression space() { return builder_.call(space_); }
  Expression value() { return builder_.call(value_); }
  Expression object() { return builder_.call(object_); }
  Expression array() { return builder_.call(array_); }
  Expression string() { return builder_.call(string_); }
  Expression boolean() { return builder_.choice({builder_.literal("true"), builder_.literal("false")}); }
  Expression null() { return builder_.literal("null"); }
  Expression number() { return builder_.call(number_); }

  /// A string of min to max characters; max: kUnbounded for any number.
  Expression string_of_length(int64_t min, int64_t max);
  /// A string whose content is an expression of characters as in JSON.
  Expression quoted(Expression content) {
    return builder_.sequence({builder_.literal("\""), content, builder_.literal("\"")});
  }
  /// One character of a string in any spelling.
  Expression any_character() { return builder_.call(character_); }
  /// One character of the ranges, spelled as it is or, where JSON demands it, as an escape.
  Expression character_of(const std::vector<Range>& ranges);
  /// The key of a property that is none of the names.
  Expression key_except(const std::vector<std::string>& names);
  /// The integers of [low, high], which are within ±kLargestInteger.
  Expression integers(int64_t low, int64_t high);
  /// The decimal numbers low / 10^digits to high / 10^digits with this many digits after the point.
  Expression decimals(int64_t low, int64_t high, int digits);

  /// { pair, pair … } of zero or more members. pairs: the part between the braces.
  Expression braces(Expression pairs) { return enclosed("{", pairs, "}"); }
  Expression brackets(Expression items) { return enclosed("[", items, "]"); }
  Expression comma() { return builder_.sequence({builder_.literal(","), space()}); }
  /// "key": value
  Expression member(Expression key, Expression value) {
    return builder_.sequence({key, builder_.literal(":"), space(), value});
  }

 private:
  Expression enclosed(const char* open, Expression inside, const char* close) {
    return builder_.sequence({builder_.literal(open), space(), inside, space(), builder_.literal(close)});
  }
  Expression list(Expression item);
  Expression digit(int low, int high);
  Expression same_length(std::string_view low, std::string_view high);
  Expression naturals(int64_t low, int64_t high, int digits);
  Expression key_except(const std::vector<std::u32string>& names, size_t begin, size_t end, size_t depth);

  GrammarBuilder& builder_;
  int32_t space_, value_, object_, array_, string_, number_, character_;
};

}  // namespace fathom
