#include <gtest/gtest.h>

#include "base/error.h"
#include "tokens/vocabularies.h"
#include "train/mixture.h"
#include "train/small_corpus.h"

namespace fathom::test {
namespace {

/// Books of made-up prose in byte tokens and a few pieces.
struct Shelf {
  Shelf() {
    NamedTexts texts;
    for (int i = 0; i < 12; ++i) texts.emplace_back(std::to_string(i) + ".txt", prose(i, 3 + i % 4));
    write_archive(folder.path("books.tar"), texts);
    store.emplace(tokenize_corpus(Corpus(folder.path("books.tar")), tokenizer, folder.path("ids")));
  }
  Mixture mixture(MixtureOptions options, uint64_t seed = 1) const {
    std::vector<Mixture::Source> sources;
    for (const auto& task : training_tasks()) sources.push_back({task, 1.0});
    return Mixture(
        *store, tokenizer, sources,
        {.least_level = 9, .most_level = 11, .batch_tokens = 8192, .cycles = 2, .spread = true, .seed = seed},
        options);
  }
  TestFolder folder;
  Tokenizer tokenizer{sentence_pieces({"\xe2\x96\x81t", "he", "\xe2\x96\x81the", "in", "er", "an",
                                       "\xe2\x96\x81"
                                       "a"})};
  std::optional<TokenStore> store;
};

bool same(const TrainingBatch& a, const TrainingBatch& b) {
  return a.rows == b.rows && a.length == b.length && a.inputs == b.inputs && a.targets == b.targets &&
         a.weights == b.weights;
}

TEST(Mixture, BatchesHaveTheSameTokensAndRowsBeginWithBos) {
  const Shelf shelf;
  Mixture mixture = shelf.mixture({.task_share = 0.5});
  for (int64_t step = 0; step < mixture.steps_per_epoch(); ++step) {
    const TrainingBatch batch = mixture.batch(step);
    ASSERT_EQ(batch.rows * batch.length, 8192);
    ASSERT_EQ(batch.inputs.size(), 8192);
    ASSERT_EQ(batch.targets.size(), 8192);
    ASSERT_EQ(batch.weights.size(), 8192);
    for (int64_t i = 0; i < 8192; ++i) ASSERT_EQ(batch.inputs[i], i % batch.length == 0 ? 1 : batch.targets[i - 1]);
  }
}

TEST(Mixture, ShareOfTasksIsExactAndBooksComeWhole) {
  const Shelf shelf;
  Mixture half = shelf.mixture({.task_share = 0.5, .answer_weight = 3, .rest_weight = 0.25});
  Mixture none = shelf.mixture({.task_share = 0});
  for (int64_t step = 0; step < 5; ++step) {
    const TrainingBatch batch = half.batch(step);
    const auto books = batch.weights.begin() + 4096;
    EXPECT_EQ(std::count(batch.weights.begin(), books, 1.0f), 4096);
    EXPECT_EQ(std::count(books, batch.weights.end(), 1.0f), 0);
    EXPECT_GT(std::count(books, batch.weights.end(), 3.0f), 0);
    const TrainingBatch plain = none.batch(step);
    EXPECT_EQ(std::count(plain.weights.begin(), plain.weights.end(), 1.0f), 8192);
  }
}

TEST(Mixture, RowsOfTasksAreWellFilled) {
  const Shelf shelf;
  Mixture mixture = shelf.mixture({.task_share = 0.75});
  int64_t rows = 0, empty = 0;
  for (int64_t step = 0; step < mixture.steps_per_epoch(); ++step) {
    const TrainingBatch batch = mixture.batch(step);
    rows += batch.rows * 3 / 4;
    empty += std::count(batch.weights.begin(), batch.weights.end(), 0.0f) * 4 / batch.length;
  }
  EXPECT_LT(empty, rows * 4 / 8);  // an eighth of them
}

TEST(Mixture, ResumingAtAnyStepGivesTheSameBatchAndAnotherSeedAnother) {
  const Shelf shelf;
  Mixture whole = shelf.mixture({.task_share = 0.25});
  for (int64_t step = 0; step < 2 * whole.steps_per_epoch(); step += 3) {
    const TrainingBatch batch = whole.batch(step);
    EXPECT_TRUE(same(shelf.mixture({.task_share = 0.25}).batch(step), batch));
    EXPECT_FALSE(same(shelf.mixture({.task_share = 0.25}, 2).batch(step), batch));
  }
}

TEST(Mixture, WeightsAreThoseOfTheAnswersTokens) {
  const Shelf shelf;
  const MixtureOptions options{.answer_weight = 2, .rest_weight = 0.5};
  for (const auto& task : training_tasks()) {
    const auto source = [](Dice&, int64_t) { return "The inn, then.\nAn \xf0\x9f\x8c\x8a eel. "; };
    const MarkedText marked = task->make(Dice(1, "weights", 0, 0), source, 600);
    const WeightedIds row = weighted_ids(shelf.tokenizer, marked, options);
    ASSERT_EQ(row.ids.size(), row.weights.size());
    EXPECT_EQ(row.ids.back(), 2);
    EXPECT_EQ(shelf.tokenizer.decode(row.ids), marked.text);
    std::string weighed, answers;
    for (size_t i = 0; i < row.ids.size(); ++i)
      if (row.weights[i] == 2) weighed += shelf.tokenizer.piece(row.ids[i]);
    for (const TextSpan span : marked.answers) answers += marked.text.substr(span.begin, span.end - span.begin);
    // a piece may begin with the space before an answer
    std::erase(weighed, ' '), std::erase(answers, ' ');
    EXPECT_EQ(weighed, answers) << task->name();
  }
}

TEST(Mixture, OptionsThatDoNotFitAreErrors) {
  const Shelf shelf;
  EXPECT_THROW(shelf.mixture({.task_share = 0.01}), Error);
  EXPECT_THROW(shelf.mixture({.task_share = 0.99}), Error);
  EXPECT_THROW(shelf.mixture({.task_share = -1}), Error);
  const DecompositionOptions decomposition{.least_level = 9, .most_level = 11, .batch_tokens = 8192};
  EXPECT_THROW(Mixture(*shelf.store, shelf.tokenizer, {}, decomposition, {.task_share = 0.5}), Error);
  const Tokenizer other(sentence_pieces({"he"}));
  EXPECT_THROW(Mixture(*shelf.store, other, {}, decomposition, {}), Error);
}

}  // namespace
}  // namespace fathom::test
