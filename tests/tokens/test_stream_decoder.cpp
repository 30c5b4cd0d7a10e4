#include <gtest/gtest.h>

#include "vocabularies.h"

namespace fathom {
namespace {

TEST(StreamDecoder, CharactersAreHeldBackUntilComplete) {
  const Tokenizer tokenizer(test::byte_level({}));
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.add(0xf0), "");
  EXPECT_EQ(decoder.add(0x9f), "");
  EXPECT_EQ(decoder.add(0xa6), "");
  EXPECT_EQ(decoder.add(0x99), "\xf0\x9f\xa6\x99");
  EXPECT_EQ(decoder.add('a'), "a");
  EXPECT_EQ(decoder.flush(), "");
}

TEST(StreamDecoder, InvalidBytesAreReturnedUnchanged) {
  const Tokenizer tokenizer(test::byte_level({}));
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.add(0xff), "\xff");
  EXPECT_EQ(decoder.add(0xe2), "");
  EXPECT_EQ(decoder.add('x'), "\xe2x");
  EXPECT_EQ(decoder.add(0xe2), "");
  EXPECT_EQ(decoder.add(0xc3), "\xe2");
  EXPECT_EQ(decoder.flush(), "\xc3");
  EXPECT_EQ(decoder.flush(), "");
}

TEST(StreamDecoder, LeadingSpaceIsTextWhenTheTokensContinue) {
  const Vocabulary vocabulary = test::sentence_pieces({"▁a"});
  const Tokenizer tokenizer(vocabulary);
  const int32_t a = vocabulary.size() - 1;
  EXPECT_EQ(StreamDecoder(tokenizer).add(a), "a");
  EXPECT_EQ(StreamDecoder(tokenizer, false, true).add(a), " a");
}

TEST(StreamDecoder, SpecialTokensAreShownOnlyWithShowSpecial) {
  const Vocabulary vocabulary = test::byte_level({});
  const Tokenizer tokenizer(vocabulary);
  EXPECT_EQ(StreamDecoder(tokenizer).add(vocabulary.eos), "");
  EXPECT_EQ(StreamDecoder(tokenizer, true).add(vocabulary.eos), "<|end|>");
}

}  // namespace
}  // namespace fathom
