#pragma once

#include <string>
#include <vector>

#include "tokens/jinja/ast.h"
#include "tokens/jinja/lexer.h"

namespace fathom::jinja {

/// Parses expressions from a list of tokens. Base class of the parser of statements.
class ExpressionParser {
 protected:
  explicit ExpressionParser(std::vector<TemplateToken> tokens) : tokens_(std::move(tokens)) {}

  const TemplateToken& current() const { return tokens_[at_]; }
  const TemplateToken& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  TemplateToken take() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }
  /// Consume the current token if it matches, and return whether it did.
  bool take_operator(std::string_view symbol);
  bool take_name(std::string_view name);
  /// Consume the current token. Throw Error if it does not match.
  void expect_operator(std::string_view symbol);
  std::string expect_name();
  [[noreturn]] void fail_here(const std::string& expected) const;

  /// Parses an expression, or several separated by commas as a tuple. with_conditional: "a if b" is allowed.
  ExpressionPtr parse_tuple(bool with_conditional = true);
  ExpressionPtr parse_expression();
  /// Parses any number of "| filter" and "is test" after an operand.
  ExpressionPtr parse_filters(ExpressionPtr operand);

  static constexpr int kMaxDepth = 300;  // of nested expressions and statements
  /// Counts one level of nesting for its lifetime. Throws Error beyond kMaxDepth.
  class Level {
   public:
    explicit Level(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.level_ > kMaxDepth) parser_.fail_here("at most 300 levels of nesting");
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
  ExpressionPtr parse_number(const TemplateToken& token) const;
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr operand);
  ExpressionPtr parse_subscript(ExpressionPtr operand);
  ExpressionPtr parse_call(ExpressionPtr callee);
  ExpressionPtr parse_filter(ExpressionPtr operand);
  ExpressionPtr parse_test(ExpressionPtr operand);
  void parse_arguments(Expression& call);

  std::vector<TemplateToken> tokens_;
  size_t at_ = 0;
  int level_ = 0;
};

}  // namespace fathom::jinja
