#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom::jinja {

/// A token of a template. Text between tags is one token, already trimmed as the tags around it require.
struct TemplateToken {
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
  std::string description() const;  // for error messages
};

/// Splits a template into tokens; the last is of kind kEnd. Uses trim_blocks and lstrip_blocks, as chat templates
/// expect. Throws Error that names the line.
std::vector<TemplateToken> tokenize(std::string_view source);

/// Throws Error: "chat template, line N: …".
[[noreturn]] void fail_at(int line, const std::string& what);

}  // namespace fathom::jinja
