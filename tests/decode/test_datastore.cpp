#include "decode/datastore.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/content_hash.h"
#include "base/error.h"
#include "decode/knn_lm.h"
#include "kernels/quantize.h"
#include "models/tiny_model.h"
#include "paths.h"
#include "seed.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom {
namespace {

constexpr int kWidth = 12, kVocabulary = 50;
constexpr float kInfiniteWeight = std::numeric_limits<float>::infinity();
const DatastoreModel kModel{.fingerprint = 77, .vocabulary = kVocabulary, .width = kWidth};

struct Pairs {
  std::vector<float> keys;
  std::vector<int32_t> tokens;
};

/// Returns n random keys around 40 centres, and random tokens.
Pairs random_pairs(int n, uint32_t seed = 1) {
  std::mt19937 random(test::seed(seed));
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> centres(40 * kWidth);
  for (float& value : centres) value = 3 * normal(random);
  Pairs pairs;
  for (int i = 0; i < n; ++i) {
    const size_t centre = random() % 40;
    for (int j = 0; j < kWidth; ++j) pairs.keys.push_back(centres[centre * kWidth + j] + normal(random));
    pairs.tokens.push_back(static_cast<int32_t>(random() % kVocabulary));
  }
  return pairs;
}

/// Returns the squared distances of all entries to a query.
std::vector<double> brute_force(const Pairs& pairs, std::span<const float> query) {
  std::vector<double> distances(pairs.tokens.size());
  for (size_t i = 0; i < distances.size(); ++i)
    for (int j = 0; j < kWidth; ++j) {
      const double difference = double{query[j]} - f16_to_f32(f32_to_f16(pairs.keys[i * kWidth + j]));
      distances[i] += difference * difference;
    }
  return distances;
}

/// Expects the k nearest of all entries, nearest first.
void expect_nearest(const std::vector<DatastoreNeighbour>& found, const Pairs& pairs, std::span<const float> query,
                    size_t k) {
  const std::vector<double> distances = brute_force(pairs, query);
  std::vector<double> expected = distances;
  std::ranges::sort(expected);
  expected.resize(std::min(k, expected.size()));
  ASSERT_EQ(found.size(), expected.size());
  std::set<int64_t> entries;
  for (size_t i = 0; i < found.size(); ++i) {
    const auto [entry, token, distance] = found[i];
    EXPECT_NEAR(distance, expected[i], 1e-4 * (1 + expected[i])) << i;
    EXPECT_NEAR(distance, distances.at(entry), 1e-4 * (1 + expected[i])) << i;
    EXPECT_EQ(token, pairs.tokens[entry]) << i;
    EXPECT_TRUE(entries.insert(entry).second) << "entry " << entry << " twice";
  }
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Datastore, SearchEqualsBruteForce) {
  const Pairs pairs = random_pairs(700);
  const Datastore store(kModel, pairs.keys, pairs.tokens);
  EXPECT_EQ(store.lists(), 0);
  const Pairs queries = random_pairs(40, 2);
  for (const int64_t k : {1, 64, 150, 700, 5000})
    for (int q = 0; q < 10; ++q) {
      const auto query = std::span(queries.keys).subspan(q * kWidth, kWidth);
      expect_nearest(store.search(query, k), pairs, query, k);
    }
}

TEST(Datastore, EqualDistancesAreOrderedByEntry) {
  Pairs pairs = random_pairs(30);
  for (const int copy : {3, 9, 11, 29}) std::copy_n(&pairs.keys[0], kWidth, &pairs.keys[copy * kWidth]);
  const Datastore store(kModel, pairs.keys, pairs.tokens);
  const auto found = store.search(std::span(pairs.keys).first(kWidth), 5);
  ASSERT_EQ(found.size(), 5);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(found[i].entry, std::vector<int64_t>({0, 3, 9, 11, 29})[i]);
}

TEST(Datastore, RefusesInvalidPairsAndQueries) {
  const Pairs good = random_pairs(5);
  const auto with = [&](auto change) {
    Pairs pairs = good;
    change(pairs);
    return error_of([&] { Datastore(kModel, pairs.keys, pairs.tokens); });
  };
  EXPECT_EQ(with([](Pairs&) {}), "no error");
  EXPECT_EQ(with([](Pairs& p) { p.keys.clear(), p.tokens.clear(); }),
            "datastore: expected 1 to 2147483647 entries, found 0");
  EXPECT_EQ(with([](Pairs& p) { p.keys.pop_back(); }), "datastore: expected 5 keys of width 12, found 59 numbers");
  EXPECT_EQ(with([](Pairs& p) { p.tokens[3] = kVocabulary; }),
            "datastore: token of entry 3: expected an id from 0 to 49, found 50");
  EXPECT_EQ(with([](Pairs& p) { p.tokens[3] = -1; }),
            "datastore: token of entry 3: expected an id from 0 to 49, found -1");
  for (const float bad : {kInfiniteWeight, -kInfiniteWeight, std::nanf(""), 65600.f, -1e30f})
    EXPECT_NE(with([&](Pairs& p) { p.keys[2 * kWidth] = bad; }).find("key 2: expected finite numbers of magnitude"),
              std::string::npos)
        << bad;
  const Datastore store(kModel, good.keys, good.tokens);
  std::vector<float> query(kWidth);
  EXPECT_EQ(store.search(query, 9).size(), 5);
  EXPECT_THROW(store.search(query, 0), Error);
  EXPECT_THROW(store.search(std::span(query).first(5), 1), Error);
  query[4] = std::nanf("");
  EXPECT_THROW(store.search(query, 1), Error);
}

/// A file in the temporary folder, removed at the end.
struct DatastoreFile {
  std::string path = testing::TempDir() + "fathom_datastore_" + std::to_string(::getpid());
  ~DatastoreFile() { std::filesystem::remove(path); }
  std::string read() const {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

/// Returns the bytes of the file of `entries` random pairs with one inverted list.
std::string file_of(int entries) {
  const Pairs pairs = random_pairs(entries);
  const DatastoreFile file;
  Datastore(kModel, pairs.keys, pairs.tokens, {.exact_entries = 0}).save(file.path);
  return file.read();
}

Datastore parse(const std::string& bytes, const DatastoreModel& model = kModel) {
  return Datastore::parse(std::as_bytes(std::span(bytes)), "file", model);
}

/// Returns the error of a file, without its name.
std::string parse_error(const std::string& bytes, const DatastoreModel& model = kModel) {
  const std::string error = error_of([&] { parse(bytes, model); });
  EXPECT_TRUE(error.starts_with("file: ")) << error;
  return error.substr(std::min<size_t>(error.size(), 6));
}

constexpr size_t kHeader = 72, kBodyHash = 56, kHeaderHash = 64;  // offsets in a file

/// Returns the file with correct checksums.
std::string with_checksums(std::string bytes) {
  const uint64_t body = hash_content(std::string_view(bytes).substr(kHeader));
  std::memcpy(&bytes[kBodyHash], &body, 8);
  const uint64_t header = hash_content(std::string_view(bytes).substr(0, kHeaderHash));
  std::memcpy(&bytes[kHeaderHash], &header, 8);
  return bytes;
}

TEST(Datastore, FilesKeepEntriesAndIndex) {
  const Pairs pairs = random_pairs(500);
  const Pairs queries = random_pairs(20, 3);
  const DatastoreFile file;
  for (const int64_t exact : {1000, 100}) {
    const DatastoreOptions options{.exact_entries = exact, .probes = 4};
    const Datastore store(kModel, pairs.keys, pairs.tokens, options);
    store.save(file.path);
    const std::string bytes = file.read();
    const Datastore loaded = Datastore::load(file.path, kModel, options);
    EXPECT_EQ(loaded.entries(), 500);
    EXPECT_EQ(loaded.lists(), exact == 1000 ? 0 : 62);
    EXPECT_EQ(loaded.lists(), store.lists());
    for (int q = 0; q < 20; ++q) {
      const auto query = std::span(queries.keys).subspan(q * kWidth, kWidth);
      const auto before = store.search(query, 10), after = loaded.search(query, 10);
      ASSERT_EQ(before.size(), after.size());
      for (size_t i = 0; i < before.size(); ++i) {
        EXPECT_EQ(before[i].entry, after[i].entry);
        EXPECT_EQ(before[i].token, after[i].token);
        EXPECT_EQ(before[i].distance, after[i].distance);
      }
    }
    loaded.save(file.path);
    EXPECT_TRUE(file.read() == bytes);
  }
}

TEST(Datastore, AllInvertedListsEqualBruteForceAndFewFindMost) {
  const Pairs pairs = random_pairs(2000);
  const DatastoreFile file;
  Datastore(kModel, pairs.keys, pairs.tokens, {.exact_entries = 1999}).save(file.path);
  const auto with = [&](int64_t probes) { return Datastore::load(file.path, kModel, {.probes = probes}); };
  const Datastore all = with(100'000), few = with(6), one = with(1);
  EXPECT_EQ(all.lists(), 178) << "4 times the root of 2000";
  const Pairs queries = random_pairs(40, 1);
  size_t hits = 0, of_one = 0;
  for (int q = 0; q < 40; ++q) {
    const auto query = std::span(queries.keys).subspan(q * kWidth, kWidth);
    const auto exact = all.search(query, 16);
    expect_nearest(exact, pairs, query, 16);
    for (const DatastoreNeighbour& found : few.search(query, 16))
      hits += std::ranges::count(exact, found.entry, &DatastoreNeighbour::entry);
    of_one += one.search(query, 16).size();
  }
  RecordProperty("recall", std::to_string(static_cast<double>(hits) / (40 * 16)));
  EXPECT_GT(hits, 0.9 * 40 * 16);
  EXPECT_LT(of_one, 40 * 16) << "some lists hold fewer than 16 entries";
  EXPECT_GT(of_one, 0);
}

TEST(Datastore, RefusesEveryTruncatedOrDamagedFile) {
  const std::string good = file_of(9);
  EXPECT_EQ(parse(good).entries(), 9);
  for (size_t size = 0; size < good.size(); ++size) {
    const std::string error = parse_error(good.substr(0, size));
    ASSERT_TRUE(error.starts_with(size < 8 ? "not a datastore: " : "truncated: expected "))
        << size << ": " << error;
  }
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
    ASSERT_NE(parse_error(bad), "") << at;
  }
  EXPECT_TRUE(parse_error(good + "x").starts_with("too long: expected "));
}

TEST(Datastore, RefusesFilesOfOtherKindsAndModels) {
  const std::string good = file_of(9);
  DatastoreModel other = kModel;
  other.width = 24;
  EXPECT_EQ(parse_error(good, other),
            "made with another model: expected width 24 and a vocabulary of 50, found 12 and 50");
  other = kModel;
  other.vocabulary = 51;
  EXPECT_EQ(parse_error(good, other),
            "made with another model: expected width 12 and a vocabulary of 51, found 12 and 50");
  other = kModel;
  other.fingerprint = 78;
  EXPECT_EQ(parse_error(good, other),
            "made with another model of the same shape: expected fingerprint 78, found 77");
  EXPECT_EQ(parse_error("GGUF and something else"), "not a datastore: expected a file that begins with FTHMKNN");
  const DatastoreFile missing;
  EXPECT_EQ(error_of([&] { Datastore::load(missing.path, kModel); }),
            missing.path + ": cannot open: No such file or directory");
}

TEST(Datastore, RefusesInvalidContentWithCorrectChecksums) {
  const std::string good = file_of(9);
  const auto with = [&](size_t at, auto value) {
    std::string bytes = good;
    std::memcpy(&bytes[at], &value, sizeof value);
    return parse_error(with_checksums(bytes));
  };
  EXPECT_EQ(with(8, uint64_t{2}), "datastore version: expected 1, found 2");
  EXPECT_EQ(with(40, uint64_t{0}), "the header is invalid: 0 entries of width 12 in 1 lists");
  EXPECT_EQ(with(40, uint64_t{1} << 62),
            "the header is invalid: 4611686018427387904 entries of width 12 in 1 lists");
  EXPECT_EQ(with(40, uint64_t{1} << 30).substr(0, 10), "truncated:");
  EXPECT_EQ(with(32, ~uint64_t{0}).substr(0, 21), "the header is invalid");
  EXPECT_EQ(with(48, uint64_t{10}), "the header is invalid: 9 entries of width 12 in 10 lists");
  EXPECT_EQ(with(kHeader + 4, int32_t{50}), "datastore: token of entry 1: expected an id from 0 to 49, found 50");
  EXPECT_EQ(with(kHeader + 9 * 4, uint16_t{0x7e00}).substr(0, 33), "datastore: key 0: expected finite");
  EXPECT_EQ(with(good.size() - 4, int32_t{1}), "datastore: expected lists from 0 to 0, found 1");
  EXPECT_EQ(with(good.size() - 4, int32_t{-1}), "datastore: expected lists from 0 to 0, found -1");
  EXPECT_EQ(with(good.size() - 9 * 4 - kWidth * 4, kInfiniteWeight).substr(0, 38),
            "datastore: centroid 0: expected finite");
}

TEST(Datastore, FilesWithRandomFieldsAreRefusedOrSearchable) {
  std::mt19937 random(test::seed(9));
  const std::string good = file_of(9);
  const std::vector<float> query(kWidth, 1);
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = good;
    for (uint32_t changes = random() % 3; changes-- > 0;)
      bytes[8 + random() % (bytes.size() - 8)] = static_cast<char>(random());
    if (random() % 4 == 0) bytes.resize(kHeader + random() % 1000);
    bytes = with_checksums(bytes);
    try {
      const auto found = parse(bytes).search(query, 100);
      EXPECT_EQ(found.size(), 9);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 400);
  EXPECT_LT(refused, 2000);
}

TEST(Datastore, ModelsWithOtherWeightsHaveOtherFingerprints) {
  const DatastoreModel one = DatastoreModel::of(*test::floats());
  EXPECT_EQ(one, DatastoreModel::of(*test::open_tiny({})));
  EXPECT_EQ(one.vocabulary, 512);
  EXPECT_EQ(one.width, 64);
  test::TinyFile changed;
  changed.ffn = 128;
  EXPECT_NE(one, DatastoreModel::of(*test::open_tiny(changed)));
}

// ---- Building from texts

/// A tiny model with random weights and its engine.
struct KnnLmTest : testing::Test {
  Engine engine{test::floats(), std::make_shared<Runtime>(1)};
  std::vector<int32_t> text(int n, uint32_t seed = 1) {
    std::mt19937 random(test::seed(seed));
    std::vector<int32_t> tokens(n);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 512);
    return tokens;
  }
  /// Returns the hidden state of the last token.
  std::vector<float> last_hidden(std::span<const int32_t> tokens) {
    std::vector<float> last;
    HiddenStates(engine).read(tokens, false, [&](int64_t, std::span<const float> hidden, std::span<const float>) {
      last.assign(hidden.begin(), hidden.end());
    });
    return last;
  }
};

TEST_F(KnnLmTest, HiddenStatesComeWithTheLogitsOfASession) {
  const auto tokens = text(300);
  Session session(test::floats(), std::make_shared<Runtime>(1));
  session.append(tokens);
  HiddenStates states(engine);
  std::vector<float> logits, first;
  const auto visit = [&](int64_t index, std::span<const float> hidden, std::span<const float> row) {
    EXPECT_EQ(hidden.size(), 64);
    if (index == 0) first.assign(hidden.begin(), hidden.end());
    logits.assign(row.begin(), row.end());
  };
  states.read(std::span(tokens).first(200), true, visit);
  states.read(std::span(tokens).subspan(200), true, visit);
  ASSERT_EQ(logits.size(), 512);
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], session.logits()[i], 0.05) << i;
  EXPECT_NE(first, last_hidden(std::span(tokens).subspan(200, 1))) << "the second call continues the sequence";
}

TEST_F(KnnLmTest, EveryTokenWithASuccessorBecomesAnEntry) {
  const std::vector<std::vector<int32_t>> texts{text(50), {7}, {}, text(21, 2)};
  for (const auto& [window, overlap] : {std::pair{512, 256}, {20, 8}, {20, 0}, {2, 1}, {1, 0}}) {
    DatastoreBuildOptions options;
    options.window = window;
    options.overlap = overlap;
    int64_t done = 0;
    options.progress = [&](int64_t entries) { done = entries; };
    const Datastore store = build_datastore(engine, texts, options);
    ASSERT_EQ(store.entries(), 49 + 20);
    EXPECT_EQ(done, 69);
    // the key of the last token of each window is the state after the tokens of the window
    int64_t end = 0;
    while (end < 49) {
      const int64_t begin = std::max<int64_t>(0, end - overlap);
      end = std::min<int64_t>(begin + window, 49);
      const auto key = datastore_key(last_hidden(std::span(texts[0]).subspan(begin, end - begin)));
      const auto found = store.search(key, 1);
      ASSERT_EQ(found.size(), 1);
      EXPECT_LT(found[0].distance, 0.01) << "window " << window << ", end " << end;
      EXPECT_EQ(found[0].token, texts[0][found[0].entry + 1]);
      if (window > 2) {
        EXPECT_EQ(found[0].entry, end - 1);
      }
    }
  }
}

TEST_F(KnnLmTest, BuildingReportsWhatIsWrong) {
  const std::vector<std::vector<int32_t>> texts{text(50)};
  const auto with = [&](auto change) {
    DatastoreBuildOptions options;
    change(options);
    return error_of([&] { build_datastore(engine, texts, options); });
  };
  EXPECT_EQ(with([](auto& o) { o.memory = 48 * 64 * 4; }),
            "datastore: the keys of 49 tokens need more than 12 KiB: expected at most 48 tokens or a higher limit");
  EXPECT_EQ(with([](auto& o) { o.memory = 49 * 64 * 4; }), "no error");
  EXPECT_NE(with([](auto& o) { o.window = 0; }), "no error");
  EXPECT_NE(with([](auto& o) { o.overlap = o.window; }), "no error");
  EXPECT_NE(with([](auto& o) { o.overlap = -1; }), "no error");
  StopToken stop;
  stop.request_stop();
  EXPECT_EQ(with([&](auto& o) { o.stop = &stop; }), "interrupted");
  const std::vector<std::vector<int32_t>> none{{5}, {}}, foreign{{5, 512}};
  EXPECT_EQ(error_of([&] { build_datastore(engine, none); }),
            "datastore: expected texts of at least 2 tokens, found none");
  EXPECT_EQ(error_of([&] { build_datastore(engine, foreign); }),
            "token 1: expected an id from 0 to 511, found 512");
}

// ---- Mixing

double log_sum(std::span<const float> logits) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit});
  return std::log(sum);
}

/// A datastore of random pairs, a query and random logits.
struct Mixture {
  Pairs pairs = random_pairs(200);
  std::shared_ptr<const Datastore> store = std::make_shared<Datastore>(kModel, normalised(), pairs.tokens);
  std::vector<float> hidden, logits;

  Mixture() {
    std::mt19937 random(test::seed(5));
    std::normal_distribution<float> normal(0, 2);
    for (int i = 0; i < kWidth; ++i) hidden.push_back(normal(random));
    for (int i = 0; i < kVocabulary; ++i) logits.push_back(normal(random));
  }
  const std::vector<float>& normalised() {
    for (size_t i = 0; i < pairs.tokens.size(); ++i) {
      const auto key = datastore_key(std::span(pairs.keys).subspan(i * kWidth, kWidth));
      std::ranges::copy(key, pairs.keys.begin() + static_cast<int64_t>(i) * kWidth);
    }
    return pairs.keys;
  }
  std::vector<float> mixed(const KnnLmOptions& options) const {
    std::vector<float> result = logits;
    KnnLm(store, options).mix(hidden, result);
    return result;
  }
};

TEST(KnnLm, LambdaZeroLeavesTheLogitsUnchanged) {
  Mixture mixture;
  EXPECT_EQ(mixture.mixed({.lambda = 0}), mixture.logits);
}

TEST(KnnLm, MixesTheDistributionsByTheFormula) {
  const Mixture mixture;
  for (const double lambda : {0.001, 0.25, 0.5, 1.0})
    for (const double temperature : {0.01, 1.0, 100.0})
      for (const int64_t k : {1, 64, 1000}) {
        std::vector<double> expected(kVocabulary);
        double sum = 0;
        const auto nearest = mixture.store->search(datastore_key(mixture.hidden), k);
        for (const DatastoreNeighbour& neighbour : nearest)
          sum += std::exp(-double{neighbour.distance - nearest[0].distance} / temperature);
        for (const DatastoreNeighbour& neighbour : nearest)
          expected[neighbour.token] +=
              lambda * std::exp(-double{neighbour.distance - nearest[0].distance} / temperature) / sum;
        for (int i = 0; i < kVocabulary; ++i)
          expected[i] += (1 - lambda) * std::exp(mixture.logits[i] - log_sum(mixture.logits));
        const auto found = mixture.mixed({.neighbours = k, .lambda = lambda, .temperature = temperature});
        double total = 0;
        for (int i = 0; i < kVocabulary; ++i) {
          EXPECT_NEAR(std::exp(found[i]), expected[i], 1e-4 * expected[i] + 1e-6) << i;
          total += std::exp(double{found[i]});
        }
        EXPECT_NEAR(total, 1, 1e-5);
      }
}

TEST(KnnLm, DistributionSumsToOneOverTokensOfNeighbours) {
  const Mixture mixture;
  const auto found = KnnLm(mixture.store, {.neighbours = 20}).distribution(mixture.hidden);
  double sum = 0;
  for (const auto& [token, probability] : found) sum += probability;
  EXPECT_NEAR(sum, 1, 1e-12);
  EXPECT_LE(found.size(), 20);
  EXPECT_TRUE(std::ranges::is_sorted(found));
}

TEST(KnnLm, MaskedTokensAreHandledAndInvalidInputIsRefused) {
  Mixture mixture;
  std::ranges::fill(mixture.logits, -kInfiniteWeight);
  EXPECT_THROW(mixture.mixed({}), Error);
  EXPECT_THROW(mixture.mixed({.lambda = 0}), Error);
  mixture.logits[7] = -3;
  const auto found = mixture.mixed({.lambda = 0.5});
  EXPECT_NEAR(log_sum(found), 0, 1e-5);
  EXPECT_GE(found[7], std::log(0.5) - 1e-6);
  for (const float bad : {kInfiniteWeight, std::nanf("")}) {
    mixture.logits[9] = bad;
    EXPECT_THROW(mixture.mixed({}), Error);
  }
  mixture.logits.pop_back();
  EXPECT_THROW(mixture.mixed({}), Error);
  std::vector<float> hidden(kWidth, std::nanf(""));
  EXPECT_THROW(datastore_key(hidden), Error);
  for (const KnnLmOptions& options : {KnnLmOptions{.neighbours = 0},
                                      {.lambda = -0.1},
                                      {.lambda = 1.1},
                                      {.lambda = std::nan("")},
                                      {.temperature = 0},
                                      {.temperature = -1},
                                      {.temperature = std::nan("")}})
    EXPECT_THROW(KnnLm(mixture.store, options), Error);
}

TEST(KnnLm, KeysHaveRootMeanSquareOne) {
  const auto key = datastore_key(std::vector<float>{3, -4, 0, 0});
  EXPECT_FLOAT_EQ(key[0], 1.2f);
  EXPECT_FLOAT_EQ(key[1], -1.6f);
  EXPECT_EQ(datastore_key(std::vector<float>(4)), std::vector<float>(4));
}

// ---- A trained model

/// Token losses of a text, with and without a datastore.
struct Losses {
  std::vector<double> plain, mixed;
  static double mean(const std::vector<double>& losses) {
    return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
  }
};

Losses losses_of(Engine& engine, const KnnLm& knn, const std::vector<int32_t>& tokens) {
  Losses losses;
  HiddenStates(engine).read(std::span(tokens).first(tokens.size() - 1), true,
                            [&](int64_t index, std::span<const float> hidden, std::span<const float> logits) {
                              std::vector<float> mixed(logits.begin(), logits.end());
                              knn.mix(hidden, mixed);
                              losses.plain.push_back(log_sum(logits) - logits[tokens[index + 1]]);
                              losses.mixed.push_back(-mixed[tokens[index + 1]]);
                            });
  return losses;
}

TEST(KnnLm, LowersThePerplexityOfTextLikeThatOfTheDatastore) {
  const auto model = Model::open(test::seedling_path());
  const Tokenizer tokenizer(Vocabulary::read(*model->file()));
  Engine engine(model, std::make_shared<Runtime>(1));
  std::ifstream in(test::data_path("prose.txt"));
  std::vector<int32_t> tokens = tokenizer.encode(std::string{std::istreambuf_iterator<char>(in), {}});
  ASSERT_GT(tokens.size(), 3500);
  const std::vector<std::vector<int32_t>> read{{tokens.begin(), tokens.begin() + 3000}};
  const std::vector<int32_t> held_out(tokens.begin() + 3000, tokens.begin() + 3500);
  const auto store = std::make_shared<Datastore>(build_datastore(engine, read));

  const Losses losses = losses_of(engine, KnnLm(store), held_out);
  RecordProperty("plain", std::to_string(Losses::mean(losses.plain)));
  RecordProperty("mixed", std::to_string(Losses::mean(losses.mixed)));
  EXPECT_LT(Losses::mean(losses.mixed), Losses::mean(losses.plain) - 0.2);

  // With the text itself in the datastore, the nearest entry of each token is its own.
  const std::vector<int32_t> known(tokens.begin(), tokens.begin() + 300);
  const Losses own = losses_of(engine, KnnLm(store, {.neighbours = 1, .lambda = 0.999}), known);
  RecordProperty("own text", std::to_string(Losses::mean(own.mixed)));
  EXPECT_LT(Losses::mean(own.mixed), 0.05);
  EXPECT_GT(Losses::mean(own.plain), 2);
}

}  // namespace
}  // namespace fathom
