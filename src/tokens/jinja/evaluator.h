#pragma once

#include <functional>
#include <map>
#include <string>

#include "tokens/jinja/ast.h"
#include "tokens/jinja/library.h"

namespace fathom::jinja {

using Variables = std::map<std::string, Value, std::less<>>;

/// Renders a parsed template once.
class Evaluator {
 public:
  /// variables: the global variables. steps: the limit of Budget.
  Evaluator(Variables variables, int64_t steps);

  /// Returns the rendered text. Throws Error that names the line of the failed statement.
  std::string render(const Body& body);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  struct Scope {
    Variables variables;
    Scope* parent = nullptr;
  };
  class ScopeGuard;
  class DepthGuard;

  Flow run(const Body& body);
  Flow run(const Statement& statement);
  Flow run_if(const Statement& statement);
  Flow run_for(const Statement& statement);
  Flow run_item(const Statement& statement, const std::vector<Value>& items, size_t index);
  void define_macro(const Statement& statement);
  Value call_macro(const Statement& macro, const Arguments& arguments);
  std::string capture(const Body& body);
  void assign(const AssignTarget& target, const Value& value);

  Value evaluate(const Expression& expression);
  Value evaluate_name(const Expression& expression) const;
  Value evaluate_collection(const Expression& expression);
  Value evaluate_logic(const Expression& expression);
  Value evaluate_compare(const Expression& expression);
  Value evaluate_slice(const Expression& expression);
  Value evaluate_call(const Expression& expression);
  Value optional_part(const Expression& expression, size_t part);
  Arguments arguments_of(const Expression& expression);

  Scope top_;
  Scope* scope_ = &top_;
  std::string out_;
  Budget budget_;
  int depth_ = 0;  // nesting of the statements, expressions and macros being evaluated
  int line_ = 0;   // of the statement or expression being evaluated
};

}  // namespace fathom::jinja
