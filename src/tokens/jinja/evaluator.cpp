#include "tokens/jinja/evaluator.h"

#include <ctime>

#include "base/error.h"
#include "base/format.h"
#include "tokens/jinja/lexer.h"

namespace fathom::jinja {
namespace {

/// Maximum nesting. No known template needs as much, and a thread's stack holds far more.
constexpr int kMaxDepth = 500;

Value range(const Arguments& arguments, Budget& budget) {
  const std::vector<Value> args = bind("range", arguments, {"start", "stop", "step"});
  const bool single = args[1].is_undefined();
  const int64_t start = single ? 0 : args[0].integer();
  const int64_t stop = single ? args[0].integer() : args[1].integer();
  const int64_t step = args[2].is_undefined() ? 1 : args[2].integer();
  if (step == 0) fail("range: expected a step other than 0");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    budget.spend(1);
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::make_list(std::move(items));
}

Value dict_of(const Arguments& arguments, bool is_namespace) {
  if (arguments.positional.size() > 1)
    fail("dict and namespace: expected at most one dict and named arguments, found ", arguments.positional.size(),
         " positional arguments");
  Value made = Value::make_dict({}, is_namespace);
  if (!arguments.positional.empty()) {
    const Value::Dict* given = arguments.positional[0].dict();
    if (!given) fail("expected a dict, found ", arguments.positional[0].kind());
    for (const auto& [key, value] : given->entries) made.dict()->set(key, value);
  }
  for (const auto& [name, value] : arguments.named) made.dict()->set(name, value);
  return made;
}

Value time_text(const Arguments& arguments) {
  const std::string& format = expect_text(bind("strftime_now", arguments, {"format"})[0], "strftime_now");
  if (format.size() > 100) fail("strftime_now: expected a format of at most 100 bytes, found ", format.size());
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[4096];
  return std::string(text, std::strftime(text, sizeof text, format.c_str(), &local));
}

Value raise(const Arguments& arguments) {
  fail("the template rejects this chat: ", bind("raise_exception", arguments, {"message"})[0].to_text());
}

Value loop_state(const std::vector<Value>& items, size_t index) {
  const auto at = static_cast<int64_t>(index), count = static_cast<int64_t>(items.size());
  std::vector<std::pair<Value, Value>> entries{
      {"index", at + 1}, {"index0", at},           {"first", at == 0},           {"last", at + 1 == count},
      {"length", count}, {"revindex", count - at}, {"revindex0", count - at - 1}};
  if (index > 0) entries.emplace_back("previtem", items[index - 1]);
  if (index + 1 < items.size()) entries.emplace_back("nextitem", items[index + 1]);
  return Value::make_dict(std::move(entries));
}

}  // namespace

/// Opens a scope for its lifetime. parent: the scope in which other variables are looked up.
class Evaluator::ScopeGuard {
 public:
  ScopeGuard(Evaluator& evaluator, Scope* parent) : evaluator_(evaluator), outer_(evaluator.scope_) {
    scope_.parent = parent;
    evaluator_.scope_ = &scope_;
  }
  ~ScopeGuard() { evaluator_.scope_ = outer_; }
  ScopeGuard(const ScopeGuard&) = delete;

 private:
  Evaluator& evaluator_;
  Scope scope_;
  Scope* outer_;
};

class Evaluator::DepthGuard {
 public:
  explicit DepthGuard(Evaluator& evaluator) : evaluator_(evaluator) {
    evaluator_.budget_.spend(1);
    if (++evaluator_.depth_ > kMaxDepth) fail("macros and blocks are nested more than ", kMaxDepth, " levels deep");
  }
  ~DepthGuard() { --evaluator_.depth_; }
  DepthGuard(const DepthGuard&) = delete;

 private:
  Evaluator& evaluator_;
};

Evaluator::Evaluator(Variables variables, int64_t steps) : budget_(steps) {
  top_.variables = std::move(variables);
  const auto define = [&](const char* name, std::function<Value(const Arguments&)> call) {
    top_.variables.emplace(name, Value::make_function(name, std::move(call)));
  };
  define("range", [this](const Arguments& arguments) { return range(arguments, budget_); });
  define("dict", [](const Arguments& arguments) { return dict_of(arguments, false); });
  define("namespace", [](const Arguments& arguments) { return dict_of(arguments, true); });
  define("raise_exception", raise);
  define("strftime_now", time_text);
}

std::string Evaluator::render(const Body& body) {
  try {
    run(body);
  } catch (const Error& error) {
    fail_at(line_, error.what());
  }
  return std::move(out_);
}

Evaluator::Flow Evaluator::run(const Body& body) {
  for (const Statement& statement : body) {
    const Flow flow = run(statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run(const Statement& statement) {
  const DepthGuard depth(*this);
  line_ = statement.line;
  switch (statement.kind) {
    case Statement::Kind::kText:
      budget_.spend_text(statement.text.size());
      out_ += statement.text;
      return Flow::kNext;
    case Statement::Kind::kPrint: {
      const Value value = evaluate(*statement.expression);
      budget_.spend(value.weight());
      out_ += value.to_text();
      return Flow::kNext;
    }
    case Statement::Kind::kIf:
      return run_if(statement);
    case Statement::Kind::kFor:
      return run_for(statement);
    case Statement::Kind::kSet:
      assign(statement.target, evaluate(*statement.expression));
      return Flow::kNext;
    case Statement::Kind::kSetBlock:
      scope_->variables.insert_or_assign(kBlockText, Value(capture(statement.bodies[0])));
      assign(statement.target, evaluate(*statement.expression));
      return Flow::kNext;
    case Statement::Kind::kMacro:
      define_macro(statement);
      return Flow::kNext;
    case Statement::Kind::kBody:
      return run(statement.bodies[0]);
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run_if(const Statement& statement) {
  for (const auto& [condition, body] : statement.branches) {
    if (!condition || evaluate(*condition).truth()) return run(body);
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run_for(const Statement& statement) {
  std::vector<Value> items = items_of(evaluate(*statement.expression), budget_);
  if (statement.condition) {
    std::erase_if(items, [&](const Value& item) {
      const ScopeGuard scope(*this, scope_);
      assign(statement.target, item);
      return !evaluate(*statement.condition).truth();
    });
  }
  for (size_t i = 0; i < items.size(); ++i) {
    if (run_item(statement, items, i) == Flow::kBreak) break;
  }
  if (items.empty() && statement.bodies.size() > 1) return run(statement.bodies[1]);
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run_item(const Statement& statement, const std::vector<Value>& items, size_t index) {
  const ScopeGuard scope(*this, scope_);
  scope_->variables.emplace("loop", loop_state(items, index));
  assign(statement.target, items[index]);
  return run(statement.bodies[0]);
}

void Evaluator::define_macro(const Statement& statement) {
  scope_->variables.insert_or_assign(
      statement.text, Value::make_function(statement.text, [this, &statement](const Arguments& arguments) {
        return call_macro(statement, arguments);
      }));
}

Value Evaluator::call_macro(const Statement& macro, const Arguments& arguments) {
  const DepthGuard depth(*this);
  if (arguments.positional.size() > macro.parameters.size()) {
    fail("macro ", quote(macro.text), ": expected at most ", macro.parameters.size(), " arguments, found ",
         arguments.positional.size());
  }
  const ScopeGuard scope(*this, &top_);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const MacroParameter& parameter = macro.parameters[i];
    Value value = Value::undefined(parameter.name);
    if (i < arguments.positional.size()) {
      value = arguments.positional[i];
    } else if (parameter.default_value) {
      value = evaluate(*parameter.default_value);
    }
    scope_->variables.insert_or_assign(parameter.name, std::move(value));
  }
  for (const auto& [name, value] : arguments.named) {
    const auto found = scope_->variables.find(name);
    if (found == scope_->variables.end()) fail("macro ", quote(macro.text), ": unexpected argument ", quote(name));
    found->second = value;
  }
  return capture(macro.bodies[0]);
}

std::string Evaluator::capture(const Body& body) {
  std::string outer = std::exchange(out_, {});
  run(body);
  std::swap(outer, out_);
  return outer;
}

void Evaluator::assign(const AssignTarget& target, const Value& value) {
  if (!target.attribute.empty()) {
    const Value* found = nullptr;
    for (Scope* scope = scope_; scope && !found; scope = scope->parent) {
      const auto variable = scope->variables.find(target.names[0]);
      if (variable != scope->variables.end()) found = &variable->second;
    }
    if (!found || !found->dict() || !found->dict()->is_namespace) {
      fail(quote(target.names[0]), " is not a namespace, so its attribute ", quote(target.attribute),
           " cannot be set");
    }
    return found->dict()->set(target.attribute, value);
  }
  if (!target.is_tuple) {
    scope_->variables.insert_or_assign(target.names[0], value);
    return;
  }
  const std::vector<Value> items = items_of(value, budget_);
  if (items.size() != target.names.size()) {
    fail("expected ", target.names.size(), " values to unpack, found ", items.size());
  }
  for (size_t i = 0; i < items.size(); ++i) scope_->variables.insert_or_assign(target.names[i], items[i]);
}

Value Evaluator::evaluate(const Expression& expression) {
  const DepthGuard depth(*this);
  line_ = expression.line;
  const auto part = [&](size_t i) { return evaluate(*expression.parts[i]); };
  using Kind = Expression::Kind;
  switch (expression.kind) {
    case Kind::kLiteral:
      return expression.value;
    case Kind::kName:
      return evaluate_name(expression);
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
      return evaluate_collection(expression);
    case Kind::kAttribute:
      return get_item(part(0), expression.name);
    case Kind::kSubscript: {
      const Value object = part(0);
      return get_item(object, part(1));
    }
    case Kind::kSlice:
      return evaluate_slice(expression);
    case Kind::kCall:
      return evaluate_call(expression);
    case Kind::kFilter: {
      const Value subject = part(0);
      return apply_filter(expression.name, subject, arguments_of(expression), budget_);
    }
    case Kind::kTest: {
      const Value subject = part(0);
      return apply_test(expression.name, subject, arguments_of(expression), budget_);
    }
    case Kind::kNegative:
      return negative(part(0));
    case Kind::kPositive:
      return part(0);
    case Kind::kBinary: {
      const Value left = part(0);
      return apply_operator(expression.name, left, part(1), budget_);
    }
    case Kind::kCompare:
      return evaluate_compare(expression);
    case Kind::kNot:
    case Kind::kAnd:
    case Kind::kOr:
    case Kind::kConditional:
      return evaluate_logic(expression);
  }
  return {};
}

Value Evaluator::evaluate_name(const Expression& expression) const {
  for (const Scope* scope = scope_; scope; scope = scope->parent) {
    const auto found = scope->variables.find(expression.name);
    if (found != scope->variables.end()) return found->second;
  }
  return Value::undefined(expression.name);
}

Value Evaluator::evaluate_collection(const Expression& expression) {
  std::vector<Value> values;
  for (const ExpressionPtr& part : expression.parts) values.push_back(evaluate(*part));
  if (expression.kind != Expression::Kind::kDict) {
    return Value::make_list(std::move(values), expression.kind == Expression::Kind::kTuple);
  }
  std::vector<std::pair<Value, Value>> entries;
  for (size_t i = 0; i + 1 < values.size(); i += 2) entries.emplace_back(values[i], values[i + 1]);
  return Value::make_dict(std::move(entries));
}

Value Evaluator::evaluate_logic(const Expression& expression) {
  using Kind = Expression::Kind;
  if (expression.kind == Kind::kConditional) {
    return optional_part(expression, evaluate(*expression.parts[1]).truth() ? 0 : 2);
  }
  Value first = evaluate(*expression.parts[0]);
  if (expression.kind == Kind::kNot) return !first.truth();
  const bool decided = first.truth() == (expression.kind == Kind::kOr);
  return decided ? first : evaluate(*expression.parts[1]);
}

Value Evaluator::evaluate_compare(const Expression& expression) {
  Value left = evaluate(*expression.parts[0]);
  for (size_t i = 0; i < expression.names.size(); ++i) {
    Value right = evaluate(*expression.parts[i + 1]);
    if (!compare(expression.names[i], left, right, budget_)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::optional_part(const Expression& expression, size_t part) {
  return expression.parts[part] ? evaluate(*expression.parts[part]) : Value();
}

Value Evaluator::evaluate_slice(const Expression& expression) {
  const Value object = evaluate(*expression.parts[0]);
  const Value from = optional_part(expression, 1), to = optional_part(expression, 2);
  return slice(object, from, to, optional_part(expression, 3), budget_);
}

Value Evaluator::evaluate_call(const Expression& expression) {
  const Expression& callee = *expression.parts[0];
  Value function;
  std::string name = callee.name;
  if (callee.kind == Expression::Kind::kAttribute) {
    const Value object = evaluate(*callee.parts[0]);
    const Arguments arguments = arguments_of(expression);
    line_ = expression.line;
    if (auto result = call_method(object, name, arguments, budget_)) return *std::move(result);
    function = get_item(object, name);
    if (function.function()) return function.function()->call(arguments);
    fail(object.kind(), " has no method ", quote(name));
  }
  function = evaluate(callee);
  if (!function.function()) {
    fail(quote(name), " is ", function.is_undefined() ? "undefined" : function.kind(), " and cannot be called");
  }
  const Arguments arguments = arguments_of(expression);
  line_ = expression.line;
  return function.function()->call(arguments);
}

Arguments Evaluator::arguments_of(const Expression& expression) {
  Arguments arguments;
  for (size_t i = 1; i < expression.parts.size(); ++i)
    arguments.positional.push_back(evaluate(*expression.parts[i]));
  for (const auto& [name, value] : expression.named) arguments.named.emplace_back(name, evaluate(*value));
  return arguments;
}

}  // namespace fathom::jinja
