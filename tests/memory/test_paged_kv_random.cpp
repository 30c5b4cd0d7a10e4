#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "base/error.h"
#include "seed.h"
#include "token_pages.h"

namespace fathom {
namespace {

constexpr int kLayers = 2, kHeads = 2, kTables = kLayers * kHeads;

/// The model of a sequence: a list of tokens.
struct TokenModel {
  int64_t id = 0, position = 0;
  bool masked[kTables] = {};
};
struct ModelledSequence {
  Sequence sequence;
  std::vector<TokenModel> tokens;
};

/// Expects the page table that follows from the tokens: a page ends when it is full or the next position is not
/// consecutive.
void expect_table(const Sequence& sequence, const std::vector<TokenModel>& tokens, int number) {
  const PageTable& table = sequence.kv(number / kHeads).table(number % kHeads);
  size_t e = 0;
  int o = 0;
  for (size_t i = 0; i < tokens.size(); ++i, ++o) {
    if (i > 0 && (o == kPageTokens || tokens[i].position != tokens[i - 1].position + 1)) {
      ASSERT_EQ(table[e].filled, o);
      ASSERT_EQ(table[e].mask & ~page_bits(0, o), 0u);
      ++e;
      o = 0;
    }
    ASSERT_LT(e, table.size());
    ASSERT_EQ(table[e].first + o, static_cast<int64_t>(i));
    ASSERT_EQ(table[e].position + o, tokens[i].position);
    ASSERT_EQ(table[e].mask >> o & 1, tokens[i].masked[number] ? 0u : 1u) << "token " << i << " table " << number;
    test::expect_token(test::store_of(sequence), table[e].page, o, tokens[i].id, number);
  }
  ASSERT_EQ(table.size(), tokens.empty() ? 0 : e + 1);
  if (!tokens.empty()) {
    ASSERT_EQ(table[e].filled, o);
    ASSERT_EQ(table[e].mask & ~page_bits(0, o), 0u);
  }
}

void expect_equal_to_model(const ModelledSequence& m) {
  ASSERT_EQ(m.sequence.tokens(), static_cast<int64_t>(m.tokens.size()));
  ASSERT_EQ(m.sequence.next_position(), m.tokens.empty() ? 0 : m.tokens.back().position + 1);
  int64_t end = 0;
  for (const TokenModel& token : m.tokens) end = std::max(end, token.position + 1);
  ASSERT_EQ(m.sequence.end_position(), end);
  ASSERT_EQ(m.sequence.ids().size(), m.sequence.tokens());
  for (size_t i = 0; i < m.tokens.size(); ++i) ASSERT_EQ(m.sequence.ids()[static_cast<int64_t>(i)], m.tokens[i].id);
  for (int t = 0; t < kTables; ++t) ASSERT_NO_FATAL_FAILURE(expect_table(m.sequence, m.tokens, t));
}

/// Applies random operations to sequences of one store and to their models.
class SequenceOperations {
 public:
  SequenceOperations(uint32_t seed, PageFormat format) : random_(seed), store_(test::small_store(format)) {
    sequences_.push_back({test::small_sequence(store_, kLayers, kHeads), {}});
  }

  void one() {
    ModelledSequence& m = sequences_[below(sequences_.size())];
    switch (below(10)) {
      case 0:
        return fork(m);
      case 1:
        return destroy();
      case 2:
        return move(m);
      case 3:
        return mask(m);
      case 4:
      case 5:
        return truncate(m);
      default:
        return read(m);
    }
  }

  void expect_all() {
    std::set<PageId> pages;
    for (const ModelledSequence& m : sequences_) {
      ASSERT_NO_FATAL_FAILURE(expect_equal_to_model(m));
      for (int t = 0; t < kTables; ++t) {
        for (const PageEntry& entry : m.sequence.kv(t / kHeads).table(t % kHeads)) pages.insert(entry.page);
      }
    }
    ASSERT_EQ(store_->bytes_in_use(), pages.size() * store_->shape().bytes());
  }

  size_t bytes_after_clear() {
    sequences_.clear();
    return store_->bytes_in_use();
  }

 private:
  int64_t below(size_t n) { return static_cast<int64_t>(random_() % n); }

  void read(ModelledSequence& m) {
    std::vector<int64_t> ids, positions;
    int64_t position = m.sequence.next_position();
    for (int64_t n = below(4) ? below(90) : below(4); n-- > 0;) {
      if (below(40) == 0) position = below(3000);
      ids.push_back(next_id_++);
      positions.push_back(position++);
      m.tokens.push_back({ids.back(), positions.back(), {}});
    }
    if (below(4) == 0) {  // an abandoned pass
      m.sequence.open(positions);
      m.sequence.abandon();
    }
    test::read_tokens(m.sequence, ids, positions);
  }

  void truncate(ModelledSequence& m) {
    const int64_t n = below(std::min<size_t>(m.tokens.size(), below(5) ? 40 : 300) + 1);
    test::remove_newest(m.sequence, n);
    m.tokens.resize(m.tokens.size() - n);
  }

  void fork(ModelledSequence& m) {
    if (sequences_.size() < 6) {
      ModelledSequence copy{m.sequence.fork(), m.tokens};
      sequences_.push_back(std::move(copy));
    }
  }

  void destroy() {
    if (sequences_.size() > 1) sequences_.erase(sequences_.begin() + below(sequences_.size()));
  }

  void move(ModelledSequence& m) {
    const int64_t to = below(2000);
    if (m.tokens.empty()) return m.sequence.move_to(to);
    const int64_t shift = to - m.tokens[0].position;
    const bool fits = std::all_of(m.tokens.begin(), m.tokens.end(),
                                  [&](const TokenModel& token) { return token.position + shift >= 0; });
    if (!fits) {
      EXPECT_THROW(m.sequence.move_to(to), Error);
      return;
    }
    m.sequence.move_to(to);
    for (TokenModel& token : m.tokens) token.position += shift;
  }

  void mask(ModelledSequence& m) {
    const int64_t begin = below(m.tokens.size() + 1), end = begin + below(100);
    const int only = below(2) ? static_cast<int>(below(kTables)) : -1;
    if (only < 0) {
      m.sequence.mask(begin, end);
    } else {
      m.sequence.kv(only / kHeads).mask(only % kHeads, begin, end);
    }
    for (int64_t i = begin; i < std::min<int64_t>(end, m.tokens.size()); ++i) {
      for (int t = 0; t < kTables; ++t) m.tokens[i].masked[t] |= only < 0 || only == t;
    }
  }

  std::mt19937 random_;
  std::shared_ptr<PageStore> store_;
  std::vector<ModelledSequence> sequences_;
  int64_t next_id_ = 0;
};

TEST(PagedKvRandom, RandomOperationsMatchAListModel) {
  for (const PageFormat format :
       {PageFormat::kF32, PageFormat::kF32, PageFormat::kBF16, PageFormat::kQ8, PageFormat::kQ4}) {
    SCOPED_TRACE(testing::Message() << "format " << static_cast<int>(format));
    SequenceOperations operations(test::seed(1), format);
    for (int n = 0; n < 250; ++n) {
      operations.one();
      if (n % 5 == 0) {
        ASSERT_NO_FATAL_FAILURE(operations.expect_all()) << "after operation " << n;
      }
    }
    ASSERT_NO_FATAL_FAILURE(operations.expect_all());
    EXPECT_EQ(operations.bytes_after_clear(), 0u);
  }
}

}  // namespace
}  // namespace fathom
