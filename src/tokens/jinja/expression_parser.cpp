#include "tokens/jinja/expression_parser.h"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "base/error.h"

namespace fathom::jinja {
namespace {

/// Left-associative binary operators, from the lowest precedence to the highest.
constexpr std::string_view kLevels[][4] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}};

}  // namespace

bool ExpressionParser::take_operator(std::string_view symbol) {
  if (!current().is_operator(symbol)) return false;
  take();
  return true;
}

bool ExpressionParser::take_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  take();
  return true;
}

void ExpressionParser::expect_operator(std::string_view symbol) {
  if (!take_operator(symbol)) fail_here(concat("'", symbol, "'"));
}

std::string ExpressionParser::expect_name() {
  if (current().kind != TemplateToken::Kind::kName) fail_here("a name");
  return take().text;
}

void ExpressionParser::fail_here(const std::string& expected) const {
  fail_at(current().line, concat("expected ", expected, ", found ", current().description()));
}

ExpressionPtr ExpressionParser::make(Kind kind, int line, std::string name) const {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  expression->name = std::move(name);
  return expression;
}

void ExpressionParser::add_part(Expression& parent, ExpressionPtr part) const {
  if (part) parent.depth = std::max(parent.depth, part->depth + 1);
  if (parent.depth > kMaxDepth) fail_at(parent.line, "expected at most 300 operators in a chain");
  parent.parts.push_back(std::move(part));
}

ExpressionPtr ExpressionParser::binary(Kind kind, std::string name, ExpressionPtr left, ExpressionPtr right) const {
  ExpressionPtr expression = make(kind, left->line, std::move(name));
  add_part(*expression, std::move(left));
  add_part(*expression, std::move(right));
  return expression;
}

ExpressionPtr ExpressionParser::parse_tuple(bool with_conditional) {
  ExpressionPtr first = with_conditional ? parse_expression() : parse_or();
  if (!current().is_operator(",")) return first;
  ExpressionPtr tuple = make(Kind::kTuple, first->line);
  add_part(*tuple, std::move(first));
  while (take_operator(",")) {
    const bool ends = current().kind == TemplateToken::Kind::kTagEnd ||
                      current().kind == TemplateToken::Kind::kPrintEnd || current().is_operator(")");
    if (ends) break;
    add_part(*tuple, with_conditional ? parse_expression() : parse_or());
  }
  return tuple;
}

ExpressionPtr ExpressionParser::parse_expression() {
  const Level level(*this);
  ExpressionPtr expression = parse_or();
  while (take_name("if")) {
    expression = binary(Kind::kConditional, {}, std::move(expression), parse_or());
    add_part(*expression, take_name("else") ? parse_expression() : nullptr);
  }
  return expression;
}

ExpressionPtr ExpressionParser::parse_or() {
  ExpressionPtr left = parse_and();
  while (take_name("or")) left = binary(Kind::kOr, {}, std::move(left), parse_and());
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  ExpressionPtr left = parse_not();
  while (take_name("and")) left = binary(Kind::kAnd, {}, std::move(left), parse_not());
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  const Level level(*this);
  const int line = current().line;
  if (!take_name("not")) return parse_compare();
  ExpressionPtr expression = make(Kind::kNot, line);
  add_part(*expression, parse_not());
  return expression;
}

/// Consumes a comparison operator and returns it; empty if there is none.
std::string ExpressionParser::take_comparison() {
  for (const std::string_view symbol : {"==", "!=", "<=", ">=", "<", ">"}) {
    if (take_operator(symbol)) return std::string(symbol);
  }
  if (take_name("in")) return "in";
  if (!current().is_name("not") || !ahead().is_name("in")) return {};
  take();
  take();
  return "not in";
}

ExpressionPtr ExpressionParser::parse_compare() {
  ExpressionPtr first = parse_binary(0);
  std::string comparison = take_comparison();
  if (comparison.empty()) return first;
  ExpressionPtr compare = make(Kind::kCompare, first->line);
  add_part(*compare, std::move(first));
  for (; !comparison.empty(); comparison = take_comparison()) {
    compare->names.push_back(comparison);
    add_part(*compare, parse_binary(0));
  }
  return compare;
}

ExpressionPtr ExpressionParser::parse_binary(size_t level) {
  if (level == std::size(kLevels)) return parse_unary(true);
  ExpressionPtr left = parse_binary(level + 1);
  while (current().kind == TemplateToken::Kind::kOperator &&
         std::ranges::find(kLevels[level], current().text) != std::end(kLevels[level])) {
    std::string symbol = take().text;
    left = binary(Kind::kBinary, std::move(symbol), std::move(left), parse_binary(level + 1));
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filters) {
  const Level level(*this);
  const int line = current().line;
  ExpressionPtr operand;
  if (current().is_operator("-") || current().is_operator("+")) {
    operand = make(take().text == "-" ? Kind::kNegative : Kind::kPositive, line);
    add_part(*operand, parse_unary(false));
  } else {
    operand = parse_primary();
  }
  operand = parse_postfix(std::move(operand));
  return with_filters ? parse_filters(std::move(operand)) : std::move(operand);
}

ExpressionPtr ExpressionParser::parse_primary() {
  const TemplateToken token = current();
  const auto literal = [&](Value value) {
    ExpressionPtr expression = make(Kind::kLiteral, token.line);
    expression->value = std::move(value);
    return expression;
  };
  switch (token.kind) {
    case TemplateToken::Kind::kName:
      take();
      if (token.text == "true" || token.text == "True") return literal(true);
      if (token.text == "false" || token.text == "False") return literal(false);
      if (token.text == "none" || token.text == "None") return literal(Value::none());
      return make(Kind::kName, token.line, token.text);
    case TemplateToken::Kind::kInteger:
    case TemplateToken::Kind::kFloat:
      take();
      return parse_number(token);
    case TemplateToken::Kind::kString: {
      std::string text;
      while (current().kind == TemplateToken::Kind::kString) text += take().text;
      return literal(std::move(text));
    }
    default:
      break;
  }
  if (current().is_operator("[")) return parse_list();
  if (current().is_operator("{")) return parse_dict();
  if (!take_operator("(")) fail_here("an expression");
  if (take_operator(")")) return make(Kind::kTuple, token.line);
  ExpressionPtr inner = parse_tuple();
  expect_operator(")");
  return inner;
}

ExpressionPtr ExpressionParser::parse_number(const TemplateToken& token) const {
  ExpressionPtr expression = make(Kind::kLiteral, token.line);
  const char* end = token.text.data() + token.text.size();
  std::from_chars_result result;
  if (token.kind == TemplateToken::Kind::kFloat) {
    double number = 0;
    result = std::from_chars(token.text.data(), end, number);
    expression->value = number;
  } else {
    int64_t number = 0;
    result = std::from_chars(token.text.data(), end, number);
    expression->value = number;
  }
  if (result.ec != std::errc() || result.ptr != end)
    fail_at(token.line, "the number " + token.text + " is too large");
  return expression;
}

ExpressionPtr ExpressionParser::parse_list() {
  ExpressionPtr list = make(Kind::kList, take().line);
  while (!take_operator("]")) {
    if (!list->parts.empty()) expect_operator(",");
    if (take_operator("]")) break;
    add_part(*list, parse_expression());
  }
  return list;
}

ExpressionPtr ExpressionParser::parse_dict() {
  ExpressionPtr dict = make(Kind::kDict, take().line);
  while (!take_operator("}")) {
    if (!dict->parts.empty()) expect_operator(",");
    if (take_operator("}")) break;
    add_part(*dict, parse_expression());
    expect_operator(":");
    add_part(*dict, parse_expression());
  }
  return dict;
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr operand) {
  while (true) {
    if (current().is_operator("(")) {
      operand = parse_call(std::move(operand));
    } else if (current().is_operator("[")) {
      operand = parse_subscript(std::move(operand));
    } else if (take_operator(".")) {
      const TemplateToken token = current();
      if (token.kind == TemplateToken::Kind::kInteger) {
        take();
        operand = binary(Kind::kSubscript, {}, std::move(operand), parse_number(token));
      } else {
        ExpressionPtr attribute = make(Kind::kAttribute, token.line, expect_name());
        add_part(*attribute, std::move(operand));
        operand = std::move(attribute);
      }
    } else {
      return operand;
    }
  }
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr operand) {
  const int line = take().line;
  ExpressionPtr bounds[3];
  size_t colons = 0;
  while (!take_operator("]")) {
    if (colons < 2 && take_operator(":")) {
      ++colons;
    } else if (!bounds[colons]) {
      bounds[colons] = parse_expression();
    } else {
      fail_here("':' or ']'");
    }
  }
  if (colons == 0 && !bounds[0]) fail_at(line, "expected an index between '[' and ']'");
  ExpressionPtr expression = make(colons == 0 ? Kind::kSubscript : Kind::kSlice, line);
  add_part(*expression, std::move(operand));
  for (size_t i = 0; i < (colons == 0 ? 1 : 3); ++i) add_part(*expression, std::move(bounds[i]));
  return expression;
}

ExpressionPtr ExpressionParser::parse_call(ExpressionPtr callee) {
  ExpressionPtr call = make(Kind::kCall, callee->line);
  add_part(*call, std::move(callee));
  parse_arguments(*call);
  return call;
}

void ExpressionParser::parse_arguments(Expression& call) {
  expect_operator("(");
  for (bool first = true; !take_operator(")"); first = false) {
    if (!first) expect_operator(",");
    if (take_operator(")")) return;
    if (current().is_operator("*") || current().is_operator("**"))
      fail_here("an argument; unpacked arguments are not supported");
    if (current().kind == TemplateToken::Kind::kName && ahead().is_operator("=")) {
      std::string name = take().text;
      take();
      ExpressionPtr value = parse_expression();
      call.depth = std::max(call.depth, value->depth + 1);
      call.named.emplace_back(std::move(name), std::move(value));
    } else {
      add_part(call, parse_expression());
    }
  }
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr operand) {
  while (true) {
    if (take_operator("|")) {
      operand = parse_filter(std::move(operand));
    } else if (take_name("is")) {
      operand = parse_test(std::move(operand));
    } else if (current().is_operator("(")) {
      operand = parse_call(std::move(operand));
    } else {
      return operand;
    }
  }
}

ExpressionPtr ExpressionParser::parse_filter(ExpressionPtr operand) {
  ExpressionPtr filter = make(Kind::kFilter, current().line, expect_name());
  add_part(*filter, std::move(operand));
  if (current().is_operator("(")) parse_arguments(*filter);
  return filter;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr operand) {
  const int line = current().line;
  const bool negated = take_name("not");
  ExpressionPtr test = make(Kind::kTest, line, expect_name());
  add_part(*test, std::move(operand));
  const TemplateToken& next = current();
  const bool is_word = next.kind == TemplateToken::Kind::kName && next.text != "else" && next.text != "or" &&
                       next.text != "and" && next.text != "is" && next.text != "if" && next.text != "in" &&
                       next.text != "not";
  const bool is_literal = next.kind == TemplateToken::Kind::kString || next.kind == TemplateToken::Kind::kInteger ||
                          next.kind == TemplateToken::Kind::kFloat || next.is_operator("[") ||
                          next.is_operator("{");
  if (next.is_operator("(")) {
    parse_arguments(*test);
  } else if (is_word || is_literal) {
    add_part(*test, parse_postfix(parse_primary()));
  }
  if (!negated) return test;
  ExpressionPtr expression = make(Kind::kNot, line);
  add_part(*expression, std::move(test));
  return expression;
}

}  // namespace fathom::jinja
