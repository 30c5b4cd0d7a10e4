#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "random_text.h"
#include "seed.h"
#include "tokens/charsmap.h"
#include "vocabularies.h"

namespace fathom {
namespace {

using test::kPlain;
using test::pieces_of;

Vocabulary unigram(const std::vector<std::pair<std::string, float>>& pieces, bool bytes = false) {
  Vocabulary vocabulary = test::sentence_pieces({});
  vocabulary.kind = VocabularyKind::kUnigram;
  vocabulary.add_bos = false;
  for (int32_t id = 3; id < vocabulary.size() && !bytes; ++id) vocabulary.types[id] = TokenType::kUnused;
  for (const auto& [piece, score] : pieces) test::add_piece(vocabulary, piece, score, TokenType::kNormal);
  return vocabulary;
}

const std::vector<std::pair<std::string, float>> kScoredPieces{{"▁", -3},  {"a", -3},   {"b", -3},  {"c", -3},
                                                               {"ab", -4}, {"abc", -9}, {"▁ab", -5}};

TEST(Unigram, TheMostLikelySequenceIsSelected) {
  const Tokenizer tokenizer(unigram(kScoredPieces));
  EXPECT_EQ(pieces_of(tokenizer, "abc"), " ab|c");      // −8; ▁|abc has −12 and ▁|ab|c −10
  EXPECT_EQ(pieces_of(tokenizer, "cabc"), " |c|ab|c");  // −13; ▁|c|abc has −15
}

TEST(Unigram, ConsecutiveUnknownCharactersAreOneUnknownToken) {
  const Tokenizer tokenizer(unigram(kScoredPieces));
  EXPECT_EQ(pieces_of(tokenizer, "axyzb"), " |a|<unk>|b");
}

TEST(Unigram, UnknownCharactersBecomeByteTokensIfTheVocabularyHasThem) {
  const Tokenizer tokenizer(unigram(kScoredPieces, true));
  EXPECT_EQ(pieces_of(tokenizer, "axyb"), " |a|x|y|b");
  test::expect_round_trips(tokenizer);
  test::expect_long_texts_round_trip(tokenizer);
}

TEST(Unigram, ExtraSpacesAreRemovedWithRemoveExtraWhitespaces) {
  Vocabulary vocabulary = unigram(kScoredPieces, true);
  vocabulary.remove_extra_whitespaces = true;
  const Tokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("  a   b  ")), "a b");
  EXPECT_TRUE(tokenizer.encode("   ", kPlain).empty());
}

/// Returns rules with the single rule "A" → "a". The root's children are at unit 256 ^ byte; the offsets are chosen
/// so that no two nodes share a unit.
std::string rule_a() {
  std::vector<uint32_t> units(512, 0);
  units[0] = 256u << 10;  // children at 256 ^ byte
  units[256 ^ 'A'] =
      'A' | 1u << 8 | (256u ^ 'A') << 10;  // would place its value at unit 0; replaced by the next line
  units[256 ^ 'A'] = 'A' | 1u << 8 | ((256u ^ 'A') ^ 400u) << 10;
  units[400] = 1u << 31 | 2;  // the replacement begins at byte 2 of the replacements
  std::string blob(4, '\0');
  const uint32_t bytes = units.size() * 4;
  std::memcpy(blob.data(), &bytes, 4);
  blob.append(reinterpret_cast<const char*>(units.data()), bytes);
  return blob + std::string("z\0a\0", 4);
}

TEST(Charsmap, RulesReplaceTheLongestPattern) {
  const Charsmap rules(rule_a(), "test");
  EXPECT_EQ(rules.longest_prefix("Ab").bytes, 1u);
  EXPECT_EQ(rules.longest_prefix("Ab").replacement, "a");
  EXPECT_EQ(rules.longest_prefix("bA").bytes, 0u);
  EXPECT_EQ(rules.longest_prefix("").bytes, 0u);
}

TEST(Charsmap, TextIsNormalisedBeforeItIsSplit) {
  Vocabulary vocabulary = unigram(kScoredPieces, true);
  vocabulary.charsmap = rule_a();
  EXPECT_EQ(pieces_of(Tokenizer(vocabulary), "Ab"), " ab");
}

TEST(Charsmap, TruncatedOrRandomRulesAreAnErrorOrHarmless) {
  const std::string good = rule_a();
  for (size_t bytes = 1; bytes < good.size(); bytes += 7) {
    EXPECT_THROW(Charsmap(good.substr(0, bytes) + "x", "test"), Error) << bytes;
  }
  std::mt19937 random(test::seed(1));
  for (int trial = 0; trial < 200; ++trial) {
    std::string bad = good;
    for (size_t i = 4; i + 4 < bad.size(); ++i) bad[i] = static_cast<char>(random());
    const Charsmap rules(bad, "test");
    for (int i = 0; i < 50; ++i) EXPECT_LE(rules.longest_prefix("some text").bytes, 9u);
  }
}

}  // namespace
}  // namespace fathom
