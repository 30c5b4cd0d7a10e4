#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "base/utf8.h"
#include "seed.h"
#include "tokens/tokenizer.h"

namespace fathom::test {

/// Returns a random mixture of bytes, ASCII, characters of all planes, spaces, space marks and truncated
/// characters.
inline std::string random_text(std::mt19937& random) {
  std::string text;
  const int parts = random() % 40;
  for (int i = 0; i < parts; ++i) {
    switch (random() % 7) {
      case 0:
        text += static_cast<char>(random());
        break;
      case 1: {
        const uint32_t planes[] = {0x80, 0x800, 0x10000, 0x110000};
        const uint32_t code_point = random() % planes[random() % 4];
        append_utf8(code_point >= 0xd800 && code_point < 0xe000 ? 0xfffd : code_point, text);
        break;
      }
      case 2:
        text += std::string(random() % 4, ' ');
        break;
      case 3:
        text += random() % 4 ? "\n" : "▁";
        break;
      case 4:
        text += std::string_view("\xf0\x9f\xa6\x99").substr(0, random() % 5);
        break;
      default:
        for (int letters = random() % 8; letters > 0; --letters) text += static_cast<char>('a' + random() % 26);
    }
  }
  return text;
}

/// Returns whether byte `at` is inside a character of `text`.
inline bool inside_character(std::string_view text, size_t at) {
  size_t begin = 0;
  while (begin < at) begin += std::max<size_t>(utf8_length(text.substr(begin)), 1);
  return begin != at;
}

/// Expects decode(encode(text)) == text for single bytes, pairs of bytes and random texts. Also expects that a
/// StreamDecoder returns the text without splitting a character.
inline void expect_round_trips(const Tokenizer& tokenizer) {
  std::mt19937 random(test::seed(1));
  std::vector<std::string> texts;
  for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
  for (int i = 0; i < 256; ++i) texts.push_back({static_cast<char>(random()), static_cast<char>(random())});
  for (int i = 0; i < 3000; ++i) texts.push_back(random_text(random));
  for (const std::string& text : texts) {
    const std::vector<int32_t> ids = tokenizer.encode(text, {.add_bos_eos = false});
    ASSERT_EQ(tokenizer.decode(ids), text);
    StreamDecoder decoder(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) {
      streamed += decoder.add(id);
      ASSERT_FALSE(inside_character(text, streamed.size()));
    }
    ASSERT_EQ(streamed + decoder.flush(), text);
  }
}

inline void expect_long_texts_round_trip(const Tokenizer& tokenizer) {
  for (const std::string unit : {"a", " ", "\n", "\xff", "1", "!", "é", "▁", "\t ", "aB"}) {
    std::string text;
    while (text.size() < 200'000) text += unit;
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << unit;
  }
}

}  // namespace fathom::test
