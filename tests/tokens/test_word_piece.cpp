#include <gtest/gtest.h>

#include "base/error.h"
#include "tokens/decompose.h"
#include "vocabularies.h"

namespace fathom {
namespace {

using test::pieces_of;

Vocabulary word_pieces(const std::vector<std::string>& pieces) {
  Vocabulary vocabulary;
  vocabulary.kind = VocabularyKind::kWordPiece;
  vocabulary.unknown = test::add_piece(vocabulary, "[UNK]", 0, TokenType::kControl);
  vocabulary.bos = test::add_piece(vocabulary, "[CLS]", 0, TokenType::kControl);
  vocabulary.eos = test::add_piece(vocabulary, "[SEP]", 0, TokenType::kControl);
  vocabulary.add_bos = vocabulary.add_eos = true;
  for (const std::string& piece : pieces) test::add_piece(vocabulary, piece, 0, TokenType::kNormal);
  return vocabulary;
}

const std::vector<std::string> kMarked{"▁un",   "▁unaffect", "able", "a",   "ff",
                                       "▁cafe", "▁,",        "▁你",  "▁好", "▁straße"};
const std::vector<std::string> kHashed{"un",   "unaffect", "##able", "##a", "##ff",
                                       "cafe", ",",        "你",     "好",  "straße"};

TEST(WordPiece, LongestPiecesAreSelectedFromTheLeftInBothSpellings) {
  for (const auto& pieces : {kMarked, kHashed}) {
    const Tokenizer tokenizer(word_pieces(pieces));
    EXPECT_EQ(pieces_of(tokenizer, "unaffectable UNAFF"), " unaffect|able| un|a|ff");
    EXPECT_EQ(tokenizer.decode(tokenizer.encode("unaffectable un")), "unaffectable un");
  }
}

TEST(WordPiece, CaseAndAccentsAreRemoved) {
  const Tokenizer tokenizer(word_pieces(kMarked));
  EXPECT_EQ(pieces_of(tokenizer, "Café CAFÉ cafe\u0301"), " cafe| cafe| cafe");
  EXPECT_EQ(pieces_of(tokenizer, "STRASSE Straße"), "[UNK]| straße");
}

TEST(WordPiece, PunctuationAndChineseCharactersAreSeparateWords) {
  const Tokenizer tokenizer(word_pieces(kMarked));
  EXPECT_EQ(pieces_of(tokenizer, "cafe,un\t\n你好"), " cafe| ,| un| 你| 好");
}

TEST(WordPiece, AWordThatPiecesDoNotCoverIsOneUnknownToken) {
  const Tokenizer tokenizer(word_pieces(kMarked));
  EXPECT_EQ(pieces_of(tokenizer, "unaffx un"), "[UNK]| un");
}

TEST(WordPiece, ControlCharactersAndInvalidBytesAreRemoved) {
  const Tokenizer tokenizer(word_pieces(kMarked));
  EXPECT_EQ(pieces_of(tokenizer, "u\x01n\xff \xc3 u\xe2\x80\x8bn"), " un| un");
  EXPECT_EQ(pieces_of(tokenizer, "\x01\xff"), "");
}

TEST(WordPiece, BosAndEosAreAdded) {
  const Tokenizer tokenizer(word_pieces(kMarked));
  EXPECT_EQ(tokenizer.encode("un"), (std::vector<int32_t>{1, 3, 2}));
}

TEST(WordPiece, AVocabularyWithoutUnknownTokenIsAnError) {
  Vocabulary vocabulary = word_pieces(kMarked);
  vocabulary.unknown = kNoToken;
  EXPECT_THROW(Tokenizer{vocabulary}, Error);
}

TEST(Decompose, CharactersAreDecomposedCanonically) {
  const auto decomposed = [](uint32_t code_point) {
    std::string text;
    append_decomposed(code_point, text);
    return text;
  };
  EXPECT_EQ(decomposed('a'), "a");
  EXPECT_EQ(decomposed(0xe9), "e\u0301");
  EXPECT_EQ(decomposed(0x1d6), "u\u0308\u0304");
  EXPECT_EQ(decomposed(0xac00), "\u1100\u1161");
  EXPECT_EQ(decomposed(0xac01), "\u1100\u1161\u11a8");
  EXPECT_EQ(decomposed(0xd7a3), "\u1112\u1175\u11c2");
  EXPECT_EQ(decomposed(0x10ffff), "\U0010ffff");
}

}  // namespace
}  // namespace fathom
