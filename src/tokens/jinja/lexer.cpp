#include "tokens/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "base/format.h"
#include "base/utf8.h"

namespace fathom::jinja {
namespace {

using TokenKind = TemplateToken::Kind;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// Longer ones first, because the first match is taken.
constexpr std::array<std::string_view, 26> kOperators{"==", "!=", "<=", ">=", "**", "//", "+", "-", "*",
                                                      "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                                      "]",  "{",  "}",  ",",  ".",  ":",  "|", ";"};

class Lexer {
 public:
  explicit Lexer(std::string_view source) {
    for (size_t i = 0; i < source.size(); ++i) {  // converts line ends to "\n"
      if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
      source_ += source[i] == '\r' ? '\n' : source[i];
    }
    if (source_.ends_with('\n')) source_.pop_back();  // as in Jinja, a final line end is not part of the template
  }

  std::vector<TemplateToken> run() {
    while (at_ < source_.size()) {
      read_text();
      if (at_ < source_.size()) read_tag();
    }
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }

  void advance(size_t bytes) {
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + at_ + bytes, '\n'));
    at_ += bytes;
  }

  void push(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  /// Reads text up to the next "{{", "{%" or "{#", and trims its end as that tag requires.
  void read_text() {
    size_t end = at_;
    while (true) {
      end = std::min(source_.find('{', end), source_.size());
      if (end + 1 >= source_.size()) {
        end = source_.size();
        break;
      }
      if (std::string_view("{%#").find(source_[end + 1]) != std::string_view::npos) break;
      ++end;
    }
    std::string_view text = rest().substr(0, end - at_);
    if (end < source_.size()) text = cut_end(text, end);
    if (!text.empty()) push(TokenKind::kText, std::string(text));
    advance(end - at_);
  }

  /// Trims the end of the text before a tag: "-" removes all white space; "{%" and "{#" remove the indentation
  /// before them, unless marked "+".
  std::string_view cut_end(std::string_view text, size_t tag) const {
    const char mark = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    if (mark == '-') {
      while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    } else if (source_[tag + 1] != '{' && mark != '+') {
      std::string_view line = text;
      while (!line.empty() && (line.back() == ' ' || line.back() == '\t')) line.remove_suffix(1);
      const bool starts_line = line.empty() ? text.size() == tag || after_line_end_ : line.back() == '\n';
      if (starts_line) return line;
    }
    return text;
  }

  void read_tag() {
    const char type = source_[at_ + 1];
    if (type == '#') return read_comment();
    const int begin_line = line_;
    push(type == '{' ? TokenKind::kPrintBegin : TokenKind::kTagBegin, type == '{' ? "{{" : "{%");
    advance(2);
    if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) advance(1);
    const size_t first = tokens_.size();
    while (!read_end(type, begin_line)) read_token();
    if (type == '%' && tokens_.size() == first + 2 && tokens_[first].is_name("raw")) read_raw(first - 1);
  }

  void read_comment() {
    const size_t end = rest().find("#}");
    if (end == std::string_view::npos) fail_at(line_, "a comment '{#' has no end");
    const char mark = end > 2 ? rest()[end - 1] : ' ';
    advance(end + 2);
    cut_start(mark, true);
  }

  /// Skips white space after a tag: "-" skips all; a tag other than "{{" skips one line end, unless marked "+".
  void cut_start(char mark, bool is_block) {
    size_t bytes = 0;
    if (mark == '-') {
      while (bytes < rest().size() && is_space(rest()[bytes])) ++bytes;
    } else if (is_block && mark != '+' && rest().starts_with('\n')) {
      bytes = 1;
    }
    after_line_end_ = bytes > 0 && source_[at_ + bytes - 1] == '\n';
    advance(bytes);
  }

  /// Skips white space. If the tag ends there, consumes its end and returns true.
  bool read_end(char type, int begin_line) {
    size_t spaces = 0;
    while (spaces < rest().size() && is_space(rest()[spaces])) ++spaces;
    advance(spaces);
    if (at_ >= source_.size()) fail_at(begin_line, type == '{' ? "'{{' has no '}}'" : "'{%' has no '%}'");
    const std::string_view end = type == '{' ? "}}" : "%}";
    const char mark = rest()[0];
    const bool marked = (mark == '-' || mark == '+') && rest().substr(1).starts_with(end);
    if (!marked && (!rest().starts_with(end) || braces_ > 0)) return false;
    push(type == '{' ? TokenKind::kPrintEnd : TokenKind::kTagEnd, std::string(end));
    advance(end.size() + marked);
    braces_ = 0;
    cut_start(marked ? mark : ' ', type == '%');
    return true;
  }

  void read_token() {
    const char c = rest()[0];
    if (is_name_start(c))
      return read_while(TokenKind::kName, [](char x) { return is_name_start(x) || is_digit(x); });
    if (is_digit(c)) return read_number();
    if (c == '"' || c == '\'') return read_string(c);
    for (const std::string_view symbol : kOperators) {
      if (!rest().starts_with(symbol)) continue;
      if (symbol == "{") ++braces_;
      if (symbol == "}" && braces_ > 0) --braces_;
      push(TokenKind::kOperator, std::string(symbol));
      return advance(symbol.size());
    }
    fail_at(line_, "unexpected character " + quote(rest().substr(0, std::max<size_t>(utf8_length(rest()), 1))));
  }

  template <class Accepts>
  void read_while(TokenKind kind, const Accepts& accepts) {
    size_t bytes = 0;
    while (bytes < rest().size() && accepts(rest()[bytes])) ++bytes;
    push(kind, std::string(rest().substr(0, bytes)));
    advance(bytes);
  }

  void read_number() {
    const std::string_view text = rest();
    const auto digit_at = [&](size_t i) { return i < text.size() && is_digit(text[i]); };
    const auto skip_digits = [&](size_t i) {
      while (digit_at(i) || (i < text.size() && text[i] == '_' && digit_at(i + 1))) ++i;
      return i;
    };
    size_t end = skip_digits(0);
    bool is_float = false;
    if (end < text.size() && text[end] == '.' && digit_at(end + 1)) {
      is_float = true;
      end = skip_digits(end + 1);
    }
    if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
      const size_t sign = end + 1 < text.size() && (text[end + 1] == '-' || text[end + 1] == '+');
      if (digit_at(end + 1 + sign)) {
        is_float = true;
        end = skip_digits(end + 1 + sign);
      }
    }
    std::string digits(text.substr(0, end));
    std::erase(digits, '_');
    push(is_float ? TokenKind::kFloat : TokenKind::kInteger, digits);
    advance(end);
  }

  void read_string(char quote_mark) {
    const int begin_line = line_;
    const std::string_view text = rest();
    std::string value;
    size_t i = 1;
    for (; i < text.size() && text[i] != quote_mark; ++i) {
      if (text[i] == '\\' && i + 1 < text.size()) {
        i = unescape(text, i + 1, value);
      } else {
        value += text[i];
      }
    }
    if (i >= text.size()) fail_at(begin_line, concat("a string has no closing ", quote_mark));
    push(TokenKind::kString, std::move(value));
    advance(i + 1);
  }

  /// Appends the character of an escape sequence. i: index of the letter after the backslash. Returns the index of
  /// the last character of the sequence.
  size_t unescape(std::string_view text, size_t i, std::string& value) const {
    constexpr std::string_view kLetters = "ntrabfv0\\'\"", kMeanings("\n\t\r\a\b\f\v\0\\'\"", 11);
    const size_t simple = kLetters.find(text[i]);
    if (simple != std::string_view::npos) {
      value += kMeanings[simple];
      return i;
    }
    const size_t digits = text[i] == 'x' ? 2 : text[i] == 'u' ? 4 : text[i] == 'U' ? 8 : 0;
    if (digits == 0) {  // not an escape: keeps both characters
      if (text[i] != '\n') value.append({'\\', text[i]});
      return i;
    }
    uint32_t code_point = 0;
    for (size_t d = 1; d <= digits; ++d) {
      if (i + d >= text.size() || !std::isxdigit(static_cast<unsigned char>(text[i + d]))) {
        fail_at(line_, concat("a string's '\\", text[i], "' needs ", digits, " hexadecimal digits"));
      }
      const char digit = text[i + d];
      code_point = code_point << 4 | (is_digit(digit) ? digit - '0' : (digit | 0x20) - 'a' + 10);
    }
    if (code_point > 0x10ffff) fail_at(line_, "a string has an escape beyond U+10FFFF");
    append_utf8(code_point, value);
    return i + digits;
  }

  /// Reads everything up to {% endraw %} as text. first: index of the first token of the {% raw %} tag, whose
  /// tokens are removed.
  void read_raw(size_t first) {
    const int begin_line = tokens_[first].line;
    tokens_.resize(first);
    for (size_t tag = at_; (tag = source_.find("{%", tag)) != std::string::npos; tag += 2) {
      size_t name = tag + 2;
      if (name < source_.size() && (source_[name] == '-' || source_[name] == '+')) ++name;
      while (name < source_.size() && is_space(source_[name])) ++name;
      if (source_.compare(name, 6, "endraw") != 0) continue;
      const std::string_view text = cut_end(rest().substr(0, tag - at_), tag);
      if (!text.empty()) push(TokenKind::kText, std::string(text));
      advance(name + 6 - at_);
      const size_t tokens = tokens_.size();
      while (!read_end('%', begin_line)) read_token();
      tokens_.resize(tokens);
      return;
    }
    fail_at(begin_line, "'{% raw %}' has no '{% endraw %}'");
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  int braces_ = 0;               // open "{" inside the tag, so that "}}" does not end it
  bool after_line_end_ = false;  // the previous tag skipped a line end
  std::vector<TemplateToken> tokens_;
};

}  // namespace

std::string TemplateToken::description() const {
  if (kind == TokenKind::kEnd) return "the end of the template";
  if (kind == TokenKind::kText) return "text";
  return kind == TokenKind::kString ? "the string " + quote(text) : quote(text);
}

std::vector<TemplateToken> tokenize(std::string_view source) { return Lexer(source).run(); }

void fail_at(int line, const std::string& what) { fail("chat template, line ", line, ": ", what); }

}  // namespace fathom::jinja
