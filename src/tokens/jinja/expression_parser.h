#pragma once

#include <string>
#include <vector>

#include "tokens/jinja/ast.h"
#include "tokens/jinja/lexer.h"

namespace fathom::jinja {

/// Reads expressions from a list of tokens; the parser of statements builds upon it.
class ExpressionParser {
 protected:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }
  bool take_operator(std::string_view symbol);
  bool take_name(std::string_view name);
  void expect_operator(std::string_view symbol);
  std::string expect_name();
  [[noreturn]] void fail_here(const std::string& expected) const;

  /// Several expressions with commas between make a tuple. with_conditional: "a if b" may stand here.
  ExpressionPtr parse_tuple(bool with_conditional = true);
  ExpressionPtr parse_expression();
  /// "| filter" and "is test", over and over.
  ExpressionPtr parse_filters(ExpressionPtr operand);

  static constexpr int kMaxDepth = 300;  // of nested expressions and statements
  /// Counts one level of nesting for as long as it lives.
  class Level {
   public:
    explicit Level(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.level_ > kMaxDepth) parser_.fail_here("less than 300 levels of nesting");
    }
    ~Level() { --parser_.level_; }
    Level(const Level&) = delete;

   private:
    ExpressionParser& parser_;
  };

 private:
  using Kind = Expression::Kind;
  ExpressionPtr make(Kind kind, int line, std::string name = {}) const;
  void add_part(Expression& parent, ExpressionPtr part) const;
  ExpressionPtr binary(Kind kind, std::string name, ExpressionPtr left, ExpressionPtr right) const;

  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  std::string take_comparison();
  ExpressionPtr parse_binary(size_t level);
  ExpressionPtr parse_unary(bool with_filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_number(const Token& token) const;
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr operand);
  ExpressionPtr parse_subscript(ExpressionPtr operand);
  ExpressionPtr parse_call(ExpressionPtr callee);
  ExpressionPtr parse_filter(ExpressionPtr operand);
  ExpressionPtr parse_test(ExpressionPtr operand);
  void parse_arguments(Expression& call);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int level_ = 0;
};

}  // namespace fathom::jinja
