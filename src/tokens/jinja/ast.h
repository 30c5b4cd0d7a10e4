#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tokens/jinja/value.h"

namespace fathom::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    kLiteral,      // value
    kName,         // name
    kList,         // parts
    kTuple,        // parts
    kDict,         // parts: key, value, key, value, …
    kAttribute,    // parts[0].name
    kSubscript,    // parts[0][parts[1]]
    kSlice,        // parts[0][parts[1]:parts[2]:parts[3]], null where left out
    kCall,         // parts[0](parts[1], …, named)
    kFilter,       // parts[0] | name(parts[1], …, named)
    kTest,         // parts[0] is name(parts[1], …)
    kNot,          // parts[0]
    kNegative,     // parts[0]
    kPositive,     // parts[0]
    kAnd,          // parts[0], parts[1]
    kOr,           // parts[0], parts[1]
    kConditional,  // parts[0] if parts[1] else parts[2], null where left out
    kBinary,       // parts[0] name parts[1]: + - ~ * / // % **
    kCompare,      // parts[0] names[0] parts[1] names[1] parts[2] …: == != < <= > >= in, not in
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  int depth = 1;  // of the tree below
  Value value;
  std::string name;
  std::vector<std::string> names;
  std::vector<ExpressionPtr> parts;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct Statement;
using Body = std::vector<Statement>;

struct Parameter {
  std::string name;
  ExpressionPtr default_value;  // null: none
};

/// What an assignment or a loop binds: one name, several, or an attribute of a namespace.
struct Target {
  std::vector<std::string> names;
  bool is_tuple = false;  // unpack, even into one name
  std::string attribute;  // empty: the names themselves
};

struct Statement {
  enum class Kind {
    kText,      // text
    kPrint,     // expression
    kIf,        // branches; the condition of "else" is null
    kFor,       // target, expression, condition (null: none), bodies[0], bodies[1] for "else"
    kSet,       // target, expression
    kSetBlock,  // target, bodies[0], then filters on top: expression whose innermost name is kBlockText
    kMacro,     // text is its name; parameters, bodies[0]
    kBody,      // bodies[0]: {% generation %}
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  Target target;
  ExpressionPtr expression, condition;
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  std::vector<Body> bodies;
  std::vector<Parameter> parameters;
};

/// The name under which the text of a {% set %} block meets its filters; no template can spell it.
inline constexpr const char* kBlockText = "{% set %}";

}  // namespace fathom::jinja
