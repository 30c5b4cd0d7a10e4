#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "train/corpus.h"
#include "train/error_text.h"
#include "train/small_corpus.h"

namespace fathom::train {
namespace {

using namespace test;

std::string reading_error(const std::string& path, CorpusOptions options = {}) {
  return error_of([&] { documents_of(Corpus(path, options)); });
}

void expect_names(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks " << part;
}

TEST(Corpus, FolderGivesItsTextFilesInOrderOfNames) {
  const TestFolder folder;
  write_text(folder.path("b.txt"), "two");
  write_text(folder.path("a/z.md"), "one");
  write_text(folder.path("c.txt"), "three");
  write_text(folder.path("picture.png"), "\xff\xd8");
  write_text(folder.path("nothing.txt"), "");
  EXPECT_EQ(documents_of(Corpus(folder.path())),
            (NamedTexts{{"a/z.md", "one"}, {"b.txt", "two"}, {"c.txt", "three"}}));
}

TEST(Corpus, ArchiveGivesItsTextEntriesForEveryCompression) {
  const TestFolder folder;
  const std::string large = prose(1, 20000 / 120, 600);
  for (const char* name : {"books.tar", "books.tar.gz", "books.tar.zst"}) {
    SCOPED_TRACE(name);
    write_archive(folder.path(name), {{"books/", ""},
                                      {"books/large.txt", large},
                                      {"books/caf\xc3\xa9.md", "small"},
                                      {"books/picture.png", "\xff\xd8"}});
    EXPECT_EQ(documents_of(Corpus(folder.path(name))),
              (NamedTexts{{"books/large.txt", large}, {"books/caf\xc3\xa9.md", "small"}}));
  }
}

TEST(Corpus, LineEndingsAreNormalised) {
  const TestFolder folder;
  write_text(folder.path("dos.txt"), "\xef\xbb\xbfone\r\ntwo\r\n\r\nthree\rfour");
  EXPECT_EQ(documents_of(Corpus(folder.path()))[0].second, "one\ntwo\n\nthree\nfour");
}

TEST(Corpus, FingerprintDependsOnTextsAndNamesOnly) {
  const TestFolder folder;
  write_text(folder.path("one/a.txt"), "alpha");
  write_text(folder.path("one/b.txt"), "beta");
  write_archive(folder.path("same.tar.zst"), {{"b.txt", "beta"}, {"a.txt", "alpha"}});
  write_archive(folder.path("text.tar"), {{"b.txt", "beta"}, {"a.txt", "alphb"}});
  write_archive(folder.path("name.tar"), {{"a.txt", "beta"}, {"b.txt", "alpha"}});
  const uint64_t one = Corpus(folder.path("one")).facts().fingerprint;
  EXPECT_EQ(one, Corpus(folder.path("same.tar.zst")).facts().fingerprint);
  EXPECT_NE(one, Corpus(folder.path("text.tar")).facts().fingerprint);
  EXPECT_NE(one, Corpus(folder.path("name.tar")).facts().fingerprint);
  EXPECT_EQ(Corpus(folder.path("one")).facts().documents, 2);
  EXPECT_EQ(Corpus(folder.path("one")).facts().bytes, 9);
}

TEST(Corpus, BadInputIsNamed) {
  const TestFolder folder;
  expect_names(error_of([&] { Corpus(folder.path("absent")); }), {"absent", "no such file"});
  write_text(folder.path("empty/picture.png"), "x");
  expect_names(reading_error(folder.path("empty")), {"empty", "no .txt"});
  write_archive(folder.path("empty.tar.zst"), {{"picture.png", "x"}});
  expect_names(reading_error(folder.path("empty.tar.zst")), {"empty.tar.zst", "no .txt"});
  write_archive(folder.path("bytes.tar.zst"), {{"good.txt", "good"}, {"bad.txt", "0123\xff"}});
  expect_names(reading_error(folder.path("bytes.tar.zst")), {"bytes.tar.zst", "bad.txt", "offset 4", "UTF-8"});
  write_archive(folder.path("nul.tar"), {{"nul.txt", std::string("ab\0c", 4)}});
  expect_names(reading_error(folder.path("nul.tar")), {"nul.tar", "nul.txt", "offset 2"});
  write_text(folder.path("latin/old.txt"), "caf\xe9");
  expect_names(reading_error(folder.path("latin")), {"latin", "old.txt", "offset 3"});
  write_text(folder.path("letter.tar.zst"), "Dear archive, this is a letter.");
  expect_names(reading_error(folder.path("letter.tar.zst")), {"letter.tar.zst", "tar archive"});
}

TEST(Corpus, HugeEntryIsNamed) {
  const TestFolder folder;
  const NamedTexts entries{{"small.txt", std::string(1000, 'a')}, {"huge.txt", std::string(1001, 'a')}};
  write_archive(folder.path("huge.tar.gz"), entries);
  write_text(folder.path("huge/huge.txt"), entries[1].second);
  expect_names(reading_error(folder.path("huge.tar.gz"), {.max_document_bytes = 1000}),
               {"huge.tar.gz", "huge.txt", "1000 B"});
  expect_names(reading_error(folder.path("huge"), {.max_document_bytes = 1000}), {"huge.txt", "1000 B"});
  EXPECT_EQ(documents_of(Corpus(folder.path("huge.tar.gz"), {.max_document_bytes = 1001})), entries);
}

TEST(Corpus, TruncatedArchivesAreErrorsAndGiveNoPartialDocuments) {
  const TestFolder folder;
  const NamedTexts entries{{"a.txt", prose(1, 3)}, {"b.txt", prose(2, 3)}};
  for (const std::string ending : {".tar.gz", ".tar.zst"}) {
    write_archive(folder.path("whole" + ending), entries);
    const std::string whole = read_bytes(folder.path("whole" + ending));
    for (size_t bytes = 1; bytes < whole.size() - 8; bytes += whole.size() / 23) {
      SCOPED_TRACE(ending + " cut at " + std::to_string(bytes));
      write_text(folder.path("cut" + ending), whole.substr(0, bytes));
      NamedTexts visited;
      const Corpus corpus(folder.path("cut" + ending));
      const std::string error = error_of([&] {
        corpus.for_each([&](const Document& document) { visited.emplace_back(document.name, document.text); });
      });
      expect_names(error, {"cut" + ending});
      for (size_t i = 0; i < visited.size(); ++i) EXPECT_EQ(visited[i], entries[i]);
    }
  }
}

}  // namespace
}  // namespace fathom::train
