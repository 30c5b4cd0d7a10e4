#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "base/error.h"
#include "base/utf8.h"
#include "seed.h"
#include "tokens/tokenizer.h"
#include "train/sentence_piece/module.h"
#include "train/small_corpus.h"
#include "train/tokenizer_training.h"
#include "train/vocabulary_file.h"

namespace fathom::train {
namespace {

using namespace test;

std::vector<std::string> training_texts() {
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i)
    texts.push_back((i ? "\n" : "") + prose(i, 1) + " In 18" + std::to_string(i) + " it was caf\xc3\xa9 - 3,14.");
  return texts;
}

const std::string& trained_model() {
  static const std::string model =
      train_sentence_piece(training_texts(), {.vocabulary = 700, .character_coverage = 1});
  return model;
}

/// Returns a random text with prose, digits, runs of spaces and newlines, emoji, and characters of all planes.
std::string random_valid_text(std::mt19937& random) {
  static const std::vector<std::string> kParts = {" ",
                                                  "  ",
                                                  "\n",
                                                  "\n\n",
                                                  "\t",
                                                  "0",
                                                  "17",
                                                  "1984",
                                                  "3,14",
                                                  "the ",
                                                  "The",
                                                  " house",
                                                  "\xf0\x9f\x8c\x8a",
                                                  "caf\xc3\xa9",
                                                  "<0x41>",
                                                  "<unk>",
                                                  "<s>",
                                                  "</s>",
                                                  "...",
                                                  "\"",
                                                  "--",
                                                  "\xe6\x97\xa5\xe6\x9c\xac",
                                                  "\x01",
                                                  "$%"};
  std::string text;
  for (int parts = random() % 30; parts > 0; --parts) {
    if (random() % 4) {
      text += kParts[random() % kParts.size()];
    } else {
      uint32_t code_point = 1 + random() % (random() % 2 ? 0x7f : 0x10fffe);
      if ((code_point >= 0xd800 && code_point < 0xe000) || code_point == 0x2581) code_point = 'x';
      append_utf8(code_point, text);
    }
  }
  return text;
}

TEST(TokenizerTraining, TokenizerIdsEqualThoseOfSentencePiece) {
  const Tokenizer tokenizer(vocabulary_of_sentence_piece(trained_model()));
  std::mt19937 random(test::seed(1));
  std::vector<std::string> texts{prose(1000, 5), "", " ", "a", "1234567890", "x  y   z", "\xf0\x9f\xa6\x99"};
  for (int i = 0; i < 5000; ++i) texts.push_back(random_valid_text(random));
  for (std::string& text : texts) {
    // unlike Fathom, SentencePiece also adds its space before a newline at the beginning of a text
    while (text.starts_with('\n')) text.erase(0, 1);
  }
  std::vector<std::vector<int32_t>> peer;
  ASSERT_EQ(sentence_piece_module().encode(trained_model(), texts, peer), "");
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::vector<int32_t> ids = tokenizer.encode(texts[i], {.add_bos_eos = false});
    ASSERT_EQ(ids, peer[i]) << texts[i];
    ASSERT_EQ(tokenizer.decode(ids), texts[i]);
  }
}

TEST(TokenizerTraining, PiecesHaveTheDocumentedTypes) {
  const Vocabulary v = vocabulary_of_sentence_piece(trained_model());
  ASSERT_EQ(v.size(), 700);
  EXPECT_EQ(v.type(0), TokenType::kUnknown);
  EXPECT_EQ(v.pieces[1], "<s>");
  EXPECT_EQ(v.pieces[2], "</s>");
  std::map<TokenType, int> counts;
  std::set<std::string> pieces;
  for (int32_t id = 0; id < v.size(); ++id) {
    const std::string& piece = v.pieces[id];
    EXPECT_TRUE(pieces.insert(piece).second) << piece;
    ++counts[v.type(id)];
    if (v.type(id) != TokenType::kNormal) continue;
    EXPECT_EQ(piece.find('\n'), std::string::npos);
    const bool digit = piece.find_first_of("0123456789") != std::string::npos;
    EXPECT_TRUE(!digit || piece.size() == 1) << piece;
    EXPECT_TRUE(piece.find(kSpaceMark, 1) == std::string::npos ||
                piece.find_first_not_of(kSpaceMark) == std::string::npos)
        << piece;
  }
  EXPECT_EQ(counts[TokenType::kByte], 256);
  EXPECT_EQ(counts[TokenType::kControl], 2);
  EXPECT_EQ(counts[TokenType::kUserDefined], 1);
  EXPECT_TRUE(pieces.contains("\n"));
}

TEST(TokenizerTraining, SameTextsGiveTheSameModel) {
  EXPECT_EQ(train_sentence_piece(training_texts(), {.vocabulary = 700, .character_coverage = 1}), trained_model());
}

TEST(TokenizerTraining, WrittenVocabularyIsReadBack) {
  const Vocabulary v = vocabulary_of_sentence_piece(trained_model());
  GgufWriter writer;
  write_vocabulary(writer, v);
  const std::vector<std::byte> bytes = writer.bytes();
  const Gguf file = Gguf::parse(bytes, "memory");
  const Vocabulary back = Vocabulary::read(file);
  EXPECT_EQ(back.kind, v.kind);
  EXPECT_EQ(back.pieces, v.pieces);
  EXPECT_EQ(back.scores, v.scores);
  EXPECT_EQ(back.types, v.types);
  EXPECT_EQ(back.bos, v.bos);
  EXPECT_EQ(back.eos, v.eos);
  EXPECT_EQ(back.unknown, v.unknown);
  EXPECT_EQ(back.add_bos, v.add_bos);
  EXPECT_EQ(back.add_eos, v.add_eos);
  EXPECT_EQ(back.add_space_prefix, v.add_space_prefix);
  EXPECT_EQ(back.end_of_generation, v.end_of_generation);
  const std::string text = prose(7, 2) + "\n 12 \xf0\x9f\x8c\x8a";
  EXPECT_EQ(Tokenizer(back).encode(text), Tokenizer(v).encode(text));
}

TEST(TokenizerTraining, TooManyOrTooFewPiecesAreErrors) {
  EXPECT_THROW(train_sentence_piece({}, {}), Error);
  EXPECT_THROW(train_sentence_piece({"abc"}, {.vocabulary = 260}), Error);
  EXPECT_THROW(train_sentence_piece({"abc abd"}, {.vocabulary = 5000}), Error);
  EXPECT_THROW(train_sentence_piece(training_texts(), {.vocabulary = 262, .character_coverage = 1}), Error);
  EXPECT_THROW(vocabulary_of_sentence_piece("this is no model"), Error);
}

TEST(SampleParagraphs, ReturnsTheWholeCorpusIfItFits) {
  const TestFolder folder;
  const std::string text = "one\n\ntwo  words\nthree\n";
  write_text(folder.path("a.txt"), text);
  const std::vector<std::string> paragraphs = sample_paragraphs(Corpus(folder.path()), 1 << 20, 1);
  std::string joined;
  for (const std::string& paragraph : paragraphs) joined += paragraph;
  EXPECT_EQ(joined, text);
  EXPECT_EQ(paragraphs[1], "\n\ntwo  words");
}

TEST(SampleParagraphs, LongParagraphsAreCutAtSpacesOrBetweenCharacters) {
  const TestFolder folder;
  std::string words, unbroken;
  while (words.size() < 20000) words += "word ";
  while (unbroken.size() < 20000) unbroken += "\xe6\x97\xa5";
  write_text(folder.path("a.txt"), words + "\n" + unbroken);
  for (const std::string& paragraph : sample_paragraphs(Corpus(folder.path()), 1 << 20, 1)) {
    EXPECT_LE(paragraph.size(), 4096);
    EXPECT_EQ(utf8_valid_prefix(paragraph), paragraph.size());
    EXPECT_EQ(paragraph.find(" ord"), std::string::npos);
  }
}

TEST(SampleParagraphs, SampleDependsOnTheSeedOnlyAndKeepsTheLimit) {
  const TestFolder folder;
  NamedTexts documents;
  for (int i = 0; i < 20; ++i) documents.emplace_back("d" + std::to_string(i) + ".txt", prose(i, 40, 20));
  write_archive(folder.path("a.tar"), documents);
  std::ranges::reverse(documents);
  write_archive(folder.path("b.tar.gz"), documents);
  const Corpus a(folder.path("a.tar")), b(folder.path("b.tar.gz"));
  const std::vector<std::string> sample = sample_paragraphs(a, 20000, 3);
  EXPECT_EQ(sample, sample_paragraphs(b, 20000, 3));
  EXPECT_NE(sample, sample_paragraphs(a, 20000, 4));
  size_t bytes = 0;
  for (const std::string& paragraph : sample) bytes += paragraph.size();
  EXPECT_LE(bytes, 20000);
  EXPECT_GE(bytes, 19000);
}

}  // namespace
}  // namespace fathom::train
