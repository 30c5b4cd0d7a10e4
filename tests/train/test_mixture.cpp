#include <gtest/gtest.h>

#include "base/error.h"
#include "tokens/vocabularies.h"
#include "train/mixture.h"
#include "train/small_corpus.h"
#include "train/training_tasks.h"

namespace fathom::train {
namespace {

using namespace test;

/// Books of generated prose, tokenized with byte tokens and a few pieces.
struct BookStore {
  BookStore() {
    NamedTexts texts;
    for (int i = 0; i < 12; ++i) texts.emplace_back(std::to_string(i) + ".txt", prose(i, 3 + i % 4));
    write_archive(folder.path("books.tar"), texts);
    store.emplace(tokenize_corpus(Corpus(folder.path("books.tar")), tokenizer, folder.path("ids")));
  }
  Mixture mixture(MixtureOptions options, uint64_t seed = 1) const {
    std::vector<TaskKind> sources;
    for (const auto& task : training_tasks()) sources.push_back({task, 1.0});
    return Mixture(
        *store, tokenizer, sources,
        {.min_level = 9, .max_level = 11, .batch_tokens = 8192, .cycles = 2, .spread = true, .seed = seed},
        options);
  }
  TestFolder folder;
  Tokenizer tokenizer{sentence_pieces({"\xe2\x96\x81t", "he", "\xe2\x96\x81the", "in", "er", "an",
                                       "\xe2\x96\x81"
                                       "a"})};
  std::optional<TokenStore> store;
};

bool same(const Batch& a, const Batch& b) {
  return a.sequences == b.sequences && a.length == b.length && a.tokens == b.tokens && a.weights == b.weights;
}

TEST(Mixture, BatchesHaveTheSameTokensAndRowsBeginWithBos) {
  const BookStore book_store;
  Mixture mixture = book_store.mixture({.task_share = 0.5});
  for (int64_t step = 0; step < mixture.steps_per_epoch(); ++step) {
    const Batch batch = mixture.batch(step);
    ASSERT_EQ(batch.sequences * batch.length, 8192);
    ASSERT_EQ(batch.tokens.size(), 8192 + batch.sequences);
    ASSERT_EQ(batch.weights.size(), 8192);
    for (int64_t row = 0; row < batch.sequences; ++row) ASSERT_EQ(batch.tokens[row * (batch.length + 1)], 1);
    ASSERT_EQ(std::count(batch.tokens.begin(), batch.tokens.end(), 1), batch.sequences);
  }
}

TEST(Mixture, ShareOfTasksIsExactAndBooksHaveFullWeight) {
  const BookStore book_store;
  Mixture half = book_store.mixture({.task_share = 0.5, .weights = {3, 0.25}});
  Mixture none = book_store.mixture({.task_share = 0});
  for (int64_t step = 0; step < 5; ++step) {
    const Batch batch = half.batch(step);
    const auto books = batch.weights.begin() + 4096;
    EXPECT_EQ(std::count(batch.weights.begin(), books, 1.0f), 4096);
    EXPECT_EQ(std::count(books, batch.weights.end(), 1.0f), 0);
    EXPECT_GT(std::count(books, batch.weights.end(), 3.0f), 0);
    const Batch plain = none.batch(step);
    EXPECT_EQ(std::count(plain.weights.begin(), plain.weights.end(), 1.0f), 8192);
  }
}

TEST(Mixture, TasksFillTheirRows) {
  const BookStore book_store;
  Mixture mixture = book_store.mixture({.task_share = 0.75});
  int64_t rows = 0, empty = 0;
  for (int64_t step = 0; step < mixture.steps_per_epoch(); ++step) {
    const Batch batch = mixture.batch(step);
    rows += batch.sequences * 3 / 4;
    empty += std::count(batch.weights.begin(), batch.weights.end(), 0.0f) * 4 / batch.length;
  }
  EXPECT_LT(empty, rows * 4 / 8);  // an eighth of them
}

TEST(Mixture, BatchesDependOnStepAndSeedOnly) {
  const BookStore book_store;
  Mixture whole = book_store.mixture({.task_share = 0.25});
  for (int64_t step = 0; step < 2 * whole.steps_per_epoch(); step += 3) {
    const Batch batch = whole.batch(step);
    EXPECT_TRUE(same(book_store.mixture({.task_share = 0.25}).batch(step), batch));
    EXPECT_FALSE(same(book_store.mixture({.task_share = 0.25}, 2).batch(step), batch));
  }
}

TEST(Mixture, TokensOfAnswersHaveTheAnswerWeight) {
  const BookStore book_store;
  const TaskWeights weights{.answer = 2, .rest = 0.5};
  for (const auto& task : training_tasks()) {
    const auto source = [](eval::Rng&, int64_t) { return "The inn, then.\nAn \xf0\x9f\x8c\x8a eel. "; };
    const MarkedText marked = task->make(eval::Rng(1, "weights", 0, 0), source, 600);
    const WeightedIds row = weighted_ids(book_store.tokenizer, marked, weights);
    ASSERT_EQ(row.ids.size(), row.weights.size());
    EXPECT_EQ(row.ids.back(), 2);
    EXPECT_EQ(book_store.tokenizer.decode(row.ids), marked.text);
    EXPECT_EQ(row.weights.back(), weights.answer) << "EOS has the weight of an answer";
    std::string weighted, answers;
    for (size_t i = 0; i + 1 < row.ids.size(); ++i)
      if (row.weights[i] == 2) weighted += book_store.tokenizer.piece(row.ids[i]);
    for (const eval::TextSpan span : marked.answers)
      answers += marked.text.substr(span.begin, span.end - span.begin);
    // a piece may begin with the space before an answer
    std::erase(weighted, ' '), std::erase(answers, ' ');
    EXPECT_EQ(weighted, answers) << task->name();
  }
}

TEST(Mixture, ContradictoryOptionsAreErrors) {
  const BookStore book_store;
  EXPECT_THROW(book_store.mixture({.task_share = 0.01}), Error);
  EXPECT_THROW(book_store.mixture({.task_share = 0.99}), Error);
  EXPECT_THROW(book_store.mixture({.task_share = -1}), Error);
  const DecompositionOptions decomposition{.min_level = 9, .max_level = 11, .batch_tokens = 8192};
  EXPECT_THROW(Mixture(*book_store.store, book_store.tokenizer, {}, decomposition, {.task_share = 0.5}), Error);
  const Tokenizer other(sentence_pieces({"he"}));
  EXPECT_THROW(Mixture(*book_store.store, other, {}, decomposition, {}), Error);
}

}  // namespace
}  // namespace fathom::train
