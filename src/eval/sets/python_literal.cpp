#include "eval/sets/python_literal.h"

#include <charconv>

#include "base/error.h"
#include "base/format.h"
#include "base/utf8.h"

namespace fathom::eval {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

class PythonLiteralReader {
 public:
  PythonLiteralReader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Json read_all() {
    Json value = read(0);
    skip_blank();
    if (at_ < text_.size()) fail_expecting("the end");
    return value;
  }

 private:
  [[noreturn]] void fail_expecting(const std::string& what) const {
    const std::string found = at_ < text_.size() ? quote(text_.substr(at_, 20)) : "the end";
    fail(where_, ": invalid Python literal: byte ", at_, ": expected ", what, ", found ", found);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_blank() {
    while (at_ < text_.size() && (peek() == ' ' || peek() == '\n' || peek() == '\t' || peek() == '\r')) ++at_;
  }
  bool take(char c) {
    skip_blank();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  Json read(int depth) {
    constexpr int kMaxLevels = 64;
    if (depth > kMaxLevels) fail_expecting(concat("at most ", kMaxLevels, " levels"));
    skip_blank();
    const char c = peek();
    if (c == '\'' || c == '"') return read_strings();
    if (take('[')) return read_list(']', depth);
    if (take('(')) return read_list(')', depth);
    if (take('{')) return read_dict(depth);
    if (is_digit(c) || c == '-' || c == '+' || c == '.') return read_number();
    return read_word();
  }

  Json read_list(char end, int depth) {
    Json list = Json::array();
    while (!take(end)) {
      list.push_back(read(depth + 1));
      if (take(',')) continue;
      if (!take(end)) fail_expecting(concat("',' or '", end, "'"));
      break;
    }
    return list;
  }

  Json read_dict(int depth) {
    Json dict = Json::object();
    while (!take('}')) {
      const Json key = read(depth + 1);
      if (key.is_array() || key.is_object()) fail_expecting("a key that is not a list or dict");
      if (!take(':')) fail_expecting("':'");
      dict[key.is_string() ? key.get<std::string>() : key.dump()] = read(depth + 1);
      if (take(',')) continue;
      if (!take('}')) fail_expecting("',' or '}'");
      break;
    }
    return dict;
  }

  /// Reads one or several adjacent strings, which are concatenated.
  Json read_strings() {
    std::string all;
    do {
      read_string(all);
      skip_blank();
    } while (peek() == '\'' || peek() == '"');
    return all;
  }

  void read_string(std::string& out) {
    const char quote_mark = text_[at_++];
    while (true) {
      if (at_ >= text_.size()) fail_expecting(concat("a closing ", quote_mark));
      const char c = text_[at_++];
      if (c == quote_mark) return;
      if (c == '\\') {
        read_escape(out);
      } else {
        out += c;
      }
    }
  }

  void read_escape(std::string& out) {
    constexpr std::string_view kNames = "abfnrtv\\'\"/";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"/";
    if (at_ >= text_.size()) fail_expecting("an escaped character");
    const char c = text_[at_++];
    if (const size_t named = kNames.find(c); named != std::string_view::npos) {
      out += kMeanings[named];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      append_code(c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, out);
    } else if (c >= '0' && c <= '7') {
      --at_;
      size_t digits = 0;
      while (digits < 3 && at_ + digits < text_.size() && text_[at_ + digits] >= '0' &&
             text_[at_ + digits] <= '7') {
        ++digits;
      }
      append_code(digits, 8, out);
    } else if (c != '\n') {  // an escaped line end is removed; other characters keep their backslash
      out += '\\';
      out += c;
    }
  }

  void append_code(size_t digits, int base, std::string& out) {
    uint32_t code = 0;
    const std::string_view number = text_.substr(at_, digits);
    const auto read = std::from_chars(number.data(), number.data() + number.size(), code, base);
    const bool complete = number.size() == digits && read.ptr == number.data() + number.size();
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    if (!complete || read.ec != std::errc() || code > 0x10ffff || surrogate)
      fail_expecting("the code of a character");
    append_utf8(code, out);
    at_ += digits;
  }

  Json read_number() {
    size_t end = at_ + 1;
    while (end < text_.size() &&
           (is_digit(text_[end]) || std::string_view(".eE+-_").find(text_[end]) != std::string_view::npos)) {
      ++end;
    }
    std::string number(text_.substr(at_, end - at_));
    std::erase(number, '_');
    const char* begin = number.data() + (number.front() == '+' ? 1 : 0);
    const char* const stop = number.data() + number.size();
    int64_t integer = 0;
    if (const auto read = std::from_chars(begin, stop, integer); read.ec == std::errc() && read.ptr == stop) {
      at_ = end;
      return integer;
    }
    double real = 0;
    const auto read = std::from_chars(begin, stop, real);
    if (read.ec != std::errc() || read.ptr != stop) fail_expecting("a number");
    at_ = end;
    return real;
  }

  Json read_word() {
    size_t end = at_;
    while (end < text_.size() && is_letter(text_[end])) ++end;
    const std::string_view word = text_.substr(at_, end - at_);
    const bool known =
        word == "None" || word == "null" || word == "True" || word == "true" || word == "False" || word == "false";
    if (!known) fail_expecting("a string, number, list or dict");
    at_ = end;
    if (word == "None" || word == "null") return nullptr;
    return word == "True" || word == "true";
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

}  // namespace

Json parse_python_literal(std::string_view text, const std::string& where) {
  return PythonLiteralReader(text, where).read_all();
}

}  // namespace fathom::eval
