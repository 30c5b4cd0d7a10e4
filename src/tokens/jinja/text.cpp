#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "tokens/jinja/library.h"
#include "tokens/regex.h"

namespace fathom::jinja {
namespace {

constexpr std::string_view kWhiteSpace = " \t\n\r\v\f";

/// Changes the case of letters by the rules of Unicode; of ASCII letters only, if the text is not UTF-8.
std::string change_case(const std::string& text, const char* replacement, int (*change_ascii)(int)) {
  static const Regex kLetters(R"(\p{L}+)");
  const bool is_ascii = std::ranges::all_of(text, [](unsigned char c) { return c < 0x80; });
  if (!is_ascii && utf8_valid_prefix(text) == text.size()) return kLetters.replace(text, replacement);
  std::string changed = text;
  for (char& c : changed) {
    if (static_cast<unsigned char>(c) < 0x80) c = static_cast<char>(change_ascii(c));
  }
  return changed;
}

int ascii_upper(int c) { return c >= 'a' && c <= 'z' ? c - 32 : c; }
int ascii_lower(int c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }

bool is_letter(std::string_view character) {
  const auto c = static_cast<unsigned char>(character[0]);
  return c >= 0x80 || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z');
}

}  // namespace

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> all;
  for (size_t bytes; !text.empty(); text.remove_prefix(bytes)) {
    bytes = std::max<size_t>(utf8_length(text), 1);
    all.push_back(text.substr(0, bytes));
  }
  return all;
}

std::string upper(const std::string& text) { return change_case(text, "\\U$0", ascii_upper); }
std::string lower(const std::string& text) { return change_case(text, "\\L$0", ascii_lower); }

std::string capitalized(const std::string& text) {
  const size_t first = std::max<size_t>(utf8_length(text), !text.empty());
  return upper(text.substr(0, first)) + lower(text.substr(first));
}

std::string titled(const std::string& text) {
  std::string out, word;
  for (const std::string_view character : characters(text)) {
    if (is_letter(character)) {
      word += character;
    } else {
      out += capitalized(std::exchange(word, {})) += character;
    }
  }
  return out + capitalized(word);
}

std::string stripped(std::string_view text, const Value& set, bool left, bool right) {
  const bool given = !set.is_undefined() && !set.is_none();
  const std::string chars = given ? expect_text(set, "strip") : std::string(kWhiteSpace);
  const std::vector<std::string_view> strip = characters(chars);
  const auto strips = [&](std::string_view character) {
    return std::ranges::find(strip, character) != strip.end();
  };
  while (left && !text.empty()) {
    const size_t bytes = std::max<size_t>(utf8_length(text), 1);
    if (!strips(text.substr(0, bytes))) break;
    text.remove_prefix(bytes);
  }
  while (right && !text.empty()) {
    size_t bytes = 1;
    while (bytes < 4 && bytes < text.size() && (text[text.size() - bytes] & 0xc0) == 0x80) ++bytes;
    if (!strips(text.substr(text.size() - bytes))) break;
    text.remove_suffix(bytes);
  }
  return std::string(text);
}

std::string replaced(std::string_view text, std::string_view old, std::string_view with, int64_t count,
                     Budget& budget) {
  std::string out;
  const auto append = [&](std::string_view part) {
    budget.spend_text(part.size() + 16);
    out += part;
  };
  while (count-- != 0) {
    const size_t at = old.empty() ? 0 : text.find(old);
    if (at == std::string_view::npos) break;
    append(text.substr(0, at));
    append(with);
    if (old.empty()) {  // inserts `with` between all characters
      if (text.empty()) return out;
      append(text.substr(0, std::max<size_t>(utf8_length(text), 1)));
      text.remove_prefix(std::max<size_t>(utf8_length(text), 1));
    }
    text.remove_prefix(old.empty() ? 0 : at + old.size());
  }
  append(text);
  return out;
}

}  // namespace fathom::jinja
