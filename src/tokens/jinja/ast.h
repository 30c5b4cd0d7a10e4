#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tokens/jinja/value.h"

namespace fathom::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

/// A node of an expression tree. The comments list the members that each kind uses.
struct Expression {
  enum class Kind {
    kLiteral,      // value
    kName,         // name
    kList,         // parts
    kTuple,        // parts
    kDict,         // parts: key, value, key, value, …
    kAttribute,    // parts[0].name
    kSubscript,    // parts[0][parts[1]]
    kSlice,        // parts[0][parts[1]:parts[2]:parts[3]]; omitted parts are null
    kCall,         // parts[0](parts[1], …, named)
    kFilter,       // parts[0] | name(parts[1], …, named)
    kTest,         // parts[0] is name(parts[1], …)
    kNot,          // parts[0]
    kNegative,     // parts[0]
    kPositive,     // parts[0]
    kAnd,          // parts[0], parts[1]
    kOr,           // parts[0], parts[1]
    kConditional,  // parts[0] if parts[1] else parts[2]; an omitted part is null
    kBinary,       // parts[0] name parts[1]: + - ~ * / // % **
    kCompare,      // parts[0] names[0] parts[1] names[1] parts[2] …: == != < <= > >= in, not in
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  int depth = 1;  // levels of the tree from this node down
  Value value;
  std::string name;
  std::vector<std::string> names;
  std::vector<ExpressionPtr> parts;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct Statement;
using Body = std::vector<Statement>;

struct MacroParameter {
  std::string name;
  ExpressionPtr default_value;  // null: none
};

/// The target of an assignment or a loop: one name, several names, or an attribute of a namespace.
struct AssignTarget {
  std::vector<std::string> names;
  bool is_tuple = false;  // unpack the value, even into one name
  std::string attribute;  // of the namespace names[0]; empty: assign to the names
};

/// A statement of a template. The comments list the members that each kind uses.
struct Statement {
  enum class Kind {
    kText,      // text
    kPrint,     // expression
    kIf,        // branches; the condition of "else" is null
    kFor,       // target, expression, condition (null: none), bodies[0], bodies[1] for "else"
    kSet,       // target, expression
    kSetBlock,  // target, bodies[0], expression: filters applied to the name kBlockText
    kMacro,     // text (the name), parameters, bodies[0]
    kBody,      // bodies[0]: {% generation %}
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  AssignTarget target;
  ExpressionPtr expression, condition;
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  std::vector<Body> bodies;
  std::vector<MacroParameter> parameters;
};

/// The variable that holds the text of a {% set %} block for its filters. It is no valid name in a template.
inline constexpr const char* kBlockText = "{% set %}";

}  // namespace fathom::jinja
