#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/format.h"
#include "tokens/jinja/library.h"

namespace fathom::jinja {
namespace {

using TestFunction = bool (*)(const Value&, const Value&, Budget&);  // subject, argument (undefined without one)

struct TestInfo {
  size_t arguments;
  TestFunction test;
};

const std::map<std::string_view, TestInfo>& tests() {
  static const std::map<std::string_view, TestInfo> kTests = {
      {"defined", {0, [](const Value& v, const Value&, Budget&) { return !v.is_undefined(); }}},
      {"undefined", {0, [](const Value& v, const Value&, Budget&) { return v.is_undefined(); }}},
      {"none", {0, [](const Value& v, const Value&, Budget&) { return v.is_none(); }}},
      {"string", {0, [](const Value& v, const Value&, Budget&) { return v.text() != nullptr; }}},
      {"mapping", {0, [](const Value& v, const Value&, Budget&) { return v.dict() != nullptr; }}},
      {"iterable",
       {0, [](const Value& v, const Value&,
              Budget&) { return v.text() || v.list() || v.dict() || v.is_undefined(); }}},
      {"sequence",
       {0, [](const Value& v, const Value&,
              Budget&) { return v.text() || v.list() || v.dict() || v.is_undefined(); }}},
      {"boolean", {0, [](const Value& v, const Value&, Budget&) { return v.is_bool(); }}},
      {"number", {0, [](const Value& v, const Value&, Budget&) { return v.is_number(); }}},
      {"integer", {0, [](const Value& v, const Value&, Budget&) { return v.is_integer(); }}},
      {"float", {0, [](const Value& v, const Value&, Budget&) { return v.is_float(); }}},
      {"true", {0, [](const Value& v, const Value&, Budget&) { return v.is_bool() && v.truth(); }}},
      {"false", {0, [](const Value& v, const Value&, Budget&) { return v.is_bool() && !v.truth(); }}},
      {"callable", {0, [](const Value& v, const Value&, Budget&) { return v.function() != nullptr; }}},
      {"odd", {0, [](const Value& v, const Value&, Budget&) { return v.integer() % 2 != 0; }}},
      {"even", {0, [](const Value& v, const Value&, Budget&) { return v.integer() % 2 == 0; }}},
      {"lower", {0, [](const Value& v, const Value&, Budget&) { return lower(v.to_text()) == v.to_text(); }}},
      {"upper", {0, [](const Value& v, const Value&, Budget&) { return upper(v.to_text()) == v.to_text(); }}},
      {"divisibleby",
       {1,
        [](const Value& v, const Value& by, Budget&) {
          if (by.integer() == 0) fail("divisibleby: division by zero");
          return by.integer() == -1 || v.integer() % by.integer() == 0;
        }}},
      {"in", {1, [](const Value& v, const Value& in, Budget& b) { return compare("in", v, in, b); }}},
      {"eq", {1, [](const Value& v, const Value& to, Budget& b) { return compare("==", v, to, b); }}},
      {"ne", {1, [](const Value& v, const Value& to, Budget& b) { return compare("!=", v, to, b); }}},
      {"lt", {1, [](const Value& v, const Value& to, Budget& b) { return compare("<", v, to, b); }}},
      {"le", {1, [](const Value& v, const Value& to, Budget& b) { return compare("<=", v, to, b); }}},
      {"gt", {1, [](const Value& v, const Value& to, Budget& b) { return compare(">", v, to, b); }}},
      {"ge", {1, [](const Value& v, const Value& to, Budget& b) { return compare(">=", v, to, b); }}},
  };
  return kTests;
}

/// Returns the main name of a test.
std::string_view plain_name(std::string_view name) {
  static const std::map<std::string_view, std::string_view> kNames = {
      {"equalto", "eq"},  {"sameas", "eq"},      {"==", "eq"}, {"!=", "ne"}, {"<", "lt"},
      {"lessthan", "lt"}, {"greaterthan", "gt"}, {"<=", "le"}, {">", "gt"},  {">=", "ge"}};
  const auto found = kNames.find(name);
  return found == kNames.end() ? name : found->second;
}

}  // namespace

bool apply_test(std::string_view name, const Value& subject, const Arguments& arguments, Budget& budget) {
  budget.spend(subject.weight());
  const auto found = tests().find(plain_name(name));
  if (found == tests().end()) fail("unknown test ", quote(name));
  const auto& [count, test] = found->second;
  if (arguments.positional.size() != count || !arguments.named.empty()) {
    fail("test ", quote(name), ": expected ", count, " arguments, found ",
         arguments.positional.size() + arguments.named.size());
  }
  return test(subject, count == 0 ? Value() : arguments.positional[0], budget);
}

}  // namespace fathom::jinja
