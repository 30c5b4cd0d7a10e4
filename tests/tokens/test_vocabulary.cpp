#include "tokens/vocabulary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/error.h"
#include "random_text.h"
#include "seed.h"
#include "vocabularies.h"

namespace fathom {
namespace {

GgufWriter small_file() {
  GgufWriter file;
  file.set_string("tokenizer.ggml.model", "llama");
  file.set_strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "<0x0A>", "▁a", "<end_of_turn>", "\n"});
  file.set_floats("tokenizer.ggml.scores", {0, 0, 0, 0, -1, 0, 0});
  file.set_integers("tokenizer.ggml.token_type", {2, 3, 3, 6, 1, 3, 4});
  return file;
}

Vocabulary read(const GgufWriter& file) {
  const std::vector<std::byte> bytes = file.bytes();
  return Vocabulary::read(Gguf::parse(bytes, "small.gguf"));
}

TEST(Vocabulary, ReadsPiecesTypesAndDefaultsOfTheKind) {
  const Vocabulary vocabulary = read(small_file());
  EXPECT_EQ(vocabulary.kind, VocabularyKind::kSentencePiece);
  EXPECT_EQ(vocabulary.pieces[4], "▁a");
  EXPECT_EQ(vocabulary.score(4), -1.0f);
  EXPECT_EQ(vocabulary.type(6), TokenType::kUserDefined);
  EXPECT_EQ(vocabulary.bos, 1);
  EXPECT_TRUE(vocabulary.add_bos);
  EXPECT_FALSE(vocabulary.add_eos);
  EXPECT_TRUE(vocabulary.add_space_prefix);
  EXPECT_EQ(vocabulary.end_of_generation, (std::vector<int32_t>{2, 5}));
}

TEST(Vocabulary, KeysOfTheFileOverrideDefaults) {
  GgufWriter file = small_file();
  file.set("tokenizer.ggml.bos_token_id", GgufType::kU32, uint64_t{5});
  file.set("tokenizer.ggml.eot_token_id", GgufType::kU32, uint64_t{6});
  file.set("tokenizer.ggml.add_bos_token", GgufType::kBool, false);
  file.set("tokenizer.ggml.add_space_prefix", GgufType::kBool, false);
  file.set_string("tokenizer.chat_template", "{{ messages }}");
  const Vocabulary vocabulary = read(file);
  EXPECT_EQ(vocabulary.bos, 5);
  EXPECT_FALSE(vocabulary.add_bos);
  EXPECT_FALSE(vocabulary.add_space_prefix);
  EXPECT_EQ(vocabulary.end_of_generation, (std::vector<int32_t>{2, 5, 6}));
  EXPECT_EQ(vocabulary.chat_template, "{{ messages }}");
}

TEST(Vocabulary, OutlivesItsFile) {
  Vocabulary vocabulary;
  {
    const std::vector<std::byte> bytes = small_file().bytes();
    vocabulary = Vocabulary::read(Gguf::parse(bytes, "small.gguf"));
  }
  EXPECT_EQ(Tokenizer(vocabulary).decode(std::vector<int32_t>{4}), "a");
}

struct InvalidFile {
  const char* expected;  // part of the message
  std::function<void(GgufWriter&)> corrupt;
};

TEST(Vocabulary, InvalidFilesAreErrorsThatNameTheKey) {
  const InvalidFile cases[] = {
      {"tokenizer.ggml.scores",
       [](GgufWriter& f) {
         f.set_floats("tokenizer.ggml.scores", {0, 0});
       }},
      {"tokenizer.ggml.scores",
       [](GgufWriter& f) {
         f.set_floats("tokenizer.ggml.scores", {0, 0, 0, 0, NAN, 0, 0});
       }},
      {"tokenizer.ggml.token_type", [](GgufWriter& f) { f.set_integers("tokenizer.ggml.token_type", {1}); }},
      {"tokenizer.ggml.token_type",
       [](GgufWriter& f) {
         f.set_integers("tokenizer.ggml.token_type", {2, 3, 3, 6, 7, 3, 4});
       }},
      {"tokenizer.ggml.token_type",
       [](GgufWriter& f) {
         f.set_integers("tokenizer.ggml.token_type", {2, 3, 3, 6, -1, 3, 4});
       }},
      {"of type byte",
       [](GgufWriter& f) {
         f.set_integers("tokenizer.ggml.token_type", {2, 3, 3, 6, 6, 3, 4});
       }},
      {"tokenizer.ggml.model", [](GgufWriter& f) { f.set_string("tokenizer.ggml.model", "runes"); }},
      {"bos_token_id", [](GgufWriter& f) { f.set("tokenizer.ggml.bos_token_id", GgufType::kU32, uint64_t{7}); }},
      {"eos_token_id",
       [](GgufWriter& f) { f.set("tokenizer.ggml.eos_token_id", GgufType::kU32, uint64_t{0xffffffff}); }},
      {"eom_token_id", [](GgufWriter& f) { f.set("tokenizer.ggml.eom_token_id", GgufType::kI32, int64_t{-2}); }},
      {"tokenizer.ggml.tokens", [](GgufWriter& f) { f.set("tokenizer.ggml.tokens", GgufType::kU32, uint64_t{3}); }},
      {"precompiled_charsmap",
       [](GgufWriter& f) {
         f.set_integers("tokenizer.ggml.precompiled_charsmap", {1, 2});
       }},
      {"tokenizer.ggml.pre",
       [](GgufWriter& f) {
         f.set_string("tokenizer.ggml.model", "gpt2");
         f.set_string("tokenizer.ggml.pre", "no-such");
       }},
      {"expected at most",
       [](GgufWriter& f) {
         f.set_strings("tokenizer.ggml.tokens", {"a", "b", "c", "<0x0A>", std::string(5000, 'x'), "d", "e"});
       }},
      {"add_bos_token",
       [](GgufWriter& f) {
         f.set_string("tokenizer.ggml.model", "gpt2");
         f.set("tokenizer.ggml.add_bos_token", GgufType::kBool, true);
       }},
  };
  for (const InvalidFile& invalid : cases) {
    GgufWriter file = small_file();
    invalid.corrupt(file);
    try {
      read(file);
      ADD_FAILURE() << "expected an error about " << invalid.expected;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(invalid.expected), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("small.gguf"), std::string::npos) << error.what();
    }
  }
}

TEST(Vocabulary, FileWithoutVocabularyIsAnError) {
  GgufWriter file;
  file.set_string("general.architecture", "llama");
  EXPECT_THROW(read(file), Error);
  file.set_string("tokenizer.ggml.model", "llama");
  EXPECT_THROW(read(file), Error);
  file.set_strings("tokenizer.ggml.tokens", {});
  EXPECT_THROW(read(file), Error);
}

TEST(Vocabulary, DuplicateAndEmptyPiecesAreHarmless) {
  Vocabulary vocabulary = test::sentence_pieces({"▁", "a", "a", "", "aa", "aa"}, false);
  const Tokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("aaa a")), "aaa a");
  EXPECT_EQ(tokenizer.encode("a", test::kPlain), (std::vector<int32_t>{3 + 256 + 1}));
}

TEST(Vocabulary, RandomTypesAndScoresNeverBreakEncoding) {
  std::mt19937 random(test::seed(1));
  for (int trial = 0; trial < 300; ++trial) {
    Vocabulary vocabulary = test::sentence_pieces({"▁", "a", "b", "ab", "▁a", "b▁", "\xff\xfe", "é"}, random() % 2);
    vocabulary.kind = static_cast<VocabularyKind>(random() % 4);
    vocabulary.pre = "gpt-2";
    const float scores[] = {-1, 0, 1e30f, -INFINITY, INFINITY};
    for (int32_t id = 3 + 256; id < vocabulary.size(); ++id) {
      vocabulary.types[id] = static_cast<TokenType>(1 + random() % 5);
      vocabulary.scores[id] = scores[random() % 5];
    }
    const Tokenizer tokenizer(vocabulary);
    for (int i = 0; i < 10; ++i) {
      const auto ids = tokenizer.encode(test::random_text(random), {.parse_special = random() % 2 == 0});
      EXPECT_NO_THROW(tokenizer.decode(ids, true));
    }
  }
}

}  // namespace
}  // namespace fathom
