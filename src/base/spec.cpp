#include "base/spec.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/format.h"

namespace fathom {

namespace {

// Limits the cost of parsing; useful specs are far shorter.
constexpr size_t kMaxSpecBytes = 64 * 1024;

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(' ');
  if (first == std::string_view::npos) return text.substr(0, 0);
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

/// Returns whether one pair of parentheses encloses all of `value`, whose parentheses are balanced.
bool is_parenthesised(std::string_view value) {
  if (value.size() < 2 || value.front() != '(' || value.back() != ')') return false;
  int depth = 0;
  for (size_t i = 0; i + 1 < value.size(); ++i) {
    depth += (value[i] == '(') - (value[i] == ')');
    if (depth == 0) return false;
  }
  return true;
}

/// Parses one spec.
class SpecParser {
 public:
  explicit SpecParser(std::string_view text) : text_(text) {}

  Spec parse() {
    check_characters();
    Spec spec;
    const size_t colon = std::min(text_.find(':'), text_.size());
    spec.name = plain_part(0, colon, "the method's name");
    if (colon == text_.size()) return spec;
    for (size_t at = colon + 1; at <= text_.size();) {
      const size_t end = end_of_pair(at);
      spec.values.push_back(pair(at, end));
      at = end + 1;
    }
    return spec;
  }

 private:
  template <class... Parts>
  [[noreturn]] void malformed(size_t at, const Parts&... parts) const {
    fail_usage("spec ", quote(text_), ", byte ", at, ": ", parts...);
  }

  void check_characters() const {
    if (text_.size() > kMaxSpecBytes) malformed(kMaxSpecBytes, "longer than 64 KiB (", text_.size(), " bytes)");
    std::vector<size_t> open;
    for (size_t i = 0; i < text_.size(); ++i) {
      const unsigned char c = text_[i];
      if (c < 0x20 || c == 0x7f) malformed(i, "control character ", static_cast<int>(c));
      if (c == '(') open.push_back(i);
      if (c == ')' && open.empty()) malformed(i, "')' without '(' before it");
      if (c == ')') open.pop_back();
    }
    if (!open.empty()) malformed(open.back(), "'(' is never closed");
  }

  /// Returns text[begin, end), a name or key, without surrounding spaces. Throws if it is empty or contains one of
  /// `(),=:`. what: for messages.
  std::string plain_part(size_t begin, size_t end, const char* what) const {
    const std::string_view part = text_.substr(begin, end - begin);
    if (trimmed(part).empty()) malformed(begin, "expected ", what);
    const size_t special = part.find_first_of("(),=:");
    if (special != std::string_view::npos) {
      malformed(begin + special, "unexpected ", quote(part.substr(special, 1)), " in ", what);
    }
    return std::string(trimmed(part));
  }

  /// Returns the position of the first comma outside parentheses from `at` on, or the end of the text.
  size_t end_of_pair(size_t at) const {
    int depth = 0;
    while (at < text_.size() && (depth > 0 || text_[at] != ',')) {
      depth += (text_[at] == '(') - (text_[at] == ')');
      ++at;
    }
    return at;
  }

  std::pair<std::string, std::string> pair(size_t begin, size_t end) {
    const std::string_view part = text_.substr(begin, end - begin);
    if (trimmed(part).empty()) malformed(begin, "expected key=value");
    const size_t equals = part.find('=');
    if (equals == std::string_view::npos) malformed(begin, "expected key=value, found ", quote(trimmed(part)));
    std::string key = plain_part(begin, begin + equals, "a parameter's name");
    if (!keys_.insert(key).second) malformed(begin, "parameter ", quote(key), " is given twice");
    std::string_view value = trimmed(part.substr(equals + 1));
    if (is_parenthesised(value)) value = trimmed(value.substr(1, value.size() - 2));
    return {std::move(key), std::string(value)};
  }

  std::string_view text_;
  std::set<std::string, std::less<>> keys_;
};

}  // namespace

std::string Spec::to_string() const {
  std::string text = name;
  char separator = ':';
  for (const auto& [key, value] : values) {
    const bool group = value.find_first_of(",()") != std::string::npos;
    text += separator + key + "=" + (group ? "(" + value + ")" : value);
    separator = ',';
  }
  return text;
}

Spec parse_spec(std::string_view text) { return SpecParser(text).parse(); }

std::optional<int64_t> parse_size(std::string_view text) {
  int shift = 0;
  if (!text.empty()) {
    switch (text.back()) {
      case 'k':
      case 'K':
        shift = 10;
        break;
      case 'm':
      case 'M':
        shift = 20;
        break;
      case 'g':
      case 'G':
        shift = 30;
        break;
    }
  }
  if (shift > 0) text.remove_suffix(1);
  if (text.empty()) return std::nullopt;
  const int64_t limit = INT64_MAX >> shift;
  int64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    const int digit = c - '0';
    if (value > (limit - digit) / 10) return std::nullopt;
    value = value * 10 + digit;
  }
  return value << shift;
}

}  // namespace fathom
