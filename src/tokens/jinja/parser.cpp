#include "tokens/jinja/parser.h"

#include <algorithm>

#include "base/error.h"
#include "tokens/jinja/expression_parser.h"

namespace fathom::jinja {
namespace {

/// Parses statements by their keyword.
class StatementParser : private ExpressionParser {
 public:
  explicit StatementParser(std::string_view source) : ExpressionParser(tokenize(source)) {}

  Body parse_all() {
    Body body = parse_body({});
    if (current().kind != TemplateToken::Kind::kEnd) fail_here("the end of the template");
    return body;
  }

 private:
  /// Parses statements up to a tag that begins with one of `ends`; that keyword is then the current token.
  Body parse_body(std::initializer_list<std::string_view> ends) {
    const Level level(*this);
    Body body;
    while (current().kind != TemplateToken::Kind::kEnd) {
      const TemplateToken token = take();
      switch (token.kind) {
        case TemplateToken::Kind::kText:
          body.push_back(make(Statement::Kind::kText, token.line, token.text));
          break;
        case TemplateToken::Kind::kPrintBegin:
          body.push_back(make(Statement::Kind::kPrint, token.line));
          body.back().expression = parse_tuple();
          if (current().kind != TemplateToken::Kind::kPrintEnd) fail_here("'}}'");
          take();
          break;
        default:
          if (std::ranges::any_of(ends, [&](std::string_view end) { return current().is_name(end); })) return body;
          body.push_back(parse_statement());
      }
    }
    if (ends.size() > 0) fail_here(concat("'{% ", *(ends.end() - 1), " %}'"));
    return body;
  }

  static Statement make(Statement::Kind kind, int line, std::string text = {}) {
    Statement statement;
    statement.kind = kind;
    statement.line = line;
    statement.text = std::move(text);
    return statement;
  }

  void end_tag() {
    if (current().kind != TemplateToken::Kind::kTagEnd) fail_here("'%}'");
    take();
  }

  Statement parse_statement() {
    const int line = current().line;
    if (take_name("if")) return parse_if(line);
    if (take_name("for")) return parse_for(line);
    if (take_name("set")) return parse_set(line);
    if (take_name("macro")) return parse_macro(line);
    if (take_name("generation")) {
      end_tag();
      Statement statement = make(Statement::Kind::kBody, line);
      statement.bodies.push_back(parse_block("endgeneration"));
      return statement;
    }
    if (current().is_name("break") || current().is_name("continue")) {
      const bool is_break = take().text == "break";
      if (loops_ == 0) fail_at(line, "'break' and 'continue' are allowed only inside a loop");
      end_tag();
      return make(is_break ? Statement::Kind::kBreak : Statement::Kind::kContinue, line);
    }
    fail_here("if, for, set, macro, generation, break or continue");
  }

  /// Parses statements up to the tag `end`, and consumes that tag.
  Body parse_block(std::string_view end) {
    Body body = parse_body({end});
    take();
    end_tag();
    return body;
  }

  Statement parse_if(int line) {
    Statement statement = make(Statement::Kind::kIf, line);
    ExpressionPtr condition = parse_expression();
    while (true) {
      end_tag();
      const bool is_else = !condition;
      Body body = is_else ? parse_body({"endif"}) : parse_body({"elif", "else", "endif"});
      statement.branches.emplace_back(std::move(condition), std::move(body));
      const std::string end = take().text;
      if (end == "endif") break;
      condition = end == "elif" ? parse_expression() : nullptr;
    }
    end_tag();
    return statement;
  }

  Statement parse_for(int line) {
    Statement statement = make(Statement::Kind::kFor, line);
    statement.target = parse_target();
    if (!statement.target.attribute.empty()) fail_at(line, "a loop cannot bind an attribute");
    if (!take_name("in")) fail_here("'in'");
    statement.expression = parse_tuple(false);
    if (take_name("if")) statement.condition = parse_expression();
    end_tag();
    ++loops_;
    statement.bodies.push_back(parse_body({"else", "endfor"}));
    --loops_;
    if (take().text == "else") {
      end_tag();
      statement.bodies.push_back(parse_block("endfor"));
    } else {
      end_tag();
    }
    return statement;
  }

  Statement parse_set(int line) {
    Statement statement = make(Statement::Kind::kSet, line);
    statement.target = parse_target();
    if (take_operator("=")) {
      statement.expression = parse_tuple();
      end_tag();
      return statement;
    }
    statement.kind = Statement::Kind::kSetBlock;
    statement.expression = std::make_unique<Expression>();
    statement.expression->kind = Expression::Kind::kName;
    statement.expression->line = line;
    statement.expression->name = kBlockText;
    statement.expression = parse_filters(std::move(statement.expression));
    end_tag();
    statement.bodies.push_back(parse_block("endset"));
    return statement;
  }

  AssignTarget parse_target() {
    AssignTarget target;
    const bool in_parentheses = take_operator("(");
    target.names.push_back(expect_name());
    if (take_operator(".")) {
      target.attribute = expect_name();
      return target;
    }
    while (take_operator(",")) {
      target.is_tuple = true;
      if (current().kind != TemplateToken::Kind::kName || current().is_name("in")) break;
      target.names.push_back(expect_name());
    }
    if (in_parentheses) expect_operator(")");
    return target;
  }

  Statement parse_macro(int line) {
    Statement statement = make(Statement::Kind::kMacro, line, expect_name());
    expect_operator("(");
    while (!take_operator(")")) {
      if (!statement.parameters.empty()) expect_operator(",");
      MacroParameter parameter{expect_name(), nullptr};
      if (take_operator("=")) parameter.default_value = parse_expression();
      statement.parameters.push_back(std::move(parameter));
    }
    end_tag();
    const int loops = std::exchange(loops_, 0);
    statement.bodies.push_back(parse_block("endmacro"));
    loops_ = loops;
    return statement;
  }

  int loops_ = 0;  // enclosing loops of the current statement
};

}  // namespace

Body parse(std::string_view source) { return StatementParser(source).parse_all(); }

}  // namespace fathom::jinja
