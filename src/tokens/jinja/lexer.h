#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom::jinja {

/// A token of a template. Text outside tags is one token, white space already cut as the tags around it ask.
struct Token {
  enum class Kind {
    kText,
    kTagBegin,
    kTagEnd,
    kPrintBegin,
    kPrintEnd,
    kName,
    kInteger,
    kFloat,
    kString,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text;  // strings: unescaped
  int line = 0;

  bool is_operator(std::string_view symbol) const { return kind == Kind::kOperator && text == symbol; }
  bool is_name(std::string_view name) const { return kind == Kind::kName && text == name; }
  std::string description() const;  // for messages
};

/// Cuts a template into tokens, the last of kind kEnd; trim_blocks and lstrip_blocks are on, as chat templates
/// expect. Throws Error that names the line.
std::vector<Token> tokenize(std::string_view source);

/// Throws Error: "chat template, line N: …".
[[noreturn]] void fail_at(int line, const std::string& what);

}  // namespace fathom::jinja
