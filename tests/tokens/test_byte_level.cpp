#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/gguf.h"
#include "random_text.h"
#include "shared_data.h"
#include "tokens/pretokenizer.h"
#include "vocabularies.h"

namespace fathom {
namespace {

using test::byte_level;
using test::kPlain;
using test::pieces_of;

TEST(ByteLevel, PairsMergeByRankInsideWords) {
  const Tokenizer tokenizer(byte_level({{"b", "c"}, {"a", "b"}, {" ", "a"}, {"c", " "}}));
  EXPECT_EQ(pieces_of(tokenizer, "abc"), "a|bc");
  EXPECT_EQ(pieces_of(tokenizer, "ab"), "ab");
  EXPECT_EQ(pieces_of(tokenizer, "c a"), "c| a");  // "c " would cross a word boundary
}

TEST(ByteLevel, MergesThatNameNoTokenAreIgnored) {
  Vocabulary vocabulary = byte_level({{"a", "b"}});
  vocabulary.merges.insert(vocabulary.merges.begin(), {"x y", "ab c", "\xff\xff z"});
  EXPECT_EQ(pieces_of(Tokenizer(vocabulary), "xyabc"), "x|y|ab|c");
}

TEST(ByteLevel, MergeWithoutTwoPartsIsAnError) {
  for (const char* merge : {"", "ab", " ", "a ", " a"}) {
    Vocabulary vocabulary = byte_level({});
    vocabulary.merges = {merge};
    EXPECT_THROW(Tokenizer{vocabulary}, Error) << merge;
  }
}

TEST(ByteLevel, AWordThatIsAPieceIsOneTokenWhereMergesAreIgnored) {
  for (const bool ignored : {true, false}) {
    Vocabulary vocabulary = byte_level({{"h", "e"}}, ignored ? "llama-bpe" : "qwen2");
    test::add_piece(vocabulary, "hey", 0, TokenType::kNormal);
    EXPECT_EQ(pieces_of(Tokenizer(vocabulary), "hey"), ignored ? "hey" : "he|y");
  }
}

TEST(ByteLevel, UnknownPretokenizerIsAnErrorThatListsKnownNames) {
  try {
    Tokenizer tokenizer(byte_level({}, "qwen3000"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'qwen3000'"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("qwen2"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("llama-bpe"), std::string::npos);
  }
}

TEST(ByteLevel, BytesWithoutTokenAreUnknownOrAnError) {
  Vocabulary vocabulary = byte_level({});
  vocabulary.types['q'] = TokenType::kUnused;
  EXPECT_THROW(Tokenizer(vocabulary).encode("q"), Error);
  vocabulary.unknown = vocabulary.eos;
  EXPECT_EQ(Tokenizer(vocabulary).encode("q"), (std::vector<int32_t>{vocabulary.eos}));
}

TEST(ByteLevel, ControlTextIsATokenOnlyWithParseSpecial) {
  const Vocabulary vocabulary = byte_level({});
  const Tokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.encode("a<|end|>", {.add_bos_eos = false, .parse_special = true}),
            (std::vector<int32_t>{'a', vocabulary.eos}));
  EXPECT_EQ(tokenizer.encode("a<|end|>", kPlain).size(), 8u);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{'a', vocabulary.eos}), "a");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{'a', vocabulary.eos}, true), "a<|end|>");
}

TEST(ByteLevel, BosAndEosAreAddedWhereTheVocabularyRequiresThem) {
  Vocabulary vocabulary = byte_level({});
  vocabulary.bos = vocabulary.eos;
  vocabulary.add_bos = vocabulary.add_eos = true;
  EXPECT_EQ(Tokenizer(vocabulary).encode("a"), (std::vector<int32_t>{vocabulary.eos, 'a', vocabulary.eos}));
}

TEST(ByteLevel, IdsOutsideTheVocabularyAreAnErrorThatNamesThem) {
  const Tokenizer tokenizer(byte_level({}));
  for (const int32_t id : {-1, tokenizer.size(), 1 << 30}) {
    try {
      tokenizer.decode(std::vector<int32_t>{id});
      FAIL();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(std::to_string(id)), std::string::npos) << error.what();
    }
  }
}

TEST(ByteLevel, AnyBytesRoundTripThroughEveryPretokenizer) {
  for (const PretokenizerInfo& info : pretokenizers()) {
    SCOPED_TRACE(info.names[0]);
    test::expect_round_trips(
        Tokenizer(byte_level({{"a", "b"}, {" ", "a"}, {"\n", "\n"}}, std::string(info.names[0]))));
  }
}

TEST(ByteLevel, AnyBytesRoundTripThroughStoredVocabularies) {
  for (const char* name : {"golden/tiny-qwen2-f16.gguf", "thirdparty/tokenizers/ggml-vocab-gpt-2.gguf"}) {
    const std::string path = test::shared_path(name);
    FATHOM_NEEDS(path);
    const Tokenizer tokenizer(Vocabulary::read(Gguf::open(path)));
    EXPECT_TRUE(tokenizer.ends_generation(tokenizer.vocabulary().eos));
    test::expect_round_trips(tokenizer);
  }
}

TEST(ByteLevel, LongRepetitiveTextsRoundTripThroughEveryPretokenizer) {
  for (const PretokenizerInfo& info : pretokenizers()) {
    SCOPED_TRACE(info.names[0]);
    test::expect_long_texts_round_trip(
        Tokenizer(byte_level({{"a", "a"}, {"aa", "aa"}}, std::string(info.names[0]))));
  }
}

}  // namespace
}  // namespace fathom
