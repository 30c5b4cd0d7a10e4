#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/format.h"
#include "tokens/jinja/library.h"

namespace fathom::jinja {
namespace {

using FilterFunction = Value (*)(const Value& subject, const Arguments& arguments, Budget& budget);

bool given(const Value& value) { return !value.is_undefined() && !value.is_none(); }

/// Returns the item at an index, or the attribute at a path such as "function.name".
Value attribute_of(Value value, const Value& attribute) {
  if (attribute.is_integer()) return get_item(value, attribute);
  std::string_view path = expect_text(attribute, "attribute");
  while (true) {
    const size_t dot = std::min(path.find('.'), path.size());
    value = get_item(value, path.substr(0, dot));
    if (dot == path.size()) return value;
    path.remove_prefix(dot + 1);
  }
}

Value length(const Value& subject, const Arguments& arguments, Budget& budget) {
  bind("length", arguments, {});
  if (subject.text()) {
    budget.spend_text(subject.text()->size());
    return static_cast<int64_t>(characters(*subject.text()).size());
  }
  if (subject.dict()) return static_cast<int64_t>(subject.dict()->entries.size());
  if (subject.list()) return static_cast<int64_t>(subject.list()->items.size());
  if (subject.is_undefined()) return int64_t{0};
  fail("length: expected a list, dict or string, found ", subject.kind());
}

Value join(const Value& subject, const Arguments& arguments, Budget& budget) {
  const std::vector<Value> args = bind("join", arguments, {"d", "attribute"});
  const std::string separator = given(args[0]) ? args[0].to_text() : "";
  std::string out;
  bool first = true;
  for (const Value& item : items_of(subject, budget)) {
    const std::string text = given(args[1]) ? attribute_of(item, args[1]).to_text() : item.to_text();
    budget.spend_text(separator.size() + text.size());
    if (!first) out += separator;
    out += text;
    first = false;
  }
  return out;
}

Value to_json(const Value& subject, const Arguments& arguments, Budget& budget) {
  const std::vector<Value> args = bind("tojson", arguments, {"indent", "ensure_ascii", "separators", "sort_keys"});
  if (given(args[2])) fail("tojson: the argument separators is not supported");
  const int64_t indent = given(args[0]) ? std::clamp<int64_t>(args[0].integer(), 0, 64) : -1;
  std::string json = subject.to_json(indent);
  budget.spend_text(json.size());
  return json;
}

Value default_value(const Value& subject, const Arguments& arguments, Budget&) {
  const std::vector<Value> args = bind("default", arguments, {"default_value", "boolean"});
  const bool replaces = args[1].truth() ? !subject.truth() : subject.is_undefined();
  if (!replaces) return subject;
  return args[0].is_undefined() ? Value("") : args[0];
}

Value end_item(const Value& subject, Budget& budget, bool last) {
  const std::vector<Value> items = items_of(subject, budget);
  if (items.empty())
    return Value::undefined(last ? "the last item of an empty list" : "the first item of an empty list");
  return last ? items.back() : items.front();
}

Value reverse(const Value& subject, const Arguments& arguments, Budget& budget) {
  bind("reverse", arguments, {});
  if (subject.text()) return slice(subject, Value(), Value(), int64_t{-1}, budget);
  std::vector<Value> items = items_of(subject, budget);
  std::ranges::reverse(items);
  return Value::make_list(std::move(items));
}

Value items(const Value& subject, const Arguments& arguments, Budget& budget) {
  bind("items", arguments, {});
  if (subject.is_undefined()) return Value::make_list({});
  if (!subject.dict()) fail("items: expected a dict, found ", subject.kind());
  return *call_method(subject, "items", arguments, budget);
}

/// The filter or test, by name and with its arguments, that `map`, `select` and similar filters apply to each item.
struct ItemCall {
  std::string name;
  Arguments arguments;
  explicit ItemCall(const Arguments& outer, size_t name_at, const char* fallback) : name(fallback) {
    arguments.named = outer.named;
    if (outer.positional.size() <= name_at) return;
    name = expect_text(outer.positional[name_at], "the name of a filter or test");
    arguments.positional.assign(outer.positional.begin() + name_at + 1, outer.positional.end());
  }
};

/// Returns the items for `map` and `select`; none if the subject is false, such as none or 0.
std::vector<Value> items_if_any(const Value& subject, Budget& budget) {
  return subject.truth() ? items_of(subject, budget) : std::vector<Value>();
}

Value map(const Value& subject, const Arguments& arguments, Budget& budget) {
  std::vector<Value> mapped = items_if_any(subject, budget);
  if (arguments.positional.empty()) {
    Arguments rest = arguments;
    const std::vector<Value> args = bind("map", rest, {"attribute", "default"});
    if (!given(args[0])) fail("map: expected the name of a filter, or attribute=…");
    for (Value& item : mapped) {
      item = attribute_of(item, args[0]);
      if (item.is_undefined() && given(args[1])) item = args[1];
    }
  } else {
    const ItemCall call(arguments, 0, "");
    for (Value& item : mapped) item = apply_filter(call.name, item, call.arguments, budget);
  }
  return Value::make_list(std::move(mapped));
}

/// Returns the items for which the test gives `keep_when`. by_attribute: the first argument names the attribute of
/// an item that is tested. Without a test, the truth of the value is tested.
Value select_items(const Value& subject, const Arguments& arguments, Budget& budget, bool by_attribute,
                   bool keep_when) {
  if (by_attribute && arguments.positional.empty()) fail("selectattr: expected the name of an attribute");
  const ItemCall call(arguments, by_attribute, "");
  std::vector<Value> picked;
  for (const Value& item : items_if_any(subject, budget)) {
    const Value tested = by_attribute ? attribute_of(item, arguments.positional[0]) : item;
    const bool holds = call.name.empty() ? tested.truth() : apply_test(call.name, tested, call.arguments, budget);
    if (holds == keep_when) picked.push_back(item);
  }
  return Value::make_list(std::move(picked));
}

/// Parses a text that is a number apart from surrounding white space. Returns whether it is one.
template <class Number>
bool parse(const std::string& text, Number& number) {
  const std::string digits = stripped(text, Value());
  const char* begin = digits.data() + digits.starts_with('+');
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(begin, end, number);
  return error == std::errc() && stop == end && begin != end;
}

/// 2^63: the smallest positive float that exceeds 64-bit integers.
constexpr double kIntegerLimit = 9223372036854775808.0;

Value to_integer(const Value& subject, const Arguments& arguments, Budget&) {
  const std::vector<Value> args = bind("int", arguments, {"default", "base"});
  const Value fallback = given(args[0]) ? args[0] : Value(int64_t{0});
  double number = 0;
  if (subject.is_number()) {
    if (!subject.is_float()) return subject.integer();
    number = subject.number();
  } else {
    int64_t whole = 0;
    if (subject.text() && parse(*subject.text(), whole)) return whole;
    if (!subject.text() || !parse(*subject.text(), number)) return fallback;
  }
  if (!(std::abs(number) < kIntegerLimit)) return fallback;
  return static_cast<int64_t>(number);
}

Value to_float(const Value& subject, const Arguments& arguments, Budget&) {
  const std::vector<Value> args = bind("float", arguments, {"default"});
  if (subject.is_number()) return subject.number();
  double number = 0;
  if (subject.text() && parse(*subject.text(), number)) return number;
  return given(args[0]) ? args[0] : Value(0.0);
}

/// Returns the value by which items are compared: strings in lower case unless case_sensitive.
Value sort_key(const Value& value, bool case_sensitive) {
  return value.text() && !case_sensitive ? Value(lower(*value.text())) : value;
}

/// Sorts stably by precomputed keys.
std::vector<Value> sorted(std::vector<Value> values, const std::vector<Value>& keys, bool reversed) {
  std::vector<size_t> order(values.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(
      order, [&](size_t a, size_t b) { return reversed ? keys[b].less(keys[a]) : keys[a].less(keys[b]); });
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(std::move(values[i]));
  return out;
}

Value sort(const Value& subject, const Arguments& arguments, Budget& budget) {
  const std::vector<Value> args = bind("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<Value> values = items_of(subject, budget);
  std::vector<Value> keys;
  for (const Value& value : values) {
    keys.push_back(sort_key(given(args[2]) ? attribute_of(value, args[2]) : value, args[1].truth()));
  }
  budget.spend(subject.weight() * 16);
  return Value::make_list(sorted(std::move(values), keys, args[0].truth()));
}

Value dict_sort(const Value& subject, const Arguments& arguments, Budget& budget) {
  const std::vector<Value> args = bind("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const bool by_value = given(args[1]) && expect_text(args[1], "dictsort") == "value";
  std::vector<Value> pairs = items_of(items(subject, {}, budget), budget);
  std::vector<Value> keys;
  for (const Value& pair : pairs) keys.push_back(sort_key(pair.list()->items[by_value], args[0].truth()));
  budget.spend(subject.weight() * 16);
  return Value::make_list(sorted(std::move(pairs), keys, args[2].truth()));
}

Value indent(const Value& subject, const Arguments& arguments, Budget& budget) {
  const std::vector<Value> args = bind("indent", arguments, {"width", "first", "blank"});
  const int64_t width = given(args[0]) && args[0].is_integer() ? args[0].integer() : 4;
  if (width < 0 || width > 1000) fail("indent: expected a width of 0 to 1000, found ", width);
  const std::string margin = args[0].text() ? *args[0].text() : std::string(width, ' ');
  std::string out;
  bool first = true;
  for (const Value& line :
       items_of(*call_method(subject.to_text(), "split", {{Value("\n")}, {}}, budget), budget)) {
    budget.spend_text(margin.size() + line.text()->size() + 16);
    if (!first) out += '\n';
    const bool indents = first ? args[1].truth() : !line.text()->empty() || args[2].truth();
    if (indents) out += margin;
    out += *line.text();
    first = false;
  }
  return out;
}

Value unique(const Value& subject, const Arguments& arguments, Budget& budget) {
  const std::vector<Value> args = bind("unique", arguments, {"case_sensitive", "attribute"});
  std::vector<Value> keys, kept;
  for (const Value& item : items_of(subject, budget)) {
    Value key = sort_key(given(args[1]) ? attribute_of(item, args[1]) : item, args[0].truth());
    budget.spend(static_cast<int64_t>(keys.size()) + key.weight());
    if (std::ranges::find(keys, key) != keys.end()) continue;
    keys.push_back(std::move(key));
    kept.push_back(item);
  }
  return Value::make_list(std::move(kept));
}

Value sum(const Value& subject, const Arguments& arguments, Budget& budget) {
  const std::vector<Value> args = bind("sum", arguments, {"attribute", "start"});
  Value total = given(args[1]) ? args[1] : Value(int64_t{0});
  for (const Value& item : items_of(subject, budget)) {
    total = apply_operator("+", total, given(args[0]) ? attribute_of(item, args[0]) : item, budget);
  }
  return total;
}

Value extreme(const Value& subject, Budget& budget, bool greatest) {
  const std::vector<Value> items = items_of(subject, budget);
  if (items.empty()) return Value::undefined("the extreme of an empty list");
  const auto less = [](const Value& a, const Value& b) { return a.less(b); };
  return greatest ? *std::ranges::max_element(items, less) : *std::ranges::min_element(items, less);
}

Value replace(const Value& subject, const Arguments& arguments, Budget& budget) {
  const std::vector<Value> args = bind("replace", arguments, {"old", "new", "count"});
  const int64_t count = given(args[2]) ? args[2].integer() : -1;
  return replaced(subject.to_text(), args[0].to_text(), args[1].to_text(), count, budget);
}

Value absolute(const Value& subject, const Arguments&, Budget&) {
  if (!subject.is_number()) fail("abs: expected a number, found ", subject.kind());
  return subject.number() < 0 ? negative(subject) : subject;
}

/// A filter without arguments that changes the text of a value.
template <auto Change>
Value change_text(const Value& subject, const Arguments& arguments, Budget& budget) {
  bind("filter", arguments, {});
  std::string text = Change(subject.to_text());
  budget.spend_text(text.size());
  return text;
}

const std::map<std::string_view, FilterFunction>& filters() {
  static constexpr auto kSame = [](const std::string& text) { return text; };
  static const std::map<std::string_view, FilterFunction> kFilters = {
      {"trim",
       [](const Value& v, const Arguments& a, Budget&) -> Value {
         return stripped(v.to_text(), bind("trim", a, {"chars"})[0]);
       }},
      {"length", length},
      {"count", length},
      {"join", join},
      {"tojson", to_json},
      {"upper", change_text<upper>},
      {"lower", change_text<lower>},
      {"capitalize", change_text<capitalized>},
      {"title", change_text<titled>},
      {"string", change_text<kSame>},
      {"safe", change_text<kSame>},
      {"first", [](const Value& v, const Arguments&, Budget& b) { return end_item(v, b, false); }},
      {"last", [](const Value& v, const Arguments&, Budget& b) { return end_item(v, b, true); }},
      {"list", [](const Value& v, const Arguments&, Budget& b) { return Value::make_list(items_of(v, b)); }},
      {"items", items},
      {"default", default_value},
      {"d", default_value},
      {"replace", replace},
      {"map", map},
      {"select", [](const Value& v, const Arguments& a, Budget& b) { return select_items(v, a, b, false, true); }},
      {"reject", [](const Value& v, const Arguments& a, Budget& b) { return select_items(v, a, b, false, false); }},
      {"selectattr",
       [](const Value& v, const Arguments& a, Budget& b) { return select_items(v, a, b, true, true); }},
      {"rejectattr",
       [](const Value& v, const Arguments& a, Budget& b) { return select_items(v, a, b, true, false); }},
      {"int", to_integer},
      {"float", to_float},
      {"abs", absolute},
      {"sort", sort},
      {"dictsort", dict_sort},
      {"indent", indent},
      {"unique", unique},
      {"reverse", reverse},
      {"sum", sum},
      {"min", [](const Value& v, const Arguments&, Budget& b) { return extreme(v, b, false); }},
      {"max", [](const Value& v, const Arguments&, Budget& b) { return extreme(v, b, true); }},
  };
  return kFilters;
}

}  // namespace

Value apply_filter(std::string_view name, const Value& subject, const Arguments& arguments, Budget& budget) {
  const auto found = filters().find(name);
  if (found == filters().end()) fail("unknown filter ", quote(name));
  budget.spend(subject.weight());
  return found->second(subject, arguments, budget);
}

}  // namespace fathom::jinja
