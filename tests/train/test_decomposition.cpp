#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "base/error.h"
#include "eval/rng.h"
#include "train/decomposition.h"

namespace fathom::train {
namespace {

std::vector<int64_t> random_lengths(int64_t documents, int64_t most) {
  eval::Rng rng(5, "lengths", 0, 0);
  std::vector<int64_t> lengths{0, 1, most, most - 1};
  while (std::ssize(lengths) < documents) lengths.push_back(rng.between(0, rng.between(1, most)));
  return lengths;
}

DecompositionOptions options(int32_t least, int32_t most, int64_t batch_tokens, uint64_t seed = 1) {
  return {.min_level = least, .max_level = most, .batch_tokens = batch_tokens, .seed = seed};
}

std::vector<TokenPiece> all_pieces(const Decomposition& decomposition) {
  std::vector<TokenPiece> pieces;
  const DecompositionOptions& o = decomposition.options();
  for (int32_t level = o.min_level; level <= o.max_level; ++level)
    pieces.insert(pieces.end(), decomposition.pieces(level).begin(), decomposition.pieces(level).end());
  std::ranges::sort(pieces, {}, [](const TokenPiece& p) { return std::tuple(p.document, p.begin); });
  return pieces;
}

/// Returns the number of tokens of each document in its pieces. Expects that the pieces are contiguous from 0.
std::vector<int64_t> covered(const Decomposition& decomposition, size_t documents) {
  std::vector<int64_t> ends(documents, 0);
  for (const TokenPiece& piece : all_pieces(decomposition)) {
    EXPECT_EQ(piece.begin, ends[piece.document]);
    ends[piece.document] += piece.length();
  }
  return ends;
}

TEST(Decomposition, PiecesCoverTheDocuments) {
  const std::vector<int64_t> lengths = random_lengths(300, 5000);
  for (const bool spread : {false, true}) {
    DecompositionOptions o = options(0, 8, 1024);
    o.spread = spread;
    EXPECT_EQ(covered(Decomposition(lengths, o), lengths.size()), lengths);
  }
}

TEST(Decomposition, RemaindersBelowTheShortestPieceAreDiscarded) {
  const std::vector<int64_t> lengths = random_lengths(300, 5000);
  const std::vector<int64_t> ends = covered(Decomposition(lengths, options(5, 8, 1024)), lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i) EXPECT_EQ(ends[i], lengths[i] / 32 * 32);
}

TEST(Decomposition, PiecesFollowTheBinaryExpansion) {
  const std::vector<int64_t> lengths{256 * 3 + 128 + 16 + 8};
  std::vector<int64_t> pieces;
  for (const TokenPiece& piece : all_pieces(Decomposition(lengths, options(3, 8, 256))))
    pieces.push_back(piece.length());
  EXPECT_EQ(pieces, (std::vector<int64_t>{256, 256, 256, 128, 16, 8}));
}

TEST(Decomposition, EveryBatchHasTheSameNumberOfTokensInPiecesOfOneLength) {
  const std::vector<int64_t> lengths = random_lengths(400, 3000);
  Decomposition decomposition(lengths, options(4, 8, 512));
  for (int64_t step = 0; step < 2 * decomposition.steps_per_epoch(); ++step) {
    const PieceBatch batch = decomposition.batch(step);
    int64_t tokens = 0;
    for (const TokenPiece& piece : batch.pieces) {
      EXPECT_EQ(piece.level, batch.level);
      EXPECT_GE(piece.begin, 0);
      EXPECT_LE(piece.begin + piece.length(), lengths[piece.document]);
      tokens += piece.length();
    }
    EXPECT_EQ(tokens, 512);
  }
}

TEST(Decomposition, AnEpochHasEachPieceOnceExceptThoseOfIncompleteBatches) {
  const std::vector<int64_t> lengths = random_lengths(400, 3000);
  Decomposition decomposition(lengths, options(4, 8, 512));
  std::set<std::tuple<int32_t, int64_t>> used;
  std::map<int32_t, int64_t> counts;
  for (int64_t step = 0; step < decomposition.steps_per_epoch(); ++step) {
    for (const TokenPiece& piece : decomposition.batch(step).pieces) {
      EXPECT_TRUE(used.insert({piece.document, piece.begin}).second);
      ++counts[piece.level];
    }
  }
  for (int32_t level = 4; level <= 8; ++level)
    EXPECT_LT(std::ssize(decomposition.pieces(level)) - counts[level], 512 >> level);
}

TEST(Decomposition, OrderDependsOnTheSeedOnlyAndEpochsDiffer) {
  const std::vector<int64_t> lengths = random_lengths(400, 3000);
  Decomposition one(lengths, options(4, 8, 512)), same(lengths, options(4, 8, 512)),
      other(lengths, options(4, 8, 512, 2));
  const int64_t epoch = one.steps_per_epoch();
  bool seeds_differ = false, epochs_differ = false;
  for (int64_t step = 0; step < epoch; ++step) {
    EXPECT_EQ(one.batch(step).pieces, same.batch(step).pieces);
    seeds_differ |= one.batch(step).pieces != other.batch(step).pieces;
  }
  for (int64_t step = 0; step < epoch; ++step)
    epochs_differ |= same.batch(step + epoch).pieces != one.batch(step).pieces;
  EXPECT_TRUE(seeds_differ);
  EXPECT_TRUE(epochs_differ);
}

TEST(Decomposition, ResumingAtAnyStepGivesTheBatchesOfAnUninterruptedRun) {
  const std::vector<int64_t> lengths = random_lengths(200, 3000);
  Decomposition whole(lengths, options(4, 8, 512));
  const int64_t steps = 3 * whole.steps_per_epoch();
  std::vector<std::vector<TokenPiece>> order;
  for (int64_t step = 0; step < steps; ++step) order.push_back(whole.batch(step).pieces);
  for (int64_t from = 0; from < steps; from += 37) {
    Decomposition resumed(lengths, options(4, 8, 512));
    for (int64_t step = from; step < std::min(steps, from + 5); ++step)
      EXPECT_EQ(resumed.batch(step).pieces, order[step]);
  }
}

TEST(Decomposition, EachCycleHasItsShareOfEveryLength) {
  const std::vector<int64_t> lengths = random_lengths(4000, 3000);
  Decomposition decomposition(lengths, options(6, 8, 512));
  std::map<int32_t, std::vector<int64_t>> steps;
  for (int64_t step = 0; step < decomposition.steps_per_epoch(); ++step)
    steps[decomposition.batch(step).level].push_back(step);
  for (const auto& [level, of_level] : steps) {
    const auto eighth = static_cast<double>(decomposition.steps_per_epoch()) / 8;
    std::vector<int64_t> counts(8);
    for (const int64_t step : of_level)
      ++counts[std::min<int64_t>(7, static_cast<int64_t>(static_cast<double>(step) / eighth))];
    for (const int64_t count : counts) EXPECT_NEAR(count, static_cast<double>(of_level.size()) / 8, 4) << level;
  }
}

/// Returns the mean position of the batches of each level in an epoch of one cycle, 0 to 1.
std::map<int32_t, double> mean_positions(Curriculum curriculum) {
  DecompositionOptions o = options(6, 8, 512);
  o.cycles = 1;
  o.curriculum = curriculum;
  Decomposition decomposition(random_lengths(4000, 3000), o);
  std::map<int32_t, std::pair<double, double>> sums;
  for (int64_t step = 0; step < decomposition.steps_per_epoch(); ++step) {
    auto& [sum, count] = sums[decomposition.batch(step).level];
    sum += static_cast<double>(step) / static_cast<double>(decomposition.steps_per_epoch());
    ++count;
  }
  std::map<int32_t, double> means;
  for (const auto& [level, sum] : sums) means[level] = sum.first / sum.second;
  return means;
}

TEST(Decomposition, GrowOrdersLengthsFromShortToLongAndUniformDoesNot) {
  auto grow = mean_positions(Curriculum::kGrow), uniform = mean_positions(Curriculum::kUniform);
  EXPECT_LT(grow[6] + 0.05, grow[7]);
  EXPECT_LT(grow[7] + 0.05, grow[8]);
  for (int32_t level = 6; level <= 8; ++level) EXPECT_NEAR(uniform[level], 0.5, 0.05);
}

TEST(Decomposition, SpreadGivesEachLengthTheSameShareOfLongDocuments) {
  const std::vector<int64_t> lengths(50, 100000);
  DecompositionOptions o = options(6, 10, 1024);
  o.spread = true;
  const Decomposition decomposition(lengths, o);
  for (int32_t level = 6; level <= 10; ++level)
    EXPECT_NEAR(static_cast<double>(std::ssize(decomposition.pieces(level)) << level) / 5e6, 0.2, 0.02);
}

TEST(Decomposition, ContradictoryOptionsAreErrors) {
  const std::vector<int64_t> lengths{1000};
  EXPECT_THROW(Decomposition(lengths, options(8, 6, 512)), Error);
  EXPECT_THROW(Decomposition(lengths, options(-1, 6, 512)), Error);
  EXPECT_THROW(Decomposition(lengths, options(4, 31, 512)), Error);
  EXPECT_THROW(Decomposition(lengths, options(4, 8, 300)), Error);
  EXPECT_THROW(Decomposition(lengths, options(4, 8, 0)), Error);
  EXPECT_THROW(Decomposition(lengths, options(4, 10, 4096)), Error);
  DecompositionOptions no_cycles = options(4, 8, 256);
  no_cycles.cycles = 0;
  EXPECT_THROW(Decomposition(lengths, no_cycles), Error);
}

}  // namespace
}  // namespace fathom::train
