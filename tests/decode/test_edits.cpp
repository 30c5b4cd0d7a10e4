#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "byte_vocabulary.h"
#include "decode/constraints/edit_list.h"
#include "decode/constraints/word_diff.h"
#include "seed.h"

namespace fathom {

ConstraintEntry edits_method();

namespace {

using test::random_walk;

std::string apply_list(const std::string& source, const std::string& list) {
  return apply_edits(source, parse_edits(list, std::ssize(words_of(source))));
}

/// Returns a text of pieces that are chosen so that words repeat and escapes, blanks and any bytes occur.
std::string random_text(std::mt19937& random, size_t pieces) {
  static const std::vector<std::string> kPieces = {"a",  "b",  "the", "cat", " ",   " ", " ",    " ", "\n",
                                                   "\t", "  ", "\\",  "-",   "\\n", "0", "12 3", ".", "\xff"};
  std::string text;
  for (size_t i = random() % (pieces + 1); i > 0; --i) text += kPieces[random() % kPieces.size()];
  return text;
}

/// Returns the text with some of its words removed, repeated or replaced.
std::string changed(std::mt19937& random, const std::string& text) {
  std::string out;
  for (const std::string_view word : words_of(text)) {
    const unsigned kind = random() % 10;
    if (kind == 0) continue;
    if (kind == 1) out += random_text(random, 3);
    if (kind != 2) out += word;
    if (kind == 3) out += word;
  }
  return out;
}

TEST(Edits, WordsJoinToTheText) {
  EXPECT_EQ(words_of("The  cat\nsat "), (std::vector<std::string_view>{"The", "  cat", "\nsat", " "}));
  EXPECT_TRUE(words_of("").empty());
  std::mt19937 random(test::seed(1));
  for (int trial = 0; trial < 500; ++trial) {
    const std::string text = random_text(random, 40);
    std::string joined;
    for (const std::string_view word : words_of(text)) joined += word;
    EXPECT_EQ(joined, text);
  }
}

TEST(Edits, ExtractThenApplyGivesTheTargetForTenThousandPairs) {
  std::mt19937 random(test::seed(2));
  for (int trial = 0; trial < 10'000; ++trial) {
    const std::string source = random_text(random, 30);
    const std::string target = trial % 2 == 0 ? changed(random, source) : random_text(random, 30);
    const std::vector<WordEdit> edits = extract_edits(source, target);
    ASSERT_EQ(apply_edits(source, edits), target);
    const std::string list = format_edits(edits);
    ASSERT_EQ(parse_edits(list, std::ssize(words_of(source))), edits) << list;
    ASSERT_EQ(list == "none", source == target);
  }
}

TEST(Edits, ListsAreReadable) {
  const std::string source = "The cat sat on teh mat in the very old house.";
  const std::string target = "Then the cat sat on the mat in the old, grey\nhouse.";
  const std::string list = format_edits(extract_edits(source, target));
  EXPECT_EQ(list, "0 1 Then the\n4 5 the\n8 11 old, grey\\nhouse.");
  EXPECT_EQ(apply_list(source, list), target);
  EXPECT_EQ(format_edits(extract_edits("a b c", "a c")), "1 2");
  EXPECT_EQ(format_edits(extract_edits("a c", "a b c")), "1 1 b");
  EXPECT_EQ(format_edits(extract_edits("a c", "a c")), "none");
}

TEST(Edits, NumberOfChangedWordsIsTheLeastPossible) {
  std::mt19937 random(test::seed(3));
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<int32_t> a(random() % 25), b(random() % 25);
    const unsigned words = 1 + random() % 6;
    for (int32_t& word : a) word = static_cast<int32_t>(random() % words);
    for (int32_t& word : b) word = static_cast<int32_t>(random() % words);
    std::vector<std::vector<int>> common(a.size() + 1, std::vector<int>(b.size() + 1));
    for (size_t i = 1; i <= a.size(); ++i) {
      for (size_t j = 1; j <= b.size(); ++j) {
        common[i][j] =
            a[i - 1] == b[j - 1] ? common[i - 1][j - 1] + 1 : std::max(common[i - 1][j], common[i][j - 1]);
      }
    }
    int64_t changes = 0, last_a = 0, last_b = 0;
    for (const DiffBox& box : diff_words(a, b)) {
      // between boxes the words are equal
      ASSERT_TRUE(std::equal(a.begin() + last_a, a.begin() + box.a, b.begin() + last_b, b.begin() + box.b));
      ASSERT_TRUE(last_a == 0 || box.a > last_a) << "boxes touch";
      changes += box.a_end - box.a + box.b_end - box.b;
      last_a = box.a_end;
      last_b = box.b_end;
    }
    ASSERT_TRUE(std::equal(a.begin() + last_a, a.end(), b.begin() + last_b, b.end()));
    ASSERT_EQ(changes, std::ssize(a) + std::ssize(b) - 2 * common[a.size()][b.size()]);
  }
}

TEST(Edits, LargeAndUnrelatedTextsAreComparedInBoundedTime) {
  std::mt19937 random(test::seed(4));
  std::vector<int32_t> a(30'000), b;
  for (int32_t& word : a) word = static_cast<int32_t>(random() % 5000);
  for (const int32_t word : a)
    if (random() % 20 != 0) b.push_back(random() % 20 == 0 ? 9999 : word);
  int64_t changes = 0;
  for (const DiffBox& box : diff_words(a, b)) changes += box.a_end - box.a + box.b_end - box.b;
  EXPECT_LT(changes, 5500);  // 30,000 · (0.05 + 2 · 0.0475) = 4,350 words were changed

  std::vector<int32_t> other(30'000);
  std::iota(other.begin(), other.end(), 10'000);
  int64_t removed = 0, added = 0;
  for (const DiffBox& box : diff_words(a, other)) removed += box.a_end - box.a, added += box.b_end - box.b;
  EXPECT_EQ(removed, std::ssize(a));
  EXPECT_EQ(added, std::ssize(other));
}

TEST(Edits, ListOfSpellingErrorsIsMuchShorterThanTheText) {
  std::mt19937 random(test::seed(5));
  size_t list_bytes = 0, text_bytes = 0;
  for (int trial = 0; trial < 100; ++trial) {
    std::string source, target;
    for (int word = 0; word < 60; ++word) {
      std::string letters;
      for (int i = 0; i < 5; ++i) letters += static_cast<char>('a' + random() % 26);
      target += (word == 0 ? "" : " ") + letters;
      if (random() % 15 == 0) std::swap(letters[1], letters[2]);
      source += (word == 0 ? "" : " ") + letters;
    }
    const std::string list = format_edits(extract_edits(source, target));
    EXPECT_EQ(apply_list(source, list), target);
    list_bytes += list.size();
    text_bytes += target.size();
  }
  EXPECT_LT(static_cast<double>(list_bytes), 0.2 * static_cast<double>(text_bytes));
}

/// Parses a list independently of the grammar: line by line.
std::optional<std::vector<WordEdit>> parse_simply(const std::string& list, int64_t words) {
  std::vector<WordEdit> edits;
  if (list == "none") return edits;
  const auto number = [](const std::string& text, size_t& at) -> int64_t {
    size_t end = at;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
    if (end == at || (text[at] == '0' && end > at + 1)) return -1;
    const int64_t value = std::stoll(text.substr(at, end - at));
    at = end;
    return value;
  };
  int64_t least = 0;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find('\n', begin), list.size());
    const std::string line = list.substr(begin, end - begin);
    begin = end + 1;
    WordEdit edit;
    size_t at = 0;
    edit.start = number(line, at);
    if (edit.start < least || at >= line.size() || line[at++] != ' ') return std::nullopt;
    edit.end = number(line, at);
    if (edit.end < edit.start || edit.end > words) return std::nullopt;
    least = edit.end;
    if (at == line.size()) {
      if (edit.start == edit.end) return std::nullopt;
    } else {
      if (line[at++] != ' ' || at == line.size()) return std::nullopt;
      if (line[at] != '\\' && edit.start > 0) edit.text = " ";
      if (line.compare(at, 2, "\\-") == 0 && (at += 2) == line.size()) return std::nullopt;
      for (; at < line.size(); ++at) {
        if (line[at] != '\\') {
          edit.text += line[at];
          continue;
        }
        if (++at == line.size()) return std::nullopt;
        if (line[at] != 'n' && line[at] != 's' && line[at] != '\\') return std::nullopt;
        edit.text += line[at] == 'n' ? '\n' : line[at] == 's' ? ' ' : '\\';
      }
    }
    edits.push_back(edit);
  }
  return edits;
}

TEST(Edits, GrammarAcceptsExactlyTheApplicableLists) {
  const std::string bytes = "012 \n\\-n";
  int accepted = 0;
  const auto check = [&](const std::string& list, int64_t words) {
    const auto expected = parse_simply(list, words);
    if (!expected) {
      EXPECT_THROW(parse_edits(list, words), Error) << list;
      return;
    }
    ++accepted;
    ASSERT_EQ(parse_edits(list, words), *expected) << list;
  };
  for (int64_t count = 0, size = 0; size <= 5; ++size) {
    count = static_cast<int64_t>(std::pow(bytes.size(), size));
    for (int64_t code = 0; code < count; ++code) {
      std::string list;
      for (int64_t rest = code, i = 0; i < size; ++i, rest /= std::ssize(bytes))
        list += bytes[static_cast<size_t>(rest % std::ssize(bytes))];
      if (list.find(' ') != std::string::npos) check(list, 2);
    }
  }
  EXPECT_EQ(accepted, 39);
  std::mt19937 random(test::seed(6));
  for (int trial = 0; trial < 3000; ++trial) {  // lists that were valid before a change of one byte
    const std::string source = random_text(random, 30);
    std::string list = format_edits(extract_edits(source, changed(random, source)));
    if (trial % 3 != 0) list[random() % list.size()] = bytes[random() % bytes.size()];
    check(list, std::ssize(words_of(source)));
  }
  EXPECT_GT(accepted, 1000);
  check("none", 0);
  check("0 0 x", 0);
}

TEST(Edits, RandomWalksThroughTheConstraintGiveApplicableLists) {
  const auto tokenizer =
      test::byte_tokenizer({"1 ", " 2", "12", "\n1", "none", "no", "ne", " a", "\\n", "3 4 x\n"});
  std::mt19937 random(test::seed(7));
  for (const std::string text : {"", "one", "one two  three\nfour ", "a b c d e f g h i j k l m"}) {
    const auto constraint = edits_method().make(check_values(parse_spec("edits"), {}), {tokenizer.get(), text});
    int edits = 0;
    for (int walk = 0; walk < 300; ++walk) {
      // an end is preferred where it is allowed, because the replacement texts have no limit
      const std::string list = random_walk(*tokenizer, *constraint, random, 400, 0.1, '\n');
      const auto parsed = parse_edits(list, std::ssize(words_of(text)));
      EXPECT_NO_THROW(apply_edits(text, parsed));
      edits += static_cast<int>(parsed.size());
    }
    EXPECT_GT(edits, 100) << text;
  }
}

TEST(Edits, HostileListsGiveErrors) {
  const std::vector<std::string> lists = {"",
                                          "None",
                                          "none\n",
                                          "nonetheless",
                                          "0",
                                          "0 ",
                                          "0 1 ",
                                          "0 0",
                                          "1 0 x",
                                          "0 4 x",
                                          "00 1",
                                          "-1 2 x",
                                          "+0 1",
                                          "0x1 2",
                                          "0 1 x\n",
                                          "1 2 x\n0 1 y",
                                          "0 2 x\n1 3 y",
                                          "0 1 x\ny",
                                          "0 1 a\\",
                                          "0 1 a\\q",
                                          "0 1 a\\-b",
                                          "0 1 \\-",
                                          "99999999999999999999999 1 x",
                                          "0 18446744073709551617 x",
                                          std::string("0\0 1 x", 6),
                                          "\xff\xfe",
                                          std::string(1 << 20, '1'),
                                          std::string(1 << 20, '\n')};
  for (const std::string& list : lists) EXPECT_THROW(parse_edits(list, 3), Error) << list.substr(0, 40);
  try {
    parse_edits("0 1 x\n0 2 y", 3);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "list of edits, byte 6: expected a number from 1 to 3, found '0 2 y'");
  }
  for (const WordEdit& edit : {WordEdit{-1, 1}, WordEdit{2, 1}, WordEdit{0, 4}, WordEdit{4, 4}})
    EXPECT_THROW(apply_edits("a b c", std::vector{edit}), Error);
  EXPECT_THROW(apply_edits("a b c", std::vector<WordEdit>{{1, 2}, {0, 1}}), Error);
}

}  // namespace
}  // namespace fathom
