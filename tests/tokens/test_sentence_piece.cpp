#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "formats/gguf.h"
#include "paths.h"
#include "random_text.h"
#include "vocabularies.h"

namespace fathom {
namespace {

using test::kPlain;
using test::pieces_of;
using test::sentence_pieces;

const std::vector<std::string> kPieces{"▁", "he", "ll", "▁he", "llo", "▁hello", "▁▁", "h", "e", "l", "o", "w"};

TEST(SentencePiece, PairsWithTheHighestScoreMergeFirst) {
  const Tokenizer tokenizer(sentence_pieces({"▁", "bc", "ab", "a", "b", "c"}, false));
  EXPECT_EQ(pieces_of(tokenizer, "abc"), "a|bc");
  EXPECT_EQ(pieces_of(tokenizer, "abab"), "ab|ab");
}

TEST(SentencePiece, SpaceIsAddedBeforeTextAndRemovedInDecoding) {
  const Tokenizer tokenizer(sentence_pieces(kPieces));
  EXPECT_EQ(pieces_of(tokenizer, "hello"), " hello");
  EXPECT_EQ(pieces_of(tokenizer, " hello"), " | hello");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("hello")), "hello");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(" hello")), " hello");
  EXPECT_TRUE(tokenizer.encode("", kPlain).empty());
}

TEST(SentencePiece, NoSpaceIsAddedWithoutAddSpacePrefix) {
  const Tokenizer tokenizer(sentence_pieces(kPieces, false));
  EXPECT_EQ(pieces_of(tokenizer, "hello"), "he|llo");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(" hello")), " hello");
}

TEST(SentencePiece, CharactersWithoutPieceBecomeByteTokens) {
  const Tokenizer tokenizer(sentence_pieces(kPieces, false));
  EXPECT_EQ(tokenizer.encode("é", kPlain), (std::vector<int32_t>{3 + 0xc3, 3 + 0xa9}));
  EXPECT_EQ(tokenizer.encode("\xff", kPlain), (std::vector<int32_t>{3 + 0xff}));
}

TEST(SentencePiece, SpaceMarkInTheTextIsNotASpace) {
  const Tokenizer tokenizer(sentence_pieces(kPieces, false));
  EXPECT_EQ(tokenizer.encode("▁", kPlain), (std::vector<int32_t>{3 + 0xe2, 3 + 0x96, 3 + 0x81}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("he▁llo hello")), "he▁llo hello");
}

TEST(SentencePiece, WithoutByteTokensCharactersAreUnknown) {
  Vocabulary vocabulary = sentence_pieces(kPieces, false);
  for (int32_t id = 3; id < 3 + 256; ++id) vocabulary.types[id] = TokenType::kUnused;
  EXPECT_EQ(Tokenizer(vocabulary).encode("é\xff", kPlain), (std::vector<int32_t>{0, 0}));
  vocabulary.unknown = kNoToken;
  EXPECT_THROW(Tokenizer(vocabulary).encode("é", kPlain), Error);
}

TEST(SentencePiece, ControlTextIsATokenOnlyWithParseSpecial) {
  Vocabulary vocabulary = sentence_pieces(kPieces);
  for (const char* piece : {"<", "s", ">", "<s", "s>"}) test::add_piece(vocabulary, piece, -20, TokenType::kNormal);
  const Tokenizer tokenizer(vocabulary);
  EXPECT_EQ(pieces_of(tokenizer, "<s>he", true), "<s>| he");
  const std::vector<int32_t> plain = tokenizer.encode("<s>he", kPlain);
  EXPECT_EQ(std::ranges::count(plain, vocabulary.bos), 0);
  EXPECT_EQ(tokenizer.decode(plain), "<s>he");
}

TEST(SentencePiece, UserDefinedTokensAreRecognisedInAnyTextLongestFirst) {
  Vocabulary vocabulary = sentence_pieces(kPieces);
  test::add_piece(vocabulary, "\n", 0, TokenType::kUserDefined);
  test::add_piece(vocabulary, "\n\n", 0, TokenType::kUserDefined);
  const Tokenizer tokenizer(vocabulary);
  EXPECT_EQ(pieces_of(tokenizer, "he\n\n\nhello"), " he|\n\n|\n|he|llo");
  for (const std::string text : {"he\n hello", "\n", "\n\n\n he", " \n", "he\nhe \n  he", "\n he", "\nhe"}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
}

TEST(SentencePiece, TextAroundSpecialTokensRoundTrips) {
  Vocabulary vocabulary = sentence_pieces(kPieces);
  test::add_piece(vocabulary, "\n", 0, TokenType::kUserDefined);
  const Tokenizer tokenizer(vocabulary);
  for (const std::string text :
       {"<unk>he", "<unk> he", "he<unk> he", "he<s>he", "he<s> he", "<s>\n he</s>he", "<s><unk> he"}) {
    const auto ids = tokenizer.encode(text, {.add_bos_eos = false, .parse_special = true});
    EXPECT_EQ(tokenizer.decode(ids, true), text);
  }
}

TEST(SentencePiece, PiecesThatCrossSpacesAreFound) {
  const Tokenizer tokenizer(sentence_pieces({"▁", "a", "b", "a▁", "a▁b"}, false));
  EXPECT_EQ(pieces_of(tokenizer, "ba b"), "b|a b");
}

TEST(SentencePiece, AnyBytesRoundTripThroughATrainedVocabulary) {
  const std::string path = test::seedling_path();
  const Tokenizer tokenizer(Vocabulary::read(Gguf::open(path)));
  EXPECT_TRUE(tokenizer.ends_generation(2));
  EXPECT_FALSE(tokenizer.ends_generation(100));
  test::expect_round_trips(tokenizer);
}

TEST(SentencePiece, AnyBytesRoundTripWithAndWithoutSpacePrefix) {
  test::expect_round_trips(Tokenizer(sentence_pieces(kPieces, true)));
  test::expect_round_trips(Tokenizer(sentence_pieces(kPieces, false)));
  test::expect_round_trips(Tokenizer(sentence_pieces({"a▁b", "▁", "a"}, true)));
  test::expect_round_trips(Tokenizer(sentence_pieces({}, true)));  // no piece for a space
}

TEST(SentencePiece, LongRepetitiveTextsRoundTrip) {
  const Tokenizer tokenizer(sentence_pieces({"▁", "a", "aa", "aaaa", "▁a", "▁▁"}));
  test::expect_long_texts_round_trip(tokenizer);
}

}  // namespace
}  // namespace fathom
