#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "tokens/vocabularies.h"
#include "train/small_corpus.h"
#include "train/token_store.h"

namespace fathom::train {
namespace {

using namespace test;

std::vector<int32_t> ids_of(const TokenStore& store, int64_t document) {
  std::vector<int32_t> ids(store.length(document));
  store.copy(document, 0, ids);
  return ids;
}

/// Returns a vocabulary of byte tokens and `unused` further pieces.
Vocabulary byte_vocabulary(int unused) {
  std::vector<std::string> pieces;
  for (int i = 0; i < unused; ++i) pieces.push_back("unused" + std::to_string(i));
  return sentence_pieces(pieces);
}

TEST(TokenStore, DocumentsAreTheirTokensAndEosSortedByName) {
  for (const int unused : {10, 70000}) {
    SCOPED_TRACE(unused);
    const TestFolder folder;
    const Tokenizer tokenizer(byte_vocabulary(unused));
    const NamedTexts texts{{"b.txt", prose(2, 3)}, {"c.txt", "x"}, {"a.txt", prose(1, 2)}};
    write_archive(folder.path("books.tar"), texts);
    const TokenStore store = tokenize_corpus(Corpus(folder.path("books.tar")), tokenizer, folder.path("ids"));
    ASSERT_EQ(store.documents(), 3);
    EXPECT_EQ(store.vocabulary(), tokenizer.size());
    const std::string* by_name[] = {&texts[2].second, &texts[0].second, &texts[1].second};
    int64_t tokens = 0;
    for (int64_t i = 0; i < 3; ++i) {
      std::vector<int32_t> expected = tokenizer.encode(*by_name[i], {.add_bos_eos = false});
      expected.push_back(2);
      EXPECT_EQ(ids_of(store, i), expected);
      tokens += std::ssize(expected);
      std::vector<int32_t> part(1);
      store.copy(i, 1, part);
      EXPECT_EQ(part[0], expected[1]);
    }
    EXPECT_EQ(store.tokens(), tokens);
  }
}

TEST(TokenStore, IsRebuiltOnlyWhenCorpusOrVocabularyChanges) {
  const TestFolder folder;
  write_text(folder.path("books/a.txt"), "alpha");
  const Corpus corpus(folder.path("books"));
  const Tokenizer tokenizer(byte_vocabulary(1)), other(byte_vocabulary(2));
  const std::string path = folder.path("ids");
  const uint64_t key = tokenize_corpus(corpus, tokenizer, path).key();
  const auto written = std::filesystem::last_write_time(path) - std::chrono::hours(1);
  std::filesystem::last_write_time(path, written);
  EXPECT_EQ(tokenize_corpus(corpus, tokenizer, path).key(), key);
  EXPECT_EQ(std::filesystem::last_write_time(path), written);
  EXPECT_NE(tokenize_corpus(corpus, other, path).key(), key);
  EXPECT_NE(std::filesystem::last_write_time(path), written);
  write_text(folder.path("books/a.txt"), "alphabet");
  const TokenStore store = tokenize_corpus(corpus, tokenizer, path);
  EXPECT_NE(store.key(), key);
  EXPECT_EQ(ids_of(store, 0).size(), 1 + 8 + 1);  // with the space before the text and EOS
}

TEST(TokenStore, DamagedFilesAreErrors) {
  const TestFolder folder;
  write_text(folder.path("books/a.txt"), prose(1, 2));
  const Tokenizer tokenizer(byte_vocabulary(1));
  tokenize_corpus(Corpus(folder.path("books")), tokenizer, folder.path("ids"));
  const std::string whole = read_bytes(folder.path("ids"));
  for (size_t bytes = 0; bytes < whole.size(); bytes += bytes < 64 ? 1 : 97) {
    write_text(folder.path("cut"), whole.substr(0, bytes));
    EXPECT_THROW(TokenStore::open(folder.path("cut")), Error) << bytes;
  }
  for (size_t at = 0; at < whole.size(); at += at < 64 ? 1 : 97) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x90);
    write_text(folder.path("damaged"), damaged);
    EXPECT_THROW(TokenStore::open(folder.path("damaged")), Error) << at;
  }
}

}  // namespace
}  // namespace fathom::train
