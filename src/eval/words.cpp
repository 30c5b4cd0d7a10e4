#include "eval/words.h"

#include <cstdio>

namespace fathom::eval {

// The lists in src/eval/words, one word a line (cmake/embed.cmake).
std::string_view embedded_adjectives();
std::string_view embedded_common();
std::string_view embedded_first_names();
std::string_view embedded_nouns();
std::string_view embedded_towns();

namespace {

WordList words_by_line(std::string_view text) {
  WordList lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

}  // namespace

const WordList& adjectives() {
  static const WordList list = words_by_line(embedded_adjectives());
  return list;
}
const WordList& nouns() {
  static const WordList list = words_by_line(embedded_nouns());
  return list;
}
const WordList& first_names() {
  static const WordList list = words_by_line(embedded_first_names());
  return list;
}
const WordList& towns() {
  static const WordList list = words_by_line(embedded_towns());
  return list;
}
const WordList& common_words() {
  static const WordList list = words_by_line(embedded_common());
  return list;
}

std::string random_number(Rng& rng, int digits) {
  std::string number(1, static_cast<char>('1' + rng.below(9)));
  while (static_cast<int>(number.size()) < digits) number += static_cast<char>('0' + rng.below(10));
  return number;
}

std::string random_uuid(Rng& rng) {
  const uint64_t high = (rng.bits() & ~0xf000ull) | 0x4000;                           // version 4
  const uint64_t low = (rng.bits() & 0x3fffffffffffffffull) | 0x8000000000000000ull;  // variant 1
  char text[40];
  std::snprintf(text, sizeof text, "%08llx-%04llx-%04llx-%04llx-%012llx",
                static_cast<unsigned long long>(high >> 32), static_cast<unsigned long long>(high >> 16 & 0xffff),
                static_cast<unsigned long long>(high & 0xffff), static_cast<unsigned long long>(low >> 48),
                static_cast<unsigned long long>(low & 0xffffffffffffull));
  return text;
}

std::string random_letters(Rng& rng, int count, char first) {
  std::string text;
  for (int i = 0; i < count; ++i) text += static_cast<char>(first + rng.below(26));
  return text;
}

std::string nonsense_word(Rng& rng, int syllables) {
  static constexpr std::string_view kStarts = "bdfgklmnprstvz", kVowels = "aeiou";
  std::string word;
  for (int i = 0; i < syllables; ++i) {
    word += rng.pick(kStarts);
    word += rng.pick(kVowels);
  }
  word += rng.pick(kStarts);
  return word;
}

}  // namespace fathom::eval
