#include <algorithm>

#include "base/utf8.h"
#include "eval/metrics.h"

namespace fathom::eval {
namespace {

/// Returns the code point of one of characters(); an invalid byte maps to a surrogate, as in Python's
/// surrogateescape.
uint32_t code_point(std::string_view character) {
  if (utf8_length(character) == 0) return 0xdc00 + static_cast<unsigned char>(character.front());
  return utf8_code_point(character);
}

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_ascii_punctuation(uint32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

/// Returns whether LongBench and InfiniteBench remove this mark from Chinese text, in addition to ASCII
/// punctuation.
bool is_cjk_punctuation(uint32_t c) {
  const bool full_width = (c >= 0xff01 && c <= 0xff0f) || (c >= 0xff1a && c <= 0xff20) ||
                          (c >= 0xff3b && c <= 0xff40) || (c >= 0xff5b && c <= 0xff64);
  const bool ideographic = (c >= 0x3001 && c <= 0x3003) || (c >= 0x3008 && c <= 0x3011) ||
                           (c >= 0x3014 && c <= 0x301f) || c == 0x3030 || c == 0x303e || c == 0x303f;
  const bool general =
      c == 0x2013 || c == 0x2014 || (c >= 0x2018 && c <= 0x201f) || c == 0x2026 || c == 0x2027 || c == 0xfe4f;
  return full_width || ideographic || general;
}

uint32_t lower(uint32_t c) {
  if (c >= 'A' && c <= 'Z') return c + 32;
  if (c >= 0xc0 && c <= 0xde && c != 0xd7) return c + 32;     // Latin-1
  if (c >= 0x100 && c <= 0x12f) return c | 1;                 // Latin Extended-A; upper and lower case alternate
  if (c >= 0x391 && c <= 0x3a9 && c != 0x3a2) return c + 32;  // Greek
  if (c >= 0x410 && c <= 0x42f) return c + 32;                // Cyrillic
  if (c >= 0x400 && c <= 0x40f) return c + 80;
  return c;
}

bool is_article(std::string_view word) { return word == "a" || word == "an" || word == "the"; }

/// Replaces each article that is not adjacent to a letter or digit by a space.
std::string without_articles(std::string_view text) {
  std::string kept;
  std::string word;
  const auto end_word = [&] {
    kept += is_article(word) ? " " : word;
    word.clear();
  };
  for (const std::string_view c : characters(text)) {
    if (is_word_character(c)) {
      word += c;
    } else {
      end_word();
      kept += c;
    }
  }
  end_word();
  return kept;
}

}  // namespace

bool is_word_character(std::string_view character) {
  const uint32_t c = code_point(character);
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  if (c < 0xc0) return c == 0xaa || c == 0xb5 || c == 0xba || c == 0xb2 || c == 0xb3 || c == 0xb9;
  return c != 0xd7 && c != 0xf7 && !(c >= 0x2000 && c <= 0x206f) && !is_space(c) && !is_cjk_punctuation(c);
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> all;
  all.reserve(text.size());
  while (!text.empty()) {
    all.push_back(text.substr(0, std::max<size_t>(1, utf8_length(text))));
    text.remove_prefix(all.back().size());
  }
  return all;
}

std::vector<std::string_view> split_words(std::string_view text) {
  std::vector<std::string_view> words;
  const char* begin = nullptr;  // of the current word
  const char* end = text.data() + text.size();
  for (const std::string_view c : characters(text)) {
    if (!is_space(code_point(c))) {
      if (begin == nullptr) begin = c.data();
    } else if (begin != nullptr) {
      words.emplace_back(begin, c.data() - begin);
      begin = nullptr;
    }
  }
  if (begin != nullptr) words.emplace_back(begin, end - begin);
  return words;
}

std::string_view trim(std::string_view text) {
  const std::vector<std::string_view> words = split_words(text);
  if (words.empty()) return {};
  return {words.front().data(),
          static_cast<size_t>(words.back().data() + words.back().size() - words.front().data())};
}

std::string lower_case(std::string_view text) {
  std::string lowered;
  lowered.reserve(text.size());
  for (const std::string_view c : characters(text)) {
    if (utf8_length(c) == 0) {
      lowered += c;
    } else {
      append_utf8(lower(utf8_code_point(c)), lowered);
    }
  }
  return lowered;
}

std::string normalize_english(std::string_view text) {
  std::string plain = lower_case(text);
  std::erase_if(plain, [](char c) { return is_ascii_punctuation(static_cast<unsigned char>(c)); });
  plain = without_articles(plain);
  std::string spaced;
  for (const std::string_view word : split_words(plain)) {
    if (!spaced.empty()) spaced += ' ';
    spaced += word;
  }
  return spaced;
}

std::string normalize_chinese(std::string_view text) {
  std::string kept;
  for (const std::string_view c : characters(text)) {
    const uint32_t point = code_point(c);
    if (!is_space(point) && !is_ascii_punctuation(point) && !is_cjk_punctuation(point)) kept += lower_case(c);
  }
  return kept;
}

std::vector<std::string_view> digit_runs(std::string_view text) {
  std::vector<std::string_view> runs;
  constexpr std::string_view kDigits = "0123456789";
  for (size_t begin = text.find_first_of(kDigits); begin < text.size();) {
    const size_t end = std::min(text.find_first_not_of(kDigits, begin), text.size());
    runs.push_back(text.substr(begin, end - begin));
    begin = text.find_first_of(kDigits, end);
  }
  return runs;
}

}  // namespace fathom::eval
