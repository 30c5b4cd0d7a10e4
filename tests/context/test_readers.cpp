#include <gtest/gtest.h>

#include "base/error.h"
#include "context/segments.h"
#include "kernels/watched_kernels.h"
#include "small_reader.h"

namespace fathom {
namespace {

using test::kQuestion;
using test::long_text;
using Readers = test::SmallReader;

TEST(Sentences, JoinedTheyAreTheText) {
  const std::string text =
      "One is here. Two? Yes! And a line\nthat breaks:\n\nthen 3.14 of it… 全角文はこれです。もう一つの文です？ "
      "end";
  const std::vector<std::string_view> sentences = sentences_of(text);
  EXPECT_GT(sentences.size(), 4u);
  std::string joined;
  for (const std::string_view sentence : sentences) joined += sentence;
  EXPECT_EQ(joined, text);
  for (size_t i = 0; i + 1 < sentences.size(); ++i) EXPECT_GE(sentences[i].size(), 5u) << sentences[i];
  EXPECT_TRUE(sentences_of("").empty());
  EXPECT_EQ(sentences_of("no mark at all").size(), 1u);
  EXPECT_EQ(sentences_of("....!!!").size(), 1u);
}

const std::string kAll[] = {"infiniretri", "infiniretri:chunk=400,topk=50", "xl3m", "xl3m:chunk=200,by=mean"};

TEST_F(Readers, ATextThatFitsIsReturnedUnchanged) {
  const std::string text = long_text(6, 3);
  for (const std::string& spec : kAll)
    EXPECT_EQ(read_methods().make(spec)->read(text, kQuestion, reader_context()), text);
  EXPECT_EQ(read_methods().make("xl3m")->read("", kQuestion, reader_context()), "");
  EXPECT_EQ(read_methods().make("whole"), nullptr);
}

TEST_F(Readers, TheResultFitsAndConsistsOfSentencesInOrder) {
  const std::string text = long_text(150, 70);
  for (const std::string& spec : kAll) {
    SCOPED_TRACE(spec);
    const std::string kept = read_methods().make(spec)->read(text, kQuestion, reader_context());
    EXPECT_GT(kept.size(), 0u);
    EXPECT_LE(count(kept) + count(kQuestion), 1024);
    size_t at = 0;
    for (const std::string_view sentence : sentences_of(kept)) {
      const size_t found = text.find(sentence, at);
      ASSERT_NE(found, std::string::npos) << sentence;
      at = found + sentence.size();
    }
    EXPECT_GE(read_, count(text)) << "the whole text was read";
    EXPECT_LE(read_, 4 * count(text));
    EXPECT_EQ(read_methods().make(spec)->read(text, kQuestion, reader_context()), kept);
  }
}

TEST_F(Readers, UseOnlyTheKernelsOfTheirSessions) {
  const std::string text = long_text(60, 30);
  for (const std::string spec : {"gemfilter:budget=200", "gemfilter:budget=200,by=attention",
                                 "infiniretri:chunk=400,topk=50", "xl3m:chunk=200"}) {
    SCOPED_TRACE(spec);
    const std::string expected = read_methods().make(spec)->read(text, kQuestion, reader_context());
    const Kernels own = kernels();
    const auto runtime = std::make_shared<Runtime>(2, own);
    ReaderContext custom = reader_context();
    custom.session = [&](int layers) { return Session(model_, runtime, {.layers = layers}); };
    const test::WatchedKernels watched;
    EXPECT_EQ(read_methods().make(spec)->read(text, kQuestion, custom), expected);
    EXPECT_EQ(watched.calls(), 0) << "calls through the process-wide table";
  }
}

TEST_F(Readers, TheFactIsKeptAndMostOfTheRestIsNot) {
  for (const auto& [spec, min_found] : {std::pair("infiniretri", 6), std::pair("xl3m:chunk=256", 6)}) {
    int found = 0;
    for (int depth = 0; depth < 10; ++depth) {
      const std::string text = long_text(200, depth * 20 + 5);  // as long as five windows
      const std::string kept = read_methods().make(spec)->read(text, kQuestion, reader_context());
      found += kept.find("483920") != std::string::npos;
      EXPECT_LT(kept.size(), text.size() / 3);  // a random choice would keep the fact in fewer than 4 of 10 texts
    }
    EXPECT_GE(found, min_found) << spec;
  }
}

TEST_F(Readers, AnyBytesAreReadAndAQuestionTooLongIsAnError) {
  std::string bytes(2500, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7919 >> 3);
  const std::string one_word(4000, 'x');
  for (const std::string& spec : kAll) {
    const auto reader = read_methods().make(spec);
    for (const std::string& text : {bytes, one_word}) {
      const std::string kept = reader->read(text, kQuestion, reader_context());
      EXPECT_LE(count(kept) + count(kQuestion), 1024) << spec;
    }
    try {
      reader->read(one_word, long_text(100, 1), reader_context());
      FAIL() << spec;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("the question has"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(read_methods().make("xl3m:chunk=512,budget=500"), Error);
  EXPECT_THROW(read_methods().make("infiniretri:topk=0"), Error);
}

}  // namespace
}  // namespace fathom
