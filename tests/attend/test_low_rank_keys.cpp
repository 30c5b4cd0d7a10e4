#include "attend/low_rank_keys.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <set>

#include "attend/principal_axes.h"
#include "base/error.h"
#include "reading.h"
#include "seed.h"

namespace fathom {
namespace {

using test::Reading;
using test::ReadingShape;

constexpr int kWidth = 32;  // two heads of 16

/// Returns the squared singular values of a matrix, largest first, by the one-sided Jacobi method: pairs of columns
/// are rotated until all are orthogonal. k: [rows, columns].
std::vector<double> squared_singular_values(std::vector<double> k, int64_t rows, int columns) {
  const auto product = [&](int a, int b) {
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i) sum += k[i * columns + a] * k[i * columns + b];
    return sum;
  };
  for (int sweep = 0; sweep < 12; ++sweep) {
    for (int a = 0; a < columns; ++a) {
      for (int b = a + 1; b < columns; ++b) {
        const double angle = std::atan2(2 * product(a, b), product(a, a) - product(b, b)) / 2;
        const double c = std::cos(angle), s = std::sin(angle);
        for (int64_t i = 0; i < rows; ++i) {
          const double x = k[i * columns + a], y = k[i * columns + b];
          k[i * columns + a] = c * x + s * y;
          k[i * columns + b] = c * y - s * x;
        }
      }
    }
  }
  std::vector<double> values;
  for (int a = 0; a < columns; ++a) values.push_back(product(a, a));
  std::ranges::sort(values, std::greater());
  return values;
}

/// Sets keys of a given rank, heads concatenated. With `decline`, the variance of each direction is half that of
/// the previous one.
void set_keys(Reading& reading, int rank, bool decline) {
  std::mt19937 random(test::seed(7));
  std::normal_distribution<float> normal;
  std::vector<float> directions(static_cast<size_t>(rank) * kWidth);
  for (float& x : directions) x = normal(random);
  for (int64_t t = 0; t < reading.shape.tokens; ++t) {
    float* key = reading.key(t, 0);  // the other head's follows
    std::fill_n(key, kWidth, 0.0f);
    for (int r = 0; r < rank; ++r) {
      const float share = normal(random) * (decline ? std::exp2(-0.5f * static_cast<float>(r)) : 1.0f);
      for (int d = 0; d < kWidth; ++d) key[d] += share * directions[r * kWidth + d];
    }
  }
}

LowRankKeys low_rank(Reading& reading, int64_t end, int rank) {
  LayerQueries queries;
  queries.sequence = &reading.sequence;
  queries.kv = &reading.sequence.kv(0);
  queries.kernels = &kernels();
  return {queries, end, rank, *reading.pool};
}

/// Returns ‖K' − K‖² / ‖K‖² over the first tokens of both heads.
double squared_error(Reading& reading, const LowRankKeys& from, int64_t tokens) {
  std::vector<int64_t> rows(tokens);
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<float> keys(tokens * reading.shape.dim);
  double error = 0, all = 0;
  for (int head = 0; head < reading.shape.kv_heads; ++head) {
    from.rebuild(kernels(), head, rows, keys.data());
    for (int64_t t = 0; t < tokens; ++t) {
      for (int d = 0; d < reading.shape.dim; ++d) {
        const double key = reading.key(t, head)[d], gap = keys[t * reading.shape.dim + d] - key;
        error += gap * gap, all += key * key;
      }
    }
  }
  return error / all;
}

TEST(PrincipalAxes, MatchAKnownDecomposition) {
  const double k[3][2] = {{3, 2}, {2, 3}, {2, -2}};  // singular values 5 and 3
  const float unread = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> gram = {17, unread, 8, 17}, axes = principal_axes(gram, 2, 2);
  const double half = std::sqrt(0.5), expected[2][2] = {{half, half}, {half, -half}}, values[2] = {5, 3};
  for (int a = 0; a < 2; ++a) {
    const double v[2] = {axes[a], axes[2 + a]};
    EXPECT_NEAR(std::fabs(v[0] * expected[a][0] + v[1] * expected[a][1]), 1, 1e-6) << a;
    double length = 0;
    for (const auto& row : k) length += std::pow(row[0] * v[0] + row[1] * v[1], 2);
    EXPECT_NEAR(std::sqrt(length), values[a], 1e-6);
  }
  const std::vector<float> first = principal_axes(gram, 2, 1);
  EXPECT_EQ(first, (std::vector<float>{axes[0], axes[2]}));
}

TEST(LowRankKeys, KeysAreRebuiltExactlyWithTheirRankAndNotWithLess) {
  Reading reading({}, "dense");
  set_keys(reading, 5, false);
  reading.read(1000);
  EXPECT_LT(squared_error(reading, low_rank(reading, 1000, 5), 1000), 1e-10);
  EXPECT_GT(squared_error(reading, low_rank(reading, 1000, 4), 1000), 1e-2);
}

TEST(LowRankKeys, TheErrorIsTheSmallestPossibleForEachRank) {
  Reading reading({}, "dense");
  set_keys(reading, kWidth, true);
  constexpr int64_t kTokens = 700;  // the last page is partly filled
  reading.read(kTokens);
  const std::vector<double> keys(reading.keys.begin(), reading.keys.begin() + kTokens * kWidth);
  const std::vector<double> values = squared_singular_values(keys, kTokens, kWidth);
  const double all = std::accumulate(values.begin(), values.end(), 0.0);
  double before = 1;
  for (const int rank : {1, 2, 5, 9, 13, 24, 31}) {
    const double least = std::accumulate(values.begin() + rank, values.end(), 0.0) / all;
    const double error = squared_error(reading, low_rank(reading, kTokens, rank), kTokens);
    EXPECT_NEAR(error, least, 1e-3 * least + 1e-7)
        << rank;  // KᵀK is in float32; with bfloat16 keys the difference is 1e-6
    EXPECT_LT(error, before) << rank;
    before = error;
  }
  EXPECT_LT(squared_error(reading, low_rank(reading, kTokens, kWidth), kTokens), 1e-10);
}

TEST(LowRankKeys, MaskedTokensAndTokensAfterTheEndAreZero) {
  Reading reading({}, "dense");
  reading.read(700);
  reading.sequence.kv(0).mask(1, 100, 110);
  const LowRankKeys from = low_rank(reading, 680, kWidth);
  const std::vector<int64_t> rows = {99, 100, 109, 110, 679, 680, 699};
  std::vector<float> keys(rows.size() * 16);
  for (int head = 0; head < 2; ++head) {
    from.rebuild(kernels(), head, rows, keys.data());
    for (size_t i = 0; i < rows.size(); ++i) {
      const bool zero = rows[i] >= 680 || (head == 1 && rows[i] >= 100 && rows[i] < 110);
      for (int d = 0; d < 16; ++d)
        EXPECT_NEAR(keys[i * 16 + d], zero ? 0 : reading.key(rows[i], head)[d], 1e-5) << rows[i] << " " << head;
    }
  }
}

TEST(LowRankKeys, ResultsDoNotDependOnTheNumberOfThreads) {
  std::vector<std::vector<float>> made;
  for (const int threads : {1, 3}) {
    Reading reading({}, "dense");
    reading.use_threads(threads);
    reading.read(1900);
    const std::vector<int64_t> rows = {0, 5, 700, 1899};
    made.emplace_back(rows.size() * 16);
    low_rank(reading, 1900, 9).rebuild(kernels(), 1, rows, made.back().data());
  }
  EXPECT_EQ(made[0], made[1]);
}

/// Returns the key of one token as the attention reads it, rotated by its offset, from float32 pages.
std::vector<float> keys_at(const Reading& reading, const SelectedPage& page, int head, int token) {
  const PageStore& store = reading.sequence.kv(0).store();
  std::vector<float> key(16);
  const std::byte* keys = page.keys ? page.keys : store.keys(reading.sequence.kv(0).table(head)[page.entry].page);
  read_key(PageFormat::kF32, 16, keys, token, key.data());
  return key;
}

/// Returns each token of the last selection with the distance of its key from the one stored in the page.
std::vector<std::pair<int64_t, double>> key_errors(const Reading& reading, int head) {
  std::vector<std::pair<int64_t, double>> errors;
  for (const SelectedPage& page : reading.selections[head].pages) {
    SelectedPage stored = page;
    stored.keys = nullptr;
    for (int t = 0; t < kPageTokens; ++t) {
      if ((page.mask >> t & 1) == 0) continue;
      const std::vector<float> found = keys_at(reading, page, head, t), exact = keys_at(reading, stored, head, t);
      double error = 0;
      for (int d = 0; d < 16; ++d) error += std::pow(found[d] - exact[d], 2);
      errors.emplace_back(reading.sequence.kv(0).table(head)[page.entry].first + t, std::sqrt(error));
    }
  }
  return errors;
}

TEST(ShadowKvRank, KeysOfSelectedChunksAreRebuiltAndAllOthersAreExact) {
  Reading plain({}, "shadowkv:budget=64,outliers=5"), reading({}, "shadowkv:budget=64,outliers=5,rank=4");
  for (Reading* one : {&plain, &reading}) {
    one->read(1500);
    for (int i = 0; i < 3; ++i) one->read(1);
  }
  for (int head = 0; head < 2; ++head) {
    EXPECT_EQ(reading.attended(head), plain.attended(head)) << "the selection depends on the rank";
    std::set<int64_t> rebuilt;  // chunks
    int64_t exact = 0;
    for (const auto& [token, error] : key_errors(reading, head)) {
      if (error > 0.1) {
        EXPECT_LT(token, 1408);
        rebuilt.insert(token / 8);
      } else {
        EXPECT_EQ(error, 0) << token;
        ++exact;
      }
    }
    EXPECT_EQ(rebuilt.size(), 8u) << "the budget";
    EXPECT_EQ(exact, 5 * 8 + 1503 - 1408) << "outliers, the newest pages of the prompt and generated tokens";
  }
}

TEST(ShadowKvRank, KeyErrorsFallWithTheRankAndVanishAtTheFullWidth) {
  double before = 1e9;
  for (const int rank : {2, 8, 16, 24, 32}) {
    Reading reading({}, "shadowkv:budget=10k,outliers=0,rank=" + std::to_string(rank));
    reading.read(1500);
    reading.read(1);
    double sum = 0;
    for (int head = 0; head < 2; ++head)
      for (const auto& [token, error] : key_errors(reading, head)) sum += error;
    EXPECT_LT(sum, 0.95 * before) << rank;
    before = sum;
  }
  EXPECT_LT(before / (2 * 1501), 1e-5);
}

/// Returns all keys that the last selection provides instead of those in the pages.
std::vector<float> rebuilt_keys(const Reading& reading) {
  std::vector<float> all;
  for (int head = 0; head < 2; ++head)
    for (const SelectedPage& page : reading.selections[head].pages)
      for (int t = 0; t < kPageTokens; ++t)
        if (page.keys && page.mask >> t & 1) {
          const std::vector<float> key = keys_at(reading, page, head, t);
          all.insert(all.end(), key.begin(), key.end());
        }
  return all;
}

TEST(ShadowKvRank, ResultsDoNotDependOnCachedKeysForksAndThreads) {
  const std::string spec = "shadowkv:budget=160,outliers=3,rank=6";
  Reading cached({}, spec), uncached({}, spec), threads({}, spec);
  threads.use_threads(3);
  for (Reading* one : {&cached, &uncached, &threads}) {
    one->read(1500);
    for (int i = 0; i < 12; ++i) {
      if (one == &uncached) {  // continues with the state of a fork, which has no rebuilt keys
        Sequence fork = one->sequence.fork();
        one->sequence.set_state(Sequence::StateOf::kSelector, fork.state(Sequence::StateOf::kSelector)->fork());
      }
      one->read(1);
    }
  }
  EXPECT_GT(rebuilt_keys(cached).size(), 0u);
  EXPECT_EQ(rebuilt_keys(uncached), rebuilt_keys(cached));
  EXPECT_EQ(rebuilt_keys(threads), rebuilt_keys(cached));
}

TEST(ShadowKvRank, RewindingIntoThePromptRecomputesTheLowRankKeys) {
  const std::string spec = "shadowkv:budget=160,outliers=3,rank=6";
  Reading straight({}, spec), rewound({}, spec);
  straight.read(1200);
  rewound.read(1500);
  rewound.read(1);
  rewound.remove_newest(301);
  for (int i = 0; i < 2; ++i) {
    straight.read(1);
    rewound.read(1);
  }
  EXPECT_GT(rebuilt_keys(straight).size(), 0u);
  EXPECT_EQ(rebuilt_keys(rewound), rebuilt_keys(straight));
}

TEST(ShadowKvRank, MovingTheSequenceChangesNoKeys) {
  const std::string spec = "shadowkv:budget=10k,outliers=0,rank=6";
  Reading reading({.tokens = 1000}, spec);
  reading.rotations->reserve(2000);
  reading.read(900);
  reading.read(1);
  const std::vector<float> before = rebuilt_keys(reading);
  reading.sequence.move_to(77);
  reading.read(1);
  EXPECT_GT(before.size(), 0u);
  EXPECT_EQ(rebuilt_keys(reading), before);
}

TEST(ShadowKvRank, EvictedPagesAreNotRead) {
  Reading reading({}, "shadowkv:budget=10k,outliers=0,rank=6");
  reading.read(1000);
  reading.read(1);
  std::vector<char> keep(700, 0);
  std::fill_n(keep.begin() + 130, 5, 1);
  reading.sequence.kv(0).evict(1, keep);
  reading.read(1);
  std::vector<int64_t> expected = {130, 131, 132, 133, 134};
  for (int64_t t = 700; t < 1002; ++t) expected.push_back(t);
  EXPECT_EQ(reading.attended(1), expected);
}

TEST(ShadowKvRank, RanksAboveTheWidthAreRefused) {
  const Reading largest({}, "shadowkv:rank=32");
  try {
    const Reading reading({}, "shadowkv:rank=33");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    EXPECT_NE(std::string(error.what()).find("at most 32"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace fathom
