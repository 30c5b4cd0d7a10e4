#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/format.h"
#include "tokens/jinja/library.h"

namespace fathom::jinja {
namespace {

[[noreturn]] void fail_operands(std::string_view symbol, const Value& left, const Value& right) {
  const auto shown = [](const Value& value) {
    return value.is_undefined() ? quote(value.undefined_name()) + ", which is undefined"
                                : std::string(value.kind());
  };
  fail("'", symbol, "' is not supported for ", shown(left), " and ", shown(right));
}

int64_t checked_power(int64_t base, int64_t exponent) {
  int64_t power = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) && __builtin_mul_overflow(power, base, &power)) fail("the result of '**' exceeds 64 bits");
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) fail("the result of '**' exceeds 64 bits");
  }
  return power;
}

Value integer_operator(std::string_view symbol, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (symbol == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (symbol == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (symbol == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (symbol == "**") {
    return checked_power(a, b);
  } else if (b == -1) {  // "//" and "%"; the division itself could overflow
    overflow = symbol == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
  } else {
    const int64_t rest = a % b;
    const bool rounds_up = rest != 0 && (rest < 0) != (b < 0);
    result = symbol == "//" ? a / b - rounds_up : rest + (rounds_up ? b : 0);
  }
  if (overflow) fail("the result of '", symbol, "' exceeds 64 bits");
  return result;
}

Value number_operator(std::string_view symbol, const Value& left, const Value& right) {
  const bool divides = symbol == "/" || symbol == "//" || symbol == "%";
  if (divides && right.number() == 0) fail("division by zero");
  const bool integers = !left.is_float() && !right.is_float();
  if (integers && symbol != "/" && !(symbol == "**" && right.integer() < 0)) {
    return integer_operator(symbol, left.integer(), right.integer());
  }
  const double a = left.number(), b = right.number();
  if (symbol == "+") return a + b;
  if (symbol == "-") return a - b;
  if (symbol == "*") return a * b;
  if (symbol == "/") return a / b;
  if (symbol == "**") return std::pow(a, b);
  const double floor = std::floor(a / b);
  return symbol == "//" ? floor : a - floor * b;
}

Value repeated(const Value& value, int64_t count, Budget& budget) {
  count = std::max<int64_t>(count, 0);
  if (const std::string* text = value.text()) {
    if (text->empty()) return value;
    budget.spend(count);
    budget.spend(count * static_cast<int64_t>(text->size() / 16));
    std::string out;
    for (; count > 0; --count) out += *text;
    return out;
  }
  const Value::List& list = *value.list();
  std::vector<Value> items;
  for (; count > 0 && !list.items.empty(); --count) {
    budget.spend(static_cast<int64_t>(list.items.size()));
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return Value::make_list(std::move(items), list.is_tuple);
}

bool contains(const Value& container, const Value& item) {
  if (const std::string* text = container.text()) {
    if (!item.text()) fail("'in' with a string after it: expected a string before it, found ", item.kind());
    return text->find(*item.text()) != std::string::npos;
  }
  if (container.list()) return std::ranges::find(container.list()->items, item) != container.list()->items.end();
  if (container.dict()) return container.dict()->find(item) != nullptr;
  if (container.is_undefined()) return false;
  fail("'in': expected a list, dict or string after it, found ", container.kind());
}

/// Returns a bound of a slice with Python's meaning: counted from the end if negative, and clamped to the range.
int64_t bound(const Value& value, int64_t size, int64_t step, int64_t fallback) {
  if (value.is_undefined() || value.is_none()) return fallback;
  int64_t at = value.integer();
  if (at < 0) at = std::max<int64_t>(at, -size - 1) + size;
  return step > 0 ? std::clamp<int64_t>(at, 0, size) : std::clamp<int64_t>(at, -1, size - 1);
}

template <class Items>
Items sliced(const Items& items, const Value& from, const Value& to, const Value& step_value) {
  const bool given = !step_value.is_undefined() && !step_value.is_none();
  const auto size = static_cast<int64_t>(items.size());
  const int64_t step = given ? std::clamp<int64_t>(step_value.integer(), -size - 1, size + 1) : 1;
  if (given && step_value.integer() == 0) fail("slice: expected a step other than 0");
  const int64_t begin = bound(from, size, step, step > 0 ? 0 : size - 1);
  const int64_t end = bound(to, size, step, step > 0 ? size : -1);
  Items out;
  for (int64_t i = begin; step > 0 ? i < end : i > end; i += step) out.push_back(items[i]);
  return out;
}

}  // namespace

void Budget::spend(int64_t steps) {
  left_ = steps > left_ ? -1 : left_ - steps;
  if (left_ < 0) fail("the template exceeds its step limit; it may have an endless loop");
}

Value apply_operator(std::string_view symbol, const Value& left, const Value& right, Budget& budget) {
  if (symbol == "~") {
    budget.spend(left.weight() + right.weight());
    return left.to_text() + right.to_text();
  }
  if (left.is_number() && right.is_number()) return number_operator(symbol, left, right);
  if (symbol == "+" && left.text() && right.text()) {
    budget.spend_text(left.text()->size() + right.text()->size());
    return *left.text() + *right.text();
  }
  if (symbol == "+" && left.list() && right.list()) {
    std::vector<Value> items = left.list()->items;
    items.insert(items.end(), right.list()->items.begin(), right.list()->items.end());
    budget.spend(static_cast<int64_t>(items.size()));
    return Value::make_list(std::move(items), left.list()->is_tuple);
  }
  const bool repeats = symbol == "*";
  if (repeats && (left.text() || left.list()) && right.is_integer()) return repeated(left, right.integer(), budget);
  if (repeats && (right.text() || right.list()) && left.is_integer())
    return repeated(right, left.integer(), budget);
  fail_operands(symbol, left, right);
}

bool compare(std::string_view symbol, const Value& left, const Value& right, Budget& budget) {
  budget.spend(left.weight() + right.weight());
  if (symbol == "==") return left == right;
  if (symbol == "!=") return !(left == right);
  if (symbol == "in") return contains(right, left);
  if (symbol == "not in") return !contains(right, left);
  if (left.is_undefined() || right.is_undefined()) fail_operands(symbol, left, right);
  if (symbol == "<") return left.less(right);
  if (symbol == ">") return right.less(left);
  return symbol == "<=" ? left.less(right) || left == right : right.less(left) || left == right;
}

Value negative(const Value& value) {
  if (!value.is_number()) fail("'-' is not supported for ", value.kind());
  return value.is_float() ? Value(-value.number()) : integer_operator("-", 0, value.integer());
}

Value get_item(const Value& object, const Value& key) {
  if (object.is_undefined())
    fail(quote(object.undefined_name()), " is undefined, so it has no ", quote(key.to_text()));
  if (const Value::Dict* dict = object.dict()) {
    const Value* found = dict->find(key);
    return found ? *found : Value::undefined(key.to_text());
  }
  if (!key.is_integer()) return Value::undefined(key.to_text());
  const auto pick = [&](const auto& items) -> Value {
    const auto size = static_cast<int64_t>(items.size());
    const int64_t at = key.integer() < 0 ? key.integer() + size : key.integer();
    return at >= 0 && at < size ? Value(items[at]) : Value::undefined(key.to_text());
  };
  if (object.list()) return pick(object.list()->items);
  if (object.text()) return pick(characters(*object.text()));
  return Value::undefined(key.to_text());
}

Value slice(const Value& object, const Value& from, const Value& to, const Value& step, Budget& budget) {
  if (const Value::List* list = object.list()) {
    budget.spend(static_cast<int64_t>(list->items.size()));
    return Value::make_list(sliced(list->items, from, to, step), list->is_tuple);
  }
  if (!object.text()) fail("slice: expected a list or string, found ", object.kind());
  budget.spend_text(object.text()->size());
  std::string text;
  for (const std::string_view character : sliced(characters(*object.text()), from, to, step)) text += character;
  return text;
}

std::vector<Value> items_of(const Value& value, Budget& budget) {
  std::vector<Value> items;
  if (value.list()) {
    items = value.list()->items;
  } else if (value.text()) {
    for (const std::string_view character : characters(*value.text())) items.emplace_back(character);
  } else if (value.dict()) {
    for (const auto& [key, item] : value.dict()->entries) items.push_back(key);
  } else if (!value.is_undefined()) {
    fail("expected a list, dict or string to iterate over, found ", value.kind());
  }
  budget.spend(static_cast<int64_t>(items.size()));
  return items;
}

std::vector<Value> bind(std::string_view function, const Arguments& arguments,
                        std::initializer_list<std::string_view> parameters) {
  std::vector<Value> bound = arguments.positional;
  if (bound.size() > parameters.size()) {
    fail(function, ": expected at most ", parameters.size(), " arguments, found ", bound.size());
  }
  bound.resize(parameters.size());
  for (const auto& [name, value] : arguments.named) {
    const auto* found = std::ranges::find(parameters, name);
    if (found == parameters.end()) fail(function, ": unexpected argument ", quote(name));
    bound[found - parameters.begin()] = value;
  }
  return bound;
}

const std::string& expect_text(const Value& value, std::string_view where) {
  if (!value.text()) fail(where, ": expected a string, found ", value.kind());
  return *value.text();
}

}  // namespace fathom::jinja
