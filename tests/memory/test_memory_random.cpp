#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "base/error.h"
#include "token_pages.h"

namespace fathom {
namespace {

constexpr int kLayers = 2, kHeads = 2, kLanes = kLayers * kHeads;

/// What a sequence is without pages: a list of tokens.
struct Token {
  int64_t id = 0, position = 0;
  bool hidden[kLanes] = {};
};
struct Sequence {
  Memory memory;
  std::vector<Token> tokens;
};

/// The page table of a lane follows from the tokens alone: pages end when full or where positions do not follow.
void expect_lane(const Memory& memory, const std::vector<Token>& tokens, int lane) {
  const Lane& table = memory.lane(lane / kHeads, lane % kHeads);
  size_t s = 0;
  int o = 0;
  for (size_t i = 0; i < tokens.size(); ++i, ++o) {
    if (i > 0 && (o == kPageTokens || tokens[i].position != tokens[i - 1].position + 1)) {
      ASSERT_EQ(table[s].filled, o);
      ASSERT_EQ(table[s].mask & ~page_bits(0, o), 0u);
      ++s;
      o = 0;
    }
    ASSERT_LT(s, table.size());
    ASSERT_EQ(table[s].first + o, static_cast<int64_t>(i));
    ASSERT_EQ(table[s].place + o, tokens[i].position);
    ASSERT_EQ(table[s].mask >> o & 1, tokens[i].hidden[lane] ? 0u : 1u) << "token " << i << " lane " << lane;
    test::expect_token(memory.store(), table[s].page, o, tokens[i].id, lane);
  }
  ASSERT_EQ(table.size(), tokens.empty() ? 0 : s + 1);
  if (!tokens.empty()) {
    ASSERT_EQ(table[s].filled, o);
    ASSERT_EQ(table[s].mask & ~page_bits(0, o), 0u);
  }
}

void expect_sequence(const Sequence& sequence) {
  const std::vector<Token>& tokens = sequence.tokens;
  ASSERT_EQ(sequence.memory.tokens(), static_cast<int64_t>(tokens.size()));
  ASSERT_EQ(sequence.memory.next_position(), tokens.empty() ? 0 : tokens.back().position + 1);
  int64_t end = 0;
  for (const Token& token : tokens) end = std::max(end, token.position + 1);
  ASSERT_EQ(sequence.memory.end_position(), end);
  for (int lane = 0; lane < kLanes; ++lane) ASSERT_NO_FATAL_FAILURE(expect_lane(sequence.memory, tokens, lane));
}

/// Random operations on sequences of one store, each done to the pages and to the lists.
class Operations {
 public:
  Operations(uint32_t seed, PageFormat format) : random_(seed), store_(test::small_store(format)) {
    sequences_.push_back({Memory(store_, kLayers, kHeads), {}});
  }

  void one() {
    Sequence& s = sequences_[below(sequences_.size())];
    switch (below(10)) {
      case 0:
        return fork(s);
      case 1:
        return forget();
      case 2:
        return place(s);
      case 3:
        return hide(s);
      case 4:
      case 5:
        return rewind(s);
      default:
        return append(s);
    }
  }

  void expect_all() {
    std::set<PageId> pages;
    for (const Sequence& s : sequences_) {
      ASSERT_NO_FATAL_FAILURE(expect_sequence(s));
      for (int lane = 0; lane < kLanes; ++lane) {
        for (const PageSlot& slot : s.memory.lane(lane / kHeads, lane % kHeads)) pages.insert(slot.page);
      }
    }
    ASSERT_EQ(store_->bytes_in_use(), pages.size() * store_->shape().bytes());
  }

  size_t bytes_after_all_are_gone() {
    sequences_.clear();
    return store_->bytes_in_use();
  }

 private:
  int64_t below(size_t n) { return static_cast<int64_t>(random_() % n); }

  void append(Sequence& s) {
    std::vector<int64_t> ids, positions;
    int64_t position = s.memory.next_position();
    for (int64_t n = below(4) ? below(90) : below(4); n-- > 0;) {
      if (below(40) == 0) position = below(3000);
      ids.push_back(next_id_++);
      positions.push_back(position++);
      s.tokens.push_back({ids.back(), positions.back(), {}});
    }
    test::read_tokens(s.memory, ids, positions);
  }

  void rewind(Sequence& s) {
    const int64_t n = below(std::min<size_t>(s.tokens.size(), below(5) ? 40 : 300) + 1);
    s.memory.rewind(n);
    s.tokens.resize(s.tokens.size() - n);
  }

  void fork(Sequence& s) {
    if (sequences_.size() < 6) {
      Sequence copy{s.memory.fork(), s.tokens};
      sequences_.push_back(std::move(copy));
    }
  }

  void forget() {
    if (sequences_.size() > 1) sequences_.erase(sequences_.begin() + below(sequences_.size()));
  }

  void place(Sequence& s) {
    const int64_t to = below(2000);
    if (s.tokens.empty()) return s.memory.place(to);
    const int64_t shift = to - s.tokens[0].position;
    const bool fits = std::all_of(s.tokens.begin(), s.tokens.end(),
                                  [&](const Token& token) { return token.position + shift >= 0; });
    if (!fits) {
      EXPECT_THROW(s.memory.place(to), Error);
      return;
    }
    s.memory.place(to);
    for (Token& token : s.tokens) token.position += shift;
  }

  void hide(Sequence& s) {
    const int64_t begin = below(s.tokens.size() + 1), end = begin + below(100);
    const int only = below(2) ? static_cast<int>(below(kLanes)) : -1;
    if (only < 0) {
      s.memory.hide(-1, 0, begin, end);
    } else {
      s.memory.hide(only / kHeads, only % kHeads, begin, end);
    }
    for (int64_t i = begin; i < std::min<int64_t>(end, s.tokens.size()); ++i) {
      for (int lane = 0; lane < kLanes; ++lane) s.tokens[i].hidden[lane] |= only < 0 || only == lane;
    }
  }

  std::mt19937 random_;
  std::shared_ptr<PageStore> store_;
  std::vector<Sequence> sequences_;
  int64_t next_id_ = 0;
};

TEST(MemoryRandom, AnyOperationsLeaveWhatAListOfTokensWouldHold) {
  for (const PageFormat format :
       {PageFormat::kF32, PageFormat::kF32, PageFormat::kBF16, PageFormat::kQ8, PageFormat::kQ4}) {
    const uint32_t seed = std::random_device()();
    SCOPED_TRACE(testing::Message() << "seed " << seed << " format " << static_cast<int>(format));
    Operations operations(seed, format);
    for (int n = 0; n < 250; ++n) {
      operations.one();
      if (n % 5 == 0) {
        ASSERT_NO_FATAL_FAILURE(operations.expect_all()) << "after operation " << n;
      }
    }
    ASSERT_NO_FATAL_FAILURE(operations.expect_all());
    EXPECT_EQ(operations.bytes_after_all_are_gone(), 0u);
  }
}

}  // namespace
}  // namespace fathom
